"""A pipeline whose steps are served."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from govern.runtime.loader import LoadedPipeline, load
from govern.runtime.serving.repository import Repository, detector_sources
from tests.runtime.conftest import Fitted
from tests.services.process import Process


@pytest.fixture
def file(fitted: Fitted, tmp_path: Path) -> Path:
    return fitted.write(tmp_path / "pipeline", "default")


@pytest.fixture
def loaded(file: Path) -> LoadedPipeline:
    (one,) = load(file)
    return one


@pytest.fixture
def repository(file: Path, loaded: LoadedPipeline) -> Repository:
    return Repository(detector_sources(file, [loaded]))


@contextmanager
def served(file: Path, log: Path, *options: str) -> Iterator[Process]:
    """`govern serve` as a process, of a file that has the pipeline `watch`."""
    command = [sys.executable, "-m", "govern.cli.main", "serve", str(file), "--http", "127.0.0.1:0", *options]
    process = Process(command, log=log)
    process.start(lambda text: "serving watch-" in text)
    try:
        yield process
    finally:
        process.stop()


def address(process: Process) -> str:
    """The URL that `govern serve` says."""
    found = re.search(r"http://\S+", process.log())
    assert found is not None, process.log()
    return found.group()
