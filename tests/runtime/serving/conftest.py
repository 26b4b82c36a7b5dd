"""A pipeline whose steps are served."""

from __future__ import annotations

from pathlib import Path

import pytest

from govern.runtime.loader import LoadedPipeline, load
from govern.runtime.serving.repository import Repository, detector_sources
from tests.runtime.conftest import Fitted


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
