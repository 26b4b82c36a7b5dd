"""Fixtures that every test may ask for: real services, fresh URLs, names that nobody else uses."""

from __future__ import annotations

import os

# Before anything loads OpenMP: threads that spin while they wait make small predictions many times slower on two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

# Before anything loads numba: of the processes that the tests start, one compiles, and the others find what it made.
os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(__file__).parents[1] / ".cache" / "numba"))

import contextlib
import logging
import subprocess
import uuid
from collections.abc import Callable, Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings

from tests.services.kafka import Kafka
from tests.services.otlp import OtlpReceiver
from tests.services.postgres import Postgres
from tests.services.prometheus import Prometheus

# A busy machine is no defect: how long an example takes, to make or to run, says nothing of what it shows. CI tests the
# change, with the same examples each time; new ones are looked for wherever else the tests run.
settings.register_profile("govern", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("govern"), derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "govern")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole-system runs go first, in whatever order: a long test that is begun last runs while nobody else has work."""
    items.sort(key=lambda item: item.get_closest_marker("e2e") is None)


@pytest.fixture(autouse=True)
def _logging_of_its_own() -> Iterator[None]:
    """A test that runs a command in this process has its logging configured; the next one starts without."""
    root = logging.getLogger()
    level = root.level
    yield
    for handler in root.handlers[:]:
        if isinstance(handler.formatter, structlog.stdlib.ProcessorFormatter):
            root.removeHandler(handler)
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def kafka() -> Iterator[Kafka]:
    """A broker that the tests of a session share. A test that kills it starts its own: `with Kafka() as kafka`."""
    with Kafka() as service:
        yield service


@pytest.fixture(scope="session")
def kafka_url(kafka: Kafka) -> str:
    return kafka.url


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with Postgres() as service:
        yield service


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """A fresh, empty database."""
    with postgres.database() as url:
        yield url


@pytest.fixture
def prometheus() -> Iterator[Callable[..., Prometheus]]:
    """`prometheus(config_text, files={...})` starts a server that is stopped after the test."""
    with contextlib.ExitStack() as started:

        def start(config: str, **options: dict[str, str]) -> Prometheus:
            return started.enter_context(Prometheus(config, files=options.get("files")))

        yield start


@pytest.fixture
def otlp_receiver() -> Iterator[OtlpReceiver]:
    """An OpenTelemetry Collector; `.endpoint` takes OTLP over HTTP, `.spans()` is what arrived."""
    with OtlpReceiver() as service:
        yield service


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system with room for 16 KiB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    folder = tmp_path / "full-disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.fixture
def embedded_url(tmp_path: Path) -> str:
    return f"embedded://{tmp_path / 'bus.db'}"


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
def bus_url(request: pytest.FixtureRequest) -> str:
    """Each kind of bus in turn."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def unique() -> str:
    """A namespace (or topic prefix) of this test alone, so that tests can share a broker."""
    return f"t{uuid.uuid4().hex[:12]}"
