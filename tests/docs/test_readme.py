"""What the documents show is what the programs take: commands, files, names."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from govern.pipeline import load_pipelines

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CAPTURE = "".join(page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs" / "capture").glob("*.md")))
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])


def blocks(language: str, text: str = README) -> list[str]:
    pieces = re.split(r"^```(\w*)\n", text, flags=re.MULTILINE)
    opened = zip(pieces[1::4], pieces[2::4], strict=True)  # text, language, block, (end of fence,) text ...
    return [block for found, block in opened if found == language]


def commands() -> list[list[str]]:
    lines = [line for text in (README, CAPTURE) for block in blocks("", text) for line in block.splitlines()]
    found = [shlex.split(line.removeprefix(".venv/bin/")) for line in lines if line.startswith(("govern ", ".venv"))]
    assert len(found) > 10
    return found


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_is_one_that_govern_takes(command: list[str]) -> None:
    """With --help at its end a command only explains itself; one that does not exist, or has no such flag, fails."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "govern.cli.main", *command[1:], "--help"],
        env={**os.environ, "GOVERN_BUS": "embedded:///bus.db"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_pipeline_file_is_valid(tmp_path: Path) -> None:
    (block,) = blocks("yaml")
    file = tmp_path / "pipeline.yaml"
    file.write_text(block, encoding="utf-8")
    (pipeline,) = load_pipelines(file, schema=False)
    assert [step.name for step in pipeline.spec.steps] == ["drift", "outlier", "credit", "adversarial", "why"]


def test_the_middleware_is_added_as_shown() -> None:
    (block,) = blocks("python")
    script = "from fastapi import FastAPI\napp = FastAPI()\n" + block + "\napp.build_middleware_stack()"
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []


def test_the_architecture_names_only_modules_that_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:govern|detectors|explainers|audit|dashboards)(?:\.\w+)*)`", text))
    assert len(named) > 10

    def exists(name: str) -> bool:
        path = ROOT.joinpath(*name.split("."))
        attribute_of = path.parent.with_suffix(".py")
        return (
            path.is_dir()
            or path.with_suffix(".py").exists()
            or (attribute_of.exists() and f"class {path.name}" in attribute_of.read_text(encoding="utf-8"))
            or name in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        )

    assert {name for name in named if not exists(name)} == set()


def test_make_help_lists_every_target_that_the_documents_name() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = {target for page in PAGES for target in re.findall(r"`make ([a-z0-9-]+)", page.read_text(encoding="utf-8"))}
    assert {target for target in named if not re.search(rf"^{target}:.*##", makefile, flags=re.MULTILINE)} == set()
