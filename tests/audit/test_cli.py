"""`govern audit`, as a person types it."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from audit.database import StoreUnavailable
from audit.fsck import verify_database
from audit.keys import load
from audit.verify import verify_case
from govern import record as records
from govern.bus import Partition, open_bus
from govern.bus.topics import specs, topic
from govern.cli.audit import EXIT_FINDINGS, app
from govern.codecs.cloudevents import from_message, to_message
from govern.errors import ConfigError, NotFound, Unavailable
from tests.services.process import free_port

from .conftest import NAMESPACE, Log
from .test_writer import inference

REPOSITORY = Path(__file__).parents[2]
DEADLINE_S = 60.0
TOKEN_KEY = "0123456789abcdef0123456789abcdef"


def govern(*arguments: str, code: int = 0) -> str:
    """Run `govern audit ...` in this process; its standard output."""
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.stdout


@pytest.fixture
def filled(make_log: Callable[..., Log], sqlite_url: str) -> Log:
    log = make_log(sqlite_url)
    log.append(log.stream.everything())
    return log


@pytest.fixture
async def bus_file(embedded_url: str) -> str:
    async with open_bus(embedded_url) as bus:
        await bus.ensure_topics(specs(NAMESPACE))
    return embedded_url


async def accesses(url: str) -> list[tuple[str, str]]:
    async with open_bus(url) as bus:
        found = [from_message(one) for one in await bus.read(Partition(topic(NAMESPACE, "access"), 0), 0)]
    return [(one.action, one.subject) for one in found if isinstance(one, records.Access)]


def options(log: Log, tmp_path: Path) -> list[str]:
    return ["--db", log.url, "--namespace", NAMESPACE, "--keys", str(tmp_path / "keys" / NAMESPACE)]


def test_init_makes_everything_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new' / 'audit.db'}"
    key = govern("init", "--db", url, "--namespace", "credit").strip()
    assert key.startswith("govern/credit+")
    assert govern("init", "--db", url, "--namespace", "credit").strip() == key
    assert (tmp_path / "new" / "audit.db.keys" / "verifier-key.txt").read_text().strip() == key
    assert "0 entries proved" in govern("verify", "--db", url, "--key", key)
    other = tmp_path / "other"
    key = govern("keygen", str(other), "--origin", "example.com/credit").strip()
    assert key.startswith("example.com/credit+")
    with pytest.raises(ConfigError, match=r"origin 'example\.com/credit'"):
        govern("init", "--db", url, "--namespace", "credit", "--keys", str(other))
    with pytest.raises(ConfigError, match="key folder"):
        govern("init", "--db", "postgresql+psycopg://nobody@127.0.0.1:1/x", "--namespace", "credit")


def test_case_export_and_verify(filled: Log, bus_file: str, tmp_path: Path) -> None:
    where = [*options(filled, tmp_path), "--bus", bus_file]
    key = str(tmp_path / "keys" / NAMESPACE / "verifier-key.txt")
    file = tmp_path / "case.json"
    govern("case", "req-1", *where, "-o", str(file), "--purpose", "complaint")
    assert "whole" in govern("verify", str(file), "--key", key)
    assert json.loads(govern("case", "req-1", *where, "--no-disclose"))["summary"]["request_id"] == "req-1"

    changed = file.read_text().replace('"income"', '"another"')
    file.write_text(changed)
    said = govern("verify", str(file), "--key", key, code=EXIT_FINDINGS)
    assert "changed" in said
    assert "entry 1: its leaf and proof do not lead to the signed root" in said

    note = tmp_path / "old.txt"
    with filled.query().snapshot() as view:
        note.write_text(view.note(0))
    export = tmp_path / "export.ndjson"
    govern("export", *where, "--disclose", "--since", str(note), "-o", str(export))
    assert "14 entries proved against the signed tree of 14, 10 with" in govern("verify", str(export), "--key", key)
    export.write_bytes(export.read_bytes().replace(b'"alarm":true', b'"alarm":null'))
    assert "entry 6" in govern("verify", str(export), "--key", key, code=EXIT_FINDINGS)
    assert govern("export", *where, "--kind", "verdict").count("\n") == 4

    whole = govern("verify", "--db", filled.url, "--key", key, "--keys", str(tmp_path / "keys" / NAMESPACE))
    assert "14 entries proved against the signed tree of 14, 10 with" in whole


def test_files_that_cannot_be_written_or_read_are_named(filled: Log, bus_file: str, tmp_path: Path) -> None:
    where = [*options(filled, tmp_path), "--bus", bus_file]
    with pytest.raises(Unavailable, match="cannot be written"):
        govern("case", "req-1", *where, "-o", "/proc/case.json")
    with pytest.raises(ConfigError, match=r"old\.txt cannot be read"):
        govern("export", *where, "--since", str(tmp_path / "old.txt"))


async def test_reads_are_recorded(filled: Log, bus_file: str, tmp_path: Path) -> None:
    where = [*options(filled, tmp_path), "--bus", bus_file]
    await asyncio.to_thread(govern, "case", "req-2", *where)
    await asyncio.to_thread(govern, "export", *where, "--first", "3")
    assert await accesses(bus_file) == [("case", "req-2"), ("export", "entries 3 to the end")]


def test_an_unrecorded_read_is_refused(filled: Log, tmp_path: Path) -> None:
    for command in (["case", "req-1"], ["export"]):
        with pytest.raises(ConfigError, match="cannot be recorded"):
            govern(*command, *options(filled, tmp_path))
    with pytest.raises(Unavailable):
        govern("case", "req-1", *options(filled, tmp_path), "--bus", f"embedded://{tmp_path}/absent/bus.db")


def test_erase(filled: Log, bus_file: str, tmp_path: Path) -> None:
    where = options(filled, tmp_path)
    assert "recorded as entry 14" in govern("erase", "principal:principal-one", *where, "--reason", "ticket 7")
    case = json.loads(govern("case", "req-1", *where, "--bus", bus_file))
    assert case["summary"]["inferences"][0]["data"] == "erased"
    with pytest.raises(NotFound):
        govern("erase", "principal:principal-one", *where, "--reason", "again")


def test_wrong_use(filled: Log, bus_file: str, tmp_path: Path) -> None:
    key = str(filled.store.verifier)
    where = [*options(filled, tmp_path), "--bus", bus_file]
    for arguments, error in (
        (["verify", "--key", key], ConfigError),
        (["verify", str(tmp_path / "absent"), "--key", key], ConfigError),
        (["token", "ada"], ConfigError),
        (["token", "ada", "--token-key", "short"], ConfigError),
        (["serve", *where], ConfigError),
        (["serve", *where, "--insecure-no-auth", "--host", "0.0.0.0"], ConfigError),
        (["case", "nobody", *where], NotFound),
    ):
        with pytest.raises(error):
            govern(*arguments)


def test_a_port_in_use_is_named(filled: Log, bus_file: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Unavailable, match=f"port {port} on 127"):
            govern("serve", *options(filled, tmp_path), "--bus", bus_file, "--insecure-no-auth", "--port", str(port))


async def _publish(url: str, namespace: str) -> None:
    async with open_bus(url) as bus:
        await bus.ensure_topics(specs(namespace))
        await bus.publish(topic(namespace, "inferences"), [inference(namespace, 0)])
        label = records.Feedback(id="f", request_id="req-0", namespace=namespace, label="1")
        await bus.publish(topic(namespace, "feedback"), [to_message(label, source="/test")])


def test_writing_and_serving(embedded_url: str, tmp_path: Path, unique: str) -> None:
    """The two processes, from nothing: a record goes in on the bus and comes out as a proved case file."""
    url = f"sqlite:///{tmp_path / 'audit.db'}"
    where = ["--db", url, "--bus", embedded_url, "--namespace", unique]
    port = free_port()
    asyncio.run(_publish(embedded_url, unique))
    keys = tmp_path / "audit.db.keys"
    token = govern("token", "ada", "--token-key", TOKEN_KEY).strip()
    serving = ["serve", *where, "--keys", str(keys), "--port", str(port), "--token-key", TOKEN_KEY]
    with process("write", *where):
        wait(lambda: (keys / "verifier-key.txt").exists() and size(url, keys) >= 2)
        with process(*serving), httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            wait(lambda: answers(client))
            assert client.get("/v1/audit/cases/req-0").status_code == 401
            client.headers["Authorization"] = f"Bearer {token}"
            answer = client.get("/v1/audit/cases/req-0")
            assert answer.status_code == 200
            report = verify_case(answer.content, load(keys).signer.verifier)
            assert report.ok, report.findings
            assert (report.entries, report.opened) == (2, 2)
            # The look itself becomes an entry of the case.
            wait(lambda: len(client.get("/v1/audit/cases/req-0").json()["summary"]["accesses"]) > 0)


@contextmanager
def process(*arguments: str) -> Iterator[None]:
    """A `govern audit` process, ended with SIGTERM: it must then leave with code 0."""
    command = [sys.executable, "-m", "govern.cli.main", "audit", *arguments]
    running = subprocess.Popen(command, cwd=REPOSITORY)
    try:
        yield
        running.send_signal(signal.SIGTERM)
        assert running.wait(timeout=DEADLINE_S) == 0
    finally:
        running.kill()
        running.wait()


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/healthz").is_success
    except httpx.TransportError:
        return False


def size(url: str, keys: Path) -> int:
    try:
        return verify_database(url, load(keys).signer.verifier).entries
    except (ConfigError, StoreUnavailable):
        return 0  # the file and its schema are still being made
