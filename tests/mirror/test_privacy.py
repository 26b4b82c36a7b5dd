"""Planted secrets are found nowhere outside the pod's memory: not on the bus, the disk, in logs or metrics."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import signal
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from govern.errors import ConfigError, Unavailable
from govern.mirror import folder
from govern.mirror.config import MirrorConfig
from govern.mirror.recorder import Recorder, open_recorder
from govern.mirror.redaction.keys import Keys
from govern.record import Inference, Redaction
from tests.mirror.conftest import DEADLINE_S, SEGMENT_BYTES, exchange, govern, request, segment_files, until
from tests.mirror.test_shipper import MakeConfig, capture, on_the_bus, ship_all, shipper, total
from tests.services.process import Process, free_port

KEY = bytes(range(32))
KEY_TEXT = base64.b64encode(KEY).decode()
#: What every planted value begins with, in every request and in every response.
MARK = b"Zo3-private-"
RULES = [{"path": "**.ssn", "action": "hash"}, {"path": "**.note", "action": "drop"}]


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the processes that a test starts, too."""
    monkeypatch.setenv("GOVERN_REDACTION_KEY", KEY_TEXT)


def body(number: int, *, padding: int = 0, times: int = 3) -> bytes:
    secret = (MARK + str(number).encode()).decode()
    rows = [{"note": secret * times}]
    return json.dumps({"ssn": secret, "rows": rows, "n": number, "padding": "x" * padding}).encode()


def assert_redacted(record: Inference, number: int) -> None:
    """Hashed once, dropped, and nothing else changed."""
    secret = (MARK + str(number).encode()).decode()
    assert MARK not in record.request.body
    shown = json.loads(record.request.body)
    assert shown == {"ssn": Keys(KEY).hash(secret), "rows": [{"note": None}], "n": number, "padding": shown["padding"]}
    assert Redaction(path="request.**.ssn", action="hash") in record.redactions
    assert len(record.redactions) == len(set(record.redactions))


def files_with(mark: bytes, *folders: Path) -> list[Path]:
    """The files below the folders that hold the mark."""
    found = []
    for path in (each for below in folders for each in below.rglob("*") if each.is_file()):
        try:
            content = path.read_bytes()
        except FileNotFoundError:  # shipped meanwhile
            continue
        if mark in content:
            found.append(path)
    return found


@dataclass
class Pod:
    """A proxy and a shipper process with one configuration file, which can be killed and started again."""

    base: Path
    upstream: int
    config: MirrorConfig
    port: int = field(default_factory=free_port)
    metrics_port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        file = self.base / "mirror.yaml"
        values = self.config.model_dump(mode="json", exclude_unset=True) | {
            "upstream": f"http://127.0.0.1:{self.upstream}",
            "listen": f"127.0.0.1:{self.port}",
            "metrics_listen": f"127.0.0.1:{self.metrics_port}",
        }
        file.write_text(json.dumps(values))  # JSON is YAML
        common = ("--config", str(file))
        logs = self.base / "logs"
        logs.mkdir()
        self.proxy = Process(govern("mirror", "proxy", *common), log=logs / "proxy.log")
        self.shipper = Process(govern("mirror", "ship", *common), log=logs / "shipper.log")
        self.logs = logs

    def start_proxy(self) -> None:
        self.proxy.start(lambda text: "listening" in text)

    def start_shipper(self) -> None:
        self.shipper.start(lambda text: "shipping" in text)

    def metrics(self) -> bytes:
        url = f"http://127.0.0.1:{self.metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=DEADLINE_S) as answer:
            data: bytes = answer.read()
            return data


@contextmanager
def pod(base: Path, upstream: int, config: MirrorConfig) -> Iterator[Pod]:
    made = Pod(base, upstream, config)
    made.start_proxy()
    made.start_shipper()
    try:
        yield made
    finally:
        made.proxy.kill()
        made.shipper.kill()


async def test_no_planted_value_leaves_the_pod_when_its_processes_are_killed(
    make_config: MakeConfig, embedded_url: str, tmp_path: Path, uvicorn: int
) -> None:
    """The upstream repeats each body, so that responses are redacted, too."""
    base, disk = tmp_path / "pod", tmp_path / "disk"
    base.mkdir()
    config = make_config(
        bus=embedded_url, disk_dir=disk, redaction={"rules": RULES}, spool_bytes=8 * SEGMENT_BYTES, drain_s=DEADLINE_S
    )
    answered: list[int] = []
    done = threading.Event()
    source = random.Random(20261125)
    with pod(base, uvicorn, config) as made:

        def call() -> None:
            number = 0
            while not done.is_set():
                message = request("/v2/models/echo/infer", body(number), headers=[f"X-Request-Id: r{number}"])
                try:
                    if exchange(made.port, [message]).endswith(body(number)):
                        answered.append(number)
                except OSError:
                    done.wait(0.01)
                number += 1

        caller = threading.Thread(target=call)
        caller.start()
        try:
            for kill in (made.shipper, made.proxy, made.shipper, made.proxy):
                wanted = len(answered) + source.randrange(5, 40)
                until(lambda least=wanted: len(answered) >= least, "requests to be answered")
                kill.kill()
                made.start_proxy() if kill is made.proxy else made.start_shipper()
            metrics = made.metrics()
        finally:
            done.set()
            caller.join()
    registry = await ship_all(config)
    found = await on_the_bus(config)
    assert MARK not in metrics
    assert not any(MARK in message.value for message, _ in found if message.value)
    assert files_with(MARK, made.logs, disk, bus_folder(embedded_url)) == []
    arrived = [int(record.request_id[1:]) for _, record in found]
    assert len(arrived) == len(set(arrived))
    assert len(set(answered) - set(arrived)) <= total(registry, "capture_dropped_total")
    assert len(arrived) > 20
    for (_, record), number in zip(found, arrived, strict=True):
        assert_redacted(record, number)


def bus_folder(url: str) -> Path:
    return Path(url.removeprefix("embedded://")).parent


@pytest.mark.kafka
async def test_no_planted_value_is_in_a_message_of_kafka(make_config: MakeConfig, kafka_url: str, unique: str) -> None:
    config = make_config(bus=kafka_url, namespace=unique, redaction={"rules": RULES}, drain_s=DEADLINE_S)
    recorder = open_recorder(config)
    for number in range(20):
        capture(recorder, f"r{number}", body=body(number))
    recorder.close()
    await ship_all(config)
    found = await on_the_bus(config)
    for number, (message, record) in enumerate(found):
        assert MARK not in (message.value or b"") + repr(message.headers).encode() + message.key
        assert_redacted(record, number)
    assert len(found) == 20


async def test_segments_on_disk_are_redacted_once_while_the_bus_is_away_and_after_kill_9(
    make_config: MakeConfig, embedded_url: str, spool_dir: Path, tmp_path: Path, uvicorn: int
) -> None:
    base, disk = tmp_path / "pod", tmp_path / "disk"
    base.mkdir()
    limits = {
        "spool_bytes": 16 * SEGMENT_BYTES,
        "disk_dir": disk,
        "redaction": {"rules": RULES},
        "drain_s": DEADLINE_S,
    }
    away = make_config(bus=f"kafka://127.0.0.1:{free_port()}", **limits)
    source = random.Random(4)
    with pod(base, uvicorn, away) as made:
        recorder = open_recorder(away)
        sent = 0
        for least in (5, 10, 15, 20):
            while len(segment_files(disk)) < least:
                capture(recorder, f"r{sent}", body=body(sent, padding=source.randrange(8000)))
                sent += 1
                if sent % 10 == 0:
                    assert files_with(MARK, disk, made.logs) == []
            made.shipper.kill()
            assert files_with(MARK, disk, made.logs) == []  # neither in what was being moved
            made.start_shipper()
        assert files_with(MARK, spool_dir)  # the test's own eyes: it is there in memory
        recorder.close()
    assert recorder.spool.counts == (sent, 0, 0)
    assert {path.stat().st_mode & 0o777 for each in (disk, spool_dir) for path in each.glob("*.seg")} == {0o600}
    back = make_config(bus=embedded_url, **limits)
    registry = await ship_all(back)
    found = [record for _, record in await on_the_bus(back)]
    assert [record.capture.seq for record in found] == list(range(sent))
    for number, record in enumerate(found):
        assert_redacted(record, number)
    assert total(registry, "spool_corrupt_records_total") == 0
    assert files_with(MARK, disk, bus_folder(embedded_url)) == []


@pytest.mark.parametrize("times", [1, 200], ids=["longer", "shorter"])
async def test_a_segment_that_moves_when_half_of_it_is_shipped_is_continued_without_loss_or_repeat(
    make_config: MakeConfig, embedded_url: str, tmp_path: Path, times: int
) -> None:
    """Redacted frames are longer or shorter, so that a place in the old segment is none in the new one."""
    disk = tmp_path / "disk"
    limits = {
        "spool_bytes": 4 * SEGMENT_BYTES,
        "disk_dir": disk,
        "redaction": {"rules": RULES},
        "drain_s": DEADLINE_S,
    }
    config = make_config(bus=embedded_url, **limits)
    recorder = open_recorder(config)
    for number in range(7):
        capture(recorder, f"r{number}", body=body(number, times=times))
    made, registry = shipper(config)
    task = asyncio.create_task(made.run(asyncio.Event()))
    await _until(lambda: total(registry, "capture_shipped_total") == 7, "the first records")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    away = make_config(bus=f"kafka://127.0.0.1:{free_port()}", **limits)
    made, _ = shipper(away)
    task = asyncio.create_task(made.run(asyncio.Event()))
    sent = 7
    first = folder.segment_path(disk, recorder.spool.info.agent, 0)
    while not first.exists():
        if recorder.spool.ahead:
            capture(recorder, f"r{sent}", body=body(sent, padding=5000), hurried=True)
            sent += 1
        await asyncio.sleep(0)
    recorder.close()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await ship_all(config)
    found = [record for _, record in await on_the_bus(config)]
    assert [record.capture.seq for record in found] == list(range(sent))
    for number, record in enumerate(found):
        assert_redacted(record, number)


async def test_what_lies_on_disk_redacted_is_not_redacted_by_later_rules(
    make_config: MakeConfig, embedded_url: str, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    limits = {"spool_bytes": 4 * SEGMENT_BYTES, "disk_dir": disk, "drain_s": DEADLINE_S}
    away = make_config(bus=f"kafka://127.0.0.1:{free_port()}", redaction={"rules": RULES}, **limits)
    recorder = open_recorder(away)
    made, _ = shipper(away)
    task = asyncio.create_task(made.run(asyncio.Event()))
    sent = 0
    while not segment_files(disk):
        if recorder.spool.ahead:
            capture(recorder, f"r{sent}", body=body(sent, padding=5000), hurried=True)
            sent += 1
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    recorder.close()
    later = [*RULES, {"path": "n", "action": "drop"}]
    config = make_config(bus=embedded_url, redaction={"rules": later}, **limits)
    await ship_all(config)
    found = [record for _, record in await on_the_bus(config)]
    assert [record.capture.seq for record in found] == list(range(sent))
    shown = [json.loads(record.request.body)["n"] for record in found]
    n_before = shown.count(None)
    assert 0 < n_before < sent
    assert shown == [*range(sent - n_before), *([None] * n_before)]
    assert [json.loads(one.request.body)["ssn"] for one in found] == [
        Keys(KEY).hash(f"{MARK.decode()}{number}") for number in range(sent)
    ]


async def test_rules_that_come_while_it_runs_hold_from_then_on(make_config: MakeConfig, embedded_url: str) -> None:
    config = make_config(bus=embedded_url, drain_s=DEADLINE_S)
    ruled = make_config(bus=embedded_url, drain_s=DEADLINE_S, redaction={"rules": RULES})
    recorder = open_recorder(config)
    made, registry = shipper(config)
    stop = asyncio.Event()
    task = asyncio.create_task(made.run(stop))
    for number in range(5):
        capture(recorder, f"r{number}", body=body(number))
    await _until(lambda: total(registry, "capture_shipped_total") == 5, "the records of before")
    made.apply(ruled)
    for sent in range(5, 100):
        capture(recorder, f"r{sent}", body=body(sent))
        await _until(lambda least=sent: total(registry, "capture_shipped_total") > least, "one more")
        *_, (_, last) = await on_the_bus(config)
        if last.redactions:
            break
    recorder.close()
    stop.set()
    await task
    found = [record for _, record in await on_the_bus(config)]
    n_before = sum(not record.redactions for record in found)
    assert 5 <= n_before < len(found)
    for number, record in enumerate(found):
        assert record.capture.seq == number
        if number < n_before:
            assert record.request.body == body(number)
        else:
            assert_redacted(record, number)


async def test_withheld_bodies_are_counted(make_config: MakeConfig, embedded_url: str) -> None:
    config = make_config(bus=embedded_url, redaction={"rules": RULES}, drain_s=DEADLINE_S)
    recorder = open_recorder(config)
    for number in range(4):
        capture(recorder, f"r{number}", body=body(number) if number else MARK)
    recorder.close()
    registry = await ship_all(config)
    assert total(registry, "capture_shipped_total") == 4
    assert total(registry, "capture_withheld_bodies_total") == 2  # the request and the response of the first one


def test_the_first_rules_of_a_spool_on_disk_are_refused_while_it_runs(
    make_config: MakeConfig, disk_spool: Path
) -> None:
    made, _ = shipper(make_config(spool_dir=disk_spool))
    with pytest.raises(ConfigError, match="without encryption"):
        made.apply(make_config(spool_dir=disk_spool, redaction={"rules": RULES}))


@pytest.fixture
def disk_spool(tmp_path: Path) -> Path:
    if folder.in_memory(tmp_path):
        pytest.skip("the folder for temporary files is on tmpfs, and this test needs one on a disk")
    return tmp_path / "spool-on-disk"


@pytest.fixture
def key_dir(spool_dir: Path) -> Path:
    """A folder on tmpfs."""
    made = spool_dir.parent / "keys"
    made.mkdir()
    return made


async def test_where_the_spool_is_on_a_disk_it_is_encrypted_and_killed_processes_lose_nothing(
    make_config: MakeConfig, embedded_url: str, disk_spool: Path, key_dir: Path, tmp_path: Path, uvicorn: int
) -> None:
    base = tmp_path / "pod"
    base.mkdir()
    config = make_config(
        bus=embedded_url, spool_dir=disk_spool, redaction={"rules": RULES, "spool_key_dir": key_dir}, drain_s=DEADLINE_S
    )
    with pod(base, uvicorn, config) as made:
        os.kill(made.shipper.pid, signal.SIGSTOP)
        for number in range(50):
            message = request("/v2/models/echo/infer", body(number), headers=[f"X-Request-Id: r{number}"])
            assert exchange(made.port, [message]).endswith(body(number))
        assert segment_files(disk_spool)
        made.proxy.kill()
        made.shipper.kill()
        assert files_with(MARK, disk_spool) == []
        assert {path.stat().st_mode & 0o777 for path in (*disk_spool.glob("*.seg"), *key_dir.iterdir())} == {0o600}
        await ship_all(config)
    found = [record for _, record in await on_the_bus(config)]
    for number, record in enumerate(found):
        assert_redacted(record, number)
    assert len(found) == 50
    assert files_with(MARK, tmp_path) == []


async def test_without_its_key_a_spool_on_disk_is_lost_and_counted(
    make_config: MakeConfig, embedded_url: str, disk_spool: Path, key_dir: Path
) -> None:
    """As after the machine went down: the key was in its memory only."""
    config = make_config(bus=embedded_url, spool_dir=disk_spool, redaction={"rules": RULES, "spool_key_dir": key_dir})
    recorder = open_recorder(config)
    for number in range(5):
        capture(recorder, f"r{number}", body=body(number))
    recorder.close()
    for key in key_dir.iterdir():
        key.unlink()
    registry = await ship_all(config)
    assert await on_the_bus(config) == []
    assert total(registry, "spool_corrupt_records_total") == 5


def test_a_spool_on_disk_is_refused_where_no_memory_holds_its_key(
    make_config: MakeConfig, disk_spool: Path, tmp_path: Path
) -> None:
    config = make_config(spool_dir=disk_spool, redaction={"rules": RULES, "spool_key_dir": tmp_path})
    with pytest.raises(Unavailable, match="no tmpfs") as caught:
        open_recorder(config)
    assert "spool_key_dir" in caught.value.fix
    assert list(disk_spool.iterdir()) == []
    without_rules: Recorder = open_recorder(make_config(spool_dir=disk_spool))
    without_rules.close()


def test_the_key_is_neither_in_the_configuration_that_is_printed_nor_in_an_error(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(redaction={"rules": RULES})
    made, _ = shipper(config)
    assert KEY_TEXT not in repr(config) + config.model_dump_json() + repr(vars(made))
    for wrong, why in ((KEY_TEXT[:12], "9 bytes"), ("not base64!", "no base64"), ("", "not set")):
        monkeypatch.setenv("GOVERN_REDACTION_KEY", wrong)
        with pytest.raises(ConfigError, match="GOVERN_REDACTION_KEY") as caught:
            shipper(config)
        assert why in caught.value.why
        assert not wrong or wrong not in str(caught.value)


async def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = asyncio.get_running_loop().time() + DEADLINE_S
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, what
        await asyncio.sleep(0.01)
