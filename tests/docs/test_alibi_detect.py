"""The page on alibi-detect: its example as it stands there, and its table against what alibi-detect has."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from detectors.alibi.catalogue import SPECS
from govern import plugins
from govern.cli import main
from govern.frame import Frame
from govern.runtime.loader import load
from tests.docs.test_readme import ROOT, blocks

PAGE = (ROOT / "docs" / "alibi-detect.md").read_text(encoding="utf-8")
DETECTORS = [
    [cell.strip().strip("`") for cell in line.split("|")[1:-1]]
    for line in PAGE[PAGE.index("## Which detectors") :].splitlines()
    if line.startswith("| `")
]


@pytest.mark.alibi
def test_the_example_as_the_page_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("alibi_detect", reason="the extra [alibi] is not installed")
    monkeypatch.chdir(tmp_path)
    # As a program: alibi-detect pickles by value only what a program itself defines.
    ran = subprocess.run([sys.executable, "-P", "-c", blocks("python", PAGE)[0]], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    schema, pipeline = blocks("yaml", PAGE)
    Path("schema.yaml").write_text(schema)
    Path("guard.yaml").write_text(pipeline)
    words = shlex.split(blocks("", PAGE)[0])[1:]
    told = CliRunner().invoke(main.build(words[0]), words, catch_exceptions=False)
    assert re.sub(r"; sha256 [0-9a-f]{64}", "", told.stdout) == blocks("text", PAGE)[0]

    (loaded,) = load(Path("guard.yaml"))
    detector = loaded.detectors["drift"]
    rng = np.random.default_rng(1)
    quiet, moved = (Frame(detector.schema, tuple(rng.normal([40, hours], [12, 6], (500, 2)).T)) for hours in (38, 44))
    assert (detector.score(quiet).alarm, detector.score(moved).alarm) == (False, True)


@pytest.mark.alibi
def test_the_table_has_every_detector() -> None:
    pytest.importorskip("alibi_detect", reason="the extra [alibi] is not installed")
    public = {name for part in ("cd", "od", "ad") for name in importlib.import_module(f"alibi_detect.{part}").__all__}
    assert {row[0] for row in DETECTORS} == public


def test_the_table_says_which_are_reached_by_name() -> None:
    assert {row[0] for row in DETECTORS if row[1].startswith("yes")} == set(SPECS)
    assert all("TensorFlow" in row[3] for row in DETECTORS if row[0] in SPECS and SPECS[row[0]].backend)


def test_the_table_of_saved_types() -> None:
    types = set(re.findall(r"^\| `(alibi_detect\.saved_\w+)`", PAGE, re.MULTILINE))
    assert types == {name for name in plugins.names(plugins.DETECTORS) if name.startswith("alibi_detect.saved_")}


def test_the_tests_that_the_table_names() -> None:
    """Each detector is named in a test of the group that the table gives it."""
    tests = {
        "test-alibi": ("test_alibi.py", "test_alibi_saved.py"),
        "test-tensorflow": ("test_alibi_tensorflow.py", "tensorflow_saved.py"),
    }
    source = {
        group: "".join((ROOT / "tests" / "detectors" / name).read_text(encoding="utf-8") for name in names)
        for group, names in tests.items()
    }
    for name, *_, groups in DETECTORS:
        for group in groups.replace("`", "").split(", "):
            assert f'"{name}"' in source[group] or f"cd.{name}(" in source[group], (name, group)
