"""The example of the page on drift, run as it stands there."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

from detectors.drift.detector import UnivariateDrift
from govern import plugins
from govern.cli.main import main
from tests.docs.test_readme import ROOT, blocks

PAGE = (ROOT / "docs" / "drift.md").read_text(encoding="utf-8")


def test_the_example_as_the_page_shows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "people.yaml").write_text(blocks("yaml", PAGE)[0])
    rng = np.random.default_rng(0)
    for name, rows, raised in (("reference", 2000, 0.0), ("window", 200, 4.0)):
        lines = ["age,pay,job"]
        for row in range(rows):
            job = "pilot" if raised and row % 10 == 0 else rng.choice(["clerk", "cook", "smith"])
            lines.append(f"{rng.normal(40, 9):.4f},{rng.normal(20 + raised, 5):.4f},{job}")
        (tmp_path / f"{name}.csv").write_text("\n".join(lines) + "\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", shlex.split(blocks("", PAGE)[0]))
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    capsys.readouterr()
    names: dict[str, object] = {}
    for code, said in zip(blocks("python", PAGE), blocks("text", PAGE), strict=True):
        exec(code, names)
        assert capsys.readouterr().out == said


def test_every_univariate_detector_is_on_the_page() -> None:
    known = [name for name in plugins.names(plugins.DETECTORS) if not name.startswith("alibi_detect.")]
    mine = {name for name in known if issubclass(plugins.load(plugins.DETECTORS, name), UnivariateDrift)}
    cells = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    assert {name.strip(" `") for cell in cells[1:] for name in cell.split(",")} == mine
