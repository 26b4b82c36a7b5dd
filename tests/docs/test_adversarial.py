"""The example of the page on adversarial inputs, run as it stands there."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

from detectors import artifacts
from govern import plugins
from govern.cli.main import main
from govern.frame import Frame
from tests.docs.test_readme import ROOT, blocks

PAGE = (ROOT / "docs" / "adversarial.md").read_text(encoding="utf-8")


def test_the_example_as_the_page_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "guard.yaml").write_text(blocks("yaml", PAGE)[0])
    rng = np.random.default_rng(0)
    age, hours = rng.normal(40, 10, 1500), rng.normal(38, 6, 1500)
    p = 1.0 / (1.0 + np.exp(-(age - 40) / 2))
    lines = [",".join(map(str, row)) for row in np.column_stack((age, hours, p)).tolist()]
    (tmp_path / "reference.csv").write_text("\n".join(["age,hours,p", *lines]) + "\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", shlex.split(blocks("", PAGE)[0]))
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    for name in ("squeezed", "neighbours"):
        detector = artifacts.load(Path("artifacts") / name)
        columns = np.array([30.0, 50.0]), np.array([38.0, 38.0])
        for answers, flagged in (([0.01, 0.99], [False, False]), ([0.99, 0.01], [True, True])):
            frame = Frame(detector.schema, columns, outputs={"predict_proba": np.array(answers)[:, None]})
            assert detector.score(frame).flagged.tolist() == flagged


def test_every_adversarial_detector_is_on_the_page() -> None:
    known = [name for name in plugins.names(plugins.DETECTORS) if not name.startswith("alibi_detect.")]
    adversarial = {name for name in known if plugins.load(plugins.DETECTORS, name).kind == "adversarial"}
    section = next(text for text in PAGE.split("\n## ") if text.startswith("Which one"))
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    assert adversarial == {row.split("|")[1].strip("` ") for row in rows}
