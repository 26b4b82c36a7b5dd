"""The example of the page on online drift, run as it stands there."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

from detectors.online.detector import OnlineDrift
from govern import plugins
from govern.cli.main import main
from tests.docs.test_readme import ROOT, blocks

PAGE = (ROOT / "docs" / "online-drift.md").read_text(encoding="utf-8")


def test_the_example_as_the_page_shows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "people.yaml").write_text(blocks("yaml", PAGE)[0])
    rng = np.random.default_rng(0)
    rows = np.column_stack((rng.normal(40, 9, 2_600), rng.normal(20, 5, 2_600))).round(3)
    rows[2_430:, 1] += 8.0
    for name, table in (("reference", rows[:2_000]), ("stream", rows[2_000:])):
        lines = [",".join(map(str, row)) for row in table.tolist()]
        (tmp_path / f"{name}.csv").write_text("\n".join(["age,pay", *lines]) + "\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", shlex.split(blocks("", PAGE)[0]))
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    capsys.readouterr()
    exec(blocks("python", PAGE)[0], {})
    assert capsys.readouterr().out == blocks("text", PAGE)[0]


def test_every_online_detector_is_on_the_page() -> None:
    known = [name for name in plugins.names(plugins.DETECTORS) if not name.startswith("alibi_detect.")]
    mine = {name for name in known if issubclass(plugins.load(plugins.DETECTORS, name), OnlineDrift)}
    cells = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    assert {name.strip(" `") for cell in cells[1:] for name in cell.split(",")} == mine
