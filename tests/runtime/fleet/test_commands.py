"""`govern pipeline apply`, `ls`, `get` and `delete` as users type them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from govern.artifact import MANIFEST
from govern.cli.main import main
from govern.runtime.loader import load
from tests.runtime.fleet.conftest import Write

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def pipeline(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], embedded_url: str, unique: str
) -> Run:
    """`pipeline(*words)`: exit status, stdout, stderr."""

    def run(*words: object) -> tuple[int, str, str]:
        given = ["govern", "pipeline", *map(str, words), "--bus", embedded_url, "--namespace", unique]
        monkeypatch.setattr(sys, "argv", given)
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        return int(ended.value.code or 0), shown.out, shown.err

    return run


def test_the_fleet_at_the_command_line(pipeline: Run, write: Write, tmp_path: Path) -> None:
    first, second = write("first"), write("second")
    with second.open("a") as file:
        file.write("---\n# the third\n" + first.read_text().lstrip().replace("first", "third"))
    assert pipeline("apply", first, second) == (0, "first created\nsecond created\nthird created\n", "")
    write("first", "size: 300", "size: 200")
    assert pipeline("apply", first, second) == (0, "first changed\nsecond unchanged\nthird unchanged\n", "")

    status, shown, _ = pipeline("ls", "--json")
    assert status == 0
    entries = [json.loads(line) for line in shown.splitlines()]
    assert [(one["name"], one["service"], one["model"]) for one in entries] == [
        (name, "employment", "employment") for name in ("first", "second", "third")
    ]
    assert [one["digest"] for one in entries] == [one.plan.digest for f in (first, second) for one in load(f)]
    assert all(one["actor"].startswith("cli:") for one in entries)
    _, shown, _ = pipeline("ls")
    assert entries[0]["digest"][:12] in shown

    assert pipeline("get", "first") == (0, first.read_text(), "")
    status, shown, _ = pipeline("get", "third", "--to", tmp_path / "back")
    assert (status, shown) == (0, f"{tmp_path / 'back' / 'pipeline.yaml'}\n")
    assert (tmp_path / "back" / "pipeline.yaml").read_text().startswith("---\n# the third\n")
    (back,) = load(tmp_path / "back" / "pipeline.yaml")
    assert back.plan.digest == entries[2]["digest"]

    assert pipeline("delete", "first", "third") == (0, "first deleted\nthird deleted\n", "")
    assert pipeline("delete", "first")[0] == 2
    assert [json.loads(line)["name"] for line in pipeline("ls", "--json")[1].splitlines()] == ["second"]


def test_nothing_is_applied_when_one_is_wrong(pipeline: Run, write: Write) -> None:
    """As `govern pipeline check` finds it, as a worker does, and as its artifact shows when it is read."""
    right = write("right")
    unknown = write("unknown", "type: tabular", "type: tabularr")
    unrun = write("unrun", "batch: {size: 20,", "batch: {rolling: true, size: 20,")
    damaged = write("damaged")
    artifacts = damaged.parent / "artifacts"
    target = artifacts.resolve()
    artifacts.unlink()
    for name in ("drift", "outlier", "adversarial"):
        (artifacts / name).mkdir(parents=True)
        for file in (target / name).iterdir():
            (artifacts / name / file.name).write_bytes(file.read_bytes())
    victim = next(file for file in (artifacts / "drift").iterdir() if file.name != MANIFEST)
    victim.write_bytes(victim.read_bytes()[:-1] + b"?")
    status, shown, told = pipeline("apply", right, unknown, unrun, damaged)
    assert (status, shown) == (2, "")
    assert "tabularr" in told
    assert "`rolling` of detector step 'outlier'" in told
    assert f"artifact {artifacts / 'drift'}: {victim.name} has the wrong digest" in told
    assert "3 errors, nothing is applied" in told
    assert pipeline("apply", right, right)[0] == 2
    assert pipeline("apply", right) == (0, "right created\n", "")
