"""The example of the page on pipelines, run as it stands there."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

from tests.mirror.conftest import govern

PAGE = (Path(__file__).parents[2] / "docs" / "pipelines.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    pieces = (piece.partition("\n") for piece in PAGE.split("```")[1::2])
    return [text for found, _, text in pieces if found == language]


def test_the_example_as_the_page_shows_it(tmp_path: Path) -> None:
    def run(command: str) -> subprocess.CompletedProcess[str]:
        words = govern(*shlex.split(command)[1:])
        return subprocess.run(
            words, cwd=tmp_path, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "100"}
        )

    (written,) = blocks("yaml")
    file = tmp_path / "pricing.yaml"
    file.write_text(written)
    (check, show), (refused, drawn) = blocks(""), blocks("text")
    done = run(check)
    assert (done.returncode, done.stdout, done.stderr) == (2, refused, "")
    file.write_text(written.replace("[linear, boosted]\n", "[linear, boosted]\n      inputsJoinType: any\n"))
    done = run(show)
    assert (done.returncode, done.stdout, done.stderr) == (0, drawn, "")
    assert "`govern pipeline show pricing.yaml --svg pricing.svg`" in PAGE
    assert run("govern pipeline show pricing.yaml --svg pricing.svg").returncode == 0
    assert (tmp_path / "pricing.svg").read_text().startswith("<svg ")
