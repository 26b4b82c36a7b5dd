"""The example of the page on importing manifests, run as it stands there."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from govern.pipeline import load_pipelines
from tests.mirror.conftest import govern

PAGE = (Path(__file__).parents[2] / "docs" / "pipeline-import.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    pieces = (piece.partition("\n") for piece in PAGE.split("```")[1::2])
    return [text for found, _, text in pieces if found == language]


@pytest.mark.e2e
def test_the_example_as_the_page_shows_it(tmp_path: Path) -> None:
    before, after, whole = blocks("yaml")
    (tmp_path / "seldon.yaml").write_text(before)
    command, another = (shlex.split(text) for text in blocks(""))
    done = subprocess.run(govern(*command[1:]), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (3, blocks("text")[0])
    assert (tmp_path / "pipelines.yaml").read_text() == after
    (pipeline,) = load_pipelines(tmp_path / "pipelines.yaml", schema=False)
    assert pipeline.name == "payroll"
    done = subprocess.run(govern(*another[1:]), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (3, blocks("text")[0])
    assert (tmp_path / "whole.yaml").read_text() == whole
    assert [step.role for step in load_pipelines(tmp_path / "whole.yaml", schema=False)[0].spec.steps] == [
        "model",
        "detector",
    ]
