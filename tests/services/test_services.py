"""The services are real, and they end with the process that started them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from tests.services import process
from tests.services.kafka import Kafka
from tests.services.postgres import Postgres
from tests.services.process import ServiceError, free_port, listening, require
from tests.services.prometheus import Prometheus, promtool


@pytest.mark.kafka
def test_kafka_comes_back_on_its_port_after_a_kill() -> None:
    with Kafka() as kafka:
        assert listening(kafka.port)
        kafka.kill()
        assert not listening(kafka.port)
        kafka.restart()
        assert listening(kafka.port)
    assert not listening(kafka.port)
    assert not kafka.folder.exists()


@pytest.mark.postgres
def test_postgres_gives_each_test_an_empty_database(postgres: Postgres) -> None:
    names = []
    for _ in range(2):
        with postgres.database() as url, psycopg.connect(url.replace("+psycopg", "")) as connection:
            connection.execute("CREATE TABLE t (x int)")
            row = connection.execute("SELECT current_database()").fetchone()
            assert row is not None
            names.append(row[0])
    assert names[0] != names[1]


@pytest.mark.prometheus
def test_prometheus_scrapes_and_answers(prometheus: Callable[..., Prometheus]) -> None:
    port = free_port()
    server = prometheus(
        "global: {scrape_interval: 1s}\nrule_files: [rules.yml]\n"
        f"scrape_configs: [{{job_name: nobody, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}]\n",
        files={"rules.yml": "groups: [{name: g, rules: [{alert: Down, expr: up == 0}]}]"},
    )
    assert server.wait_for("up")[0]["value"][1] == "0"
    assert server.get("/api/v1/rules")["groups"][0]["rules"][0]["name"] == "Down"
    assert Path(promtool()).is_file()


@pytest.mark.postgres
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGKILL])
def test_a_service_ends_with_its_owner_even_if_that_is_killed(sign: signal.Signals) -> None:
    port = free_port()
    command = [sys.executable, "-m", "tests.services.postgres", "--port", str(port)]
    owner = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    assert owner.stdout is not None
    with owner.stdout:
        said = owner.stdout.readline().decode()
    assert f":{port}/postgres" in said
    os.kill(owner.pid, sign)
    owner.wait(60)
    deadline = time.monotonic() + 60
    while listening(port) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not listening(port)
    log = Path(said.split("log: ")[1].split(";")[0])
    shutil.rmtree(log.parent, ignore_errors=True)  # which a killed owner has left


def test_no_two_processes_are_given_a_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its choice and its server's listening a port looks free to everybody: only the lease tells."""
    monkeypatch.setattr(process, "LEASES", tmp_path / "leases")
    # Outside the range of the tests that run beside this one: a look at a port takes it for a moment.
    monkeypatch.setattr(process, "PORTS", range(9_000, 9_040))
    monkeypatch.setattr(process, "_given", set())
    process._leases.cache_clear()
    other = subprocess.Popen(
        [sys.executable, "-c", OTHER, process.LEASES, "9000", "9040"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    try:
        assert other.stdout is not None
        theirs = {int(port) for port in other.stdout.readline().split()}
        ours = set(everything_free())
        assert len(theirs) == 10
        assert ours
        assert not ours & theirs
        other.communicate()  # it ends
        again = set(everything_free())
        assert again
        assert again <= theirs
    finally:
        other.kill()
        other.communicate()
        process._leases.cache_clear()


OTHER = """
import sys
from pathlib import Path
from tests.services import process
process.LEASES, process.PORTS = Path(sys.argv[1]), range(int(sys.argv[2]), int(sys.argv[3]))
print(*(process.free_port() for _ in range(10)), flush=True)
sys.stdin.read()
"""


def everything_free() -> Iterator[int]:
    with contextlib.suppress(ServiceError):
        while True:
            yield free_port()


def test_a_missing_program_is_named_with_its_package() -> None:
    with pytest.raises(ServiceError, match=r"no-such-server.*apt-get install some-package"):
        require("no-such-server", package="some-package")


@pytest.mark.postgres
def test_a_server_that_cannot_start_shows_its_log(postgres: Postgres) -> None:
    second = Postgres(port=postgres.port)
    with pytest.raises(ServiceError, match="could not bind"), contextlib.ExitStack() as stack:
        stack.enter_context(second)
    assert not second.folder.exists()
