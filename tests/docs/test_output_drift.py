"""The example of the page on output drift, run as it stands there."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

from detectors.drift.outputs import OutputDrift
from govern import plugins
from govern.cli.main import main
from tests.docs.test_readme import ROOT, blocks

PAGE = (ROOT / "docs" / "output-drift.md").read_text(encoding="utf-8")


def test_the_example_as_the_page_shows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "people.yaml").write_text(blocks("yaml", PAGE)[0])
    rng = np.random.default_rng(0)
    for name, rows in (("reference", 2000), ("window", 200)):
        chance = rng.beta(0.3, 0.3, rows)
        if name == "window":
            chance[::2] = rng.uniform(0.4, 0.6, rows // 2)
        lines = [f"{rng.normal(40, 9):.4f},{one:.6f}" for one in chance]
        (tmp_path / f"{name}.csv").write_text("\n".join(["age,chance", *lines]) + "\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", shlex.split(blocks("", PAGE)[0]))
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    capsys.readouterr()
    exec(blocks("python", PAGE)[0], {})
    assert capsys.readouterr().out == blocks("text", PAGE)[0]


def test_every_detector_of_outputs_is_on_the_page() -> None:
    known = [name for name in plugins.names(plugins.DETECTORS) if not name.startswith("alibi_detect.")]
    mine = {name for name in known if issubclass(plugins.load(plugins.DETECTORS, name), OutputDrift)}
    cells = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    assert {cell.strip(" `") for cell in cells[1:]} == mine
