"""The example of the page on outliers, run as it stands there."""

from __future__ import annotations

import ast
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import beta

from detectors.outlier.held_out import rows_needed
from govern import plugins
from govern.cli.main import main
from tests.docs.test_readme import ROOT, blocks

PAGE = (ROOT / "docs" / "outliers.md").read_text(encoding="utf-8")


def test_the_example_as_the_page_shows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "guard.yaml").write_text(blocks("yaml", PAGE)[0])
    rng = np.random.default_rng(0)
    schooling = rng.normal(13, 3, 1000)
    rows = np.column_stack((schooling, rng.normal(38, 6, 1000), 2 * schooling + rng.normal(0, 2, 1000))).round(2)
    for name, table in (("reference", rows), ("calls", np.array([[13, 80, 26], [2, 38, 90]]))):
        lines = [",".join(map(str, row)) for row in table.tolist()]
        (tmp_path / f"{name}.csv").write_text("\n".join(["schooling,hours,pay", *lines]) + "\n")
    command = shlex.split(blocks("", PAGE)[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    capsys.readouterr()
    exec(blocks("python", PAGE)[0], {})
    told = capsys.readouterr().out
    hours, pay = (line.partition(" ") for line in told.splitlines())
    assert (hours[0], pay[0]) == ("True", "True")
    assert ast.literal_eval(hours[2])["hours"] > 0.9
    assert ast.literal_eval(pay[2])["hours"] < 0.01


def test_every_outlier_detector_is_on_the_page() -> None:
    known = [name for name in plugins.names(plugins.DETECTORS) if not name.startswith("alibi_detect.")]
    outlier = {name for name in known if plugins.load(plugins.DETECTORS, name).kind == "outlier"}
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")][1:]
    assert {word.strip("` ") for row in rows for word in row.split("|")[1].split(",")} == outlier


def test_the_figures_of_the_page() -> None:
    assert (rows_needed(0.01), rows_needed(0.001)) == (330, 3330)
    low, high = beta(3, 298).ppf([0.05, 0.95])  # rank 298 of 300: ceil(301 * 0.99)
    assert (round(100 * low, 1), round(100 * high, 1)) == (0.3, 2.1)
