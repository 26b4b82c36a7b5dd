"""Further buses beside the main one: each gets what is for it, once and in order, and none waits for another."""

from __future__ import annotations

import asyncio
import json
import random
import re
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry

from govern.bus import Partition, open_bus
from govern.bus.topics import topic
from govern.errors import ConfigError
from govern.mirror.config import MirrorConfig
from govern.mirror.folder import held_bytes, segments
from govern.mirror.recorder import open_recorder
from govern.mirror.standing import known_destinations
from govern.record import Inference
from tests.mirror.conftest import DEADLINE_S, SEGMENT_BYTES, govern, segment_files, until
from tests.mirror.test_shipper import capture, on_the_bus, running, scrape, ship_all, shipper, total
from tests.services.kafka import Kafka
from tests.services.process import free_port

MakeConfig = Callable[..., MirrorConfig]
SECRET = "planted-4711"
PAGE = (Path(__file__).parents[2] / "docs" / "capture" / "delivery.md").read_text(encoding="utf-8")


@pytest.fixture
def second_url(tmp_path: Path) -> str:
    return f"embedded://{tmp_path / 'second.db'}"


def nowhere() -> str:
    """A bus that is away."""
    return f"kafka://127.0.0.1:{free_port()}"


async def at(url: str, namespace: str, make_config: MakeConfig, name: str = "") -> list[Inference]:
    return [record for _, record in await on_the_bus(make_config(bus=url, namespace=namespace), name)]


async def ids(url: str, namespace: str, make_config: MakeConfig, name: str = "") -> list[str]:
    return [record.request_id for record in await at(url, namespace, make_config, name)]


def account(registry: CollectorRegistry, name: str) -> dict[str, float]:
    """What the metrics say of a destination."""
    found = dict.fromkeys(("sent", "filtered", "dropped", "pending"), 0.0)
    for family in registry.collect():
        for sample in family.samples:
            match = re.fullmatch(r"govern_destination_(sent|filtered|dropped|pending)(_total|_records)", sample.name)
            if match and sample.labels["destination"] == name:
                found[match[1]] += sample.value
    return found


async def test_each_bus_gets_what_is_for_it_redacted_as_it_says(
    make_config: MakeConfig, bus_url: str, second_url: str, unique: str, spool_dir: Path
) -> None:
    """The example of docs/capture/delivery.md; Kafka and embedded as the main bus, embedded as the second one."""
    (example,) = (block for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if "destinations:" in block)
    (destination,) = yaml.safe_load(example)["destinations"]
    config = make_config(bus=bus_url, namespace=unique, destinations=[destination | {"bus": second_url}])
    recorder = open_recorder(config)
    body = json.dumps({"ssn": SECRET, "age": 7}).encode()
    for number in range(40):
        capture(recorder, f"r{number}", body=body, status=500 if number % 4 == 0 else 200)
    recorder.close()
    registry = await ship_all(config)
    main = await at(bus_url, unique, make_config)
    assert [record.request_id for record in main] == [f"r{number}" for number in range(40)]
    assert SECRET.encode() in main[0].request.body
    there = await at(second_url, "risk", make_config)
    assert [record.request_id for record in there] == [f"r{number}" for number in range(0, 40, 4)]
    assert {each.path for each in there[0].redactions} == {"request.**.ssn", "response"}
    files = list(Path(second_url.removeprefix("embedded://")).parent.glob("second.db*"))
    assert not [path for path in files if path.is_file() and SECRET.encode() in path.read_bytes()]
    half = await ids(second_url, "risk", make_config, "risk-sample")
    assert 0 < len(half) < 10
    assert set(half) < {record.request_id for record in there}
    assert total(registry, "capture_captured_total") == total(registry, "capture_shipped_total") == 40
    assert account(registry, "risk") == {"sent": 10, "filtered": 30, "dropped": 0, "pending": 0}
    assert segment_files(spool_dir) == []
    async with open_bus(second_url) as bus:
        assert await bus.read_table(Partition(topic("risk", "positions"), 0)) == {}


async def test_one_that_is_away_delays_neither_the_main_bus_nor_another_and_gets_the_rest_when_it_is_back(
    make_config: MakeConfig, embedded_url: str, second_url: str, spool_dir: Path, tmp_path: Path
) -> None:
    third = f"embedded://{tmp_path / 'third.db'}"

    def config(second: str) -> MirrorConfig:
        return make_config(
            bus=embedded_url, destinations=[{"name": "second", "bus": second}, {"name": "third", "bus": third}]
        )

    made, registry = shipper(config(second_url))
    stop = asyncio.Event()
    task = asyncio.create_task(made.run(stop))
    recorder = open_recorder(config(second_url))
    capture(recorder, "r0", body=b"x" * 8000)
    await until_async(lambda: account(registry, "second")["sent"] == 1, "the first record there")
    made.apply(config(second_url))  # the same once more changes nothing
    stop.set()
    recorder.close()
    await task

    # The same place in the spool under the same bus: only that it cannot be reached.
    gone = Path(second_url.removeprefix("embedded://"))
    away = gone.rename(gone.with_name("away.db"))
    gone.mkdir()
    made, registry = shipper(config(second_url))
    stop = asyncio.Event()
    task = asyncio.create_task(made.run(stop))
    recorder = open_recorder(config(second_url))
    for number in range(1, 60):
        capture(recorder, f"r{number}", body=b"x" * 8000)
        await asyncio.sleep(0)
    await until_async(lambda: total(registry, "capture_shipped_total") == 59, "all on the main bus")
    await until_async(lambda: account(registry, "third")["sent"] == 60, "all at the third")
    waiting = account(registry, "second")
    assert waiting == {"sent": 1, "filtered": 0, "dropped": 0, "pending": 59}
    recorder.close()
    assert held_bytes(spool_dir) >= 59 * 16_000
    gone.rmdir()
    away.rename(gone)
    await until_async(lambda: account(registry, "second")["sent"] == 60, "the rest there")
    stop.set()
    await task
    assert await ids(second_url, "default", make_config) == [f"r{number}" for number in range(60)]
    assert await ids(third, "default", make_config) == [f"r{number}" for number in range(60)]
    assert segment_files(spool_dir) == []


async def until_async(condition: Callable[[], bool], what: str) -> None:
    deadline = asyncio.get_running_loop().time() + DEADLINE_S
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"not in {DEADLINE_S} s: {what}"
        await asyncio.sleep(0.01)


async def test_while_the_main_bus_is_away_a_destination_gets_everything(
    make_config: MakeConfig, embedded_url: str, second_url: str, spool_dir: Path
) -> None:
    destinations = [{"name": "second", "bus": second_url}]
    config = make_config(bus=nowhere(), destinations=destinations)
    made, registry = shipper(config)
    stop = asyncio.Event()
    task = asyncio.create_task(made.run(stop))
    recorder = open_recorder(config)
    for number in range(50):
        capture(recorder, f"r{number}")
    recorder.close()
    await until_async(lambda: account(registry, "second")["sent"] == 50, "all there")
    stop.set()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert segment_files(spool_dir) != []
    registry = await ship_all(make_config(bus=embedded_url, destinations=destinations))
    assert account(registry, "second") == {"sent": 50, "filtered": 0, "dropped": 0, "pending": 0}
    for url in (embedded_url, second_url):
        assert await ids(url, "default", make_config) == [f"r{number}" for number in range(50)]


def sent_by(metrics: str) -> float:
    return scrape(metrics).get("destination_sent_total", 0.0)


async def test_kill_9_again_and_again_every_record_once_and_in_order_on_both(
    make_config: MakeConfig, bus_url: str, second_url: str, unique: str, tmp_path: Path
) -> None:
    config = make_config(
        bus=bus_url,
        namespace=unique,
        destinations=[{"name": "second", "bus": second_url, "filter": {"status": "5??"}}],
        spool_bytes=1024 * SEGMENT_BYTES,
    )
    names: list[str] = []
    done = threading.Event()

    def keep_capturing() -> None:
        recorder = open_recorder(config)
        while not done.wait(0.002):
            capture(recorder, f"r{len(names)}", status=500 if len(names) % 3 else 200)
            names.append(f"r{len(names)}")
        recorder.close()

    writer = threading.Thread(target=keep_capturing)
    writer.start()
    source = random.Random(20261125)
    seen = 0.0
    try:
        for _ in range(6):
            with running(config, tmp_path / "shipper.log") as (process, metrics):
                until(lambda url=metrics, n=seen: sent_by(url) > n + 20, "more records there")
                seen = sent_by(metrics)
                await asyncio.sleep(source.uniform(0, 0.2))
                process.kill()
    finally:
        done.set()
        writer.join()
    registry = await ship_all(config)
    failed = [name for number, name in enumerate(names) if number % 3]
    assert await ids(bus_url, unique, make_config) == names
    assert await ids(second_url, unique, make_config) == failed
    counted = account(registry, "second")
    assert counted == {"sent": len(failed), "filtered": len(names) - len(failed), "dropped": 0, "pending": 0}


@pytest.mark.parametrize("on_disk", [False, True])
async def test_what_a_lagging_destination_loses_to_the_limit_is_counted_and_is_its_own_loss(
    make_config: MakeConfig, embedded_url: str, second_url: str, spool_dir: Path, tmp_path: Path, *, on_disk: bool
) -> None:
    disk = tmp_path / "disk"
    limits: dict[str, object] = {"spool_bytes": 16 * SEGMENT_BYTES}
    if on_disk:
        limits |= {"disk_dir": disk, "disk_bytes": 8 * SEGMENT_BYTES}
    blocker = Path(second_url.removeprefix("embedded://"))
    blocker.mkdir()
    config = make_config(bus=embedded_url, destinations=[{"name": "second", "bus": second_url}], **limits)
    sent = 0
    with running(config, tmp_path / "shipper.log", disk_dir=disk if on_disk else None) as (process, metrics):
        recorder = open_recorder(config)
        until(lambda: "capture_seen_total" in scrape(metrics), "the agent to be seen")
        while sent == 0 or oldest_segment(spool_dir, disk) < 10:
            assert sent < 1000, "nothing is given up"
            capture(recorder, f"r{sent}", body=b"x" * 8000)
            sent += 1
            until(lambda n=sent: scrape(metrics).get("capture_shipped_total") == n, "the main bus to have it")
        assert not on_disk or held_bytes(disk) <= 8 * SEGMENT_BYTES
        shown = scrape(metrics)
        assert shown["capture_dropped_total"] == 0
        assert shown["destination_pending_records"] == sent
        process.kill()
    blocker.rmdir()
    capture(recorder, "last")
    recorder.close()
    registry = await ship_all(config)
    assert await ids(embedded_url, "default", make_config) == [*(f"r{number}" for number in range(sent)), "last"]
    there = await at(second_url, "default", make_config)
    assert [record.request_id for record in there] == [*(f"r{record.capture.seq}" for record in there[:-1]), "last"]
    assert [record.capture.seq for record in there] == sorted({record.capture.seq for record in there})
    assert 0 < len(there) < sent
    counted = account(registry, "second")
    assert counted == {"sent": len(there), "filtered": 0, "dropped": sent + 1 - len(there), "pending": 0}
    assert total(registry, "spool_corrupt_records_total") == 0
    assert account(await ship_all(config), "second") == counted  # also after the agents are gone


def oldest_segment(*folders: Path) -> int:
    return min(segment.number for each in folders for segment in segments(each))


async def test_all_that_an_agent_left_may_be_given_up_before_a_destination_is_back(
    make_config: MakeConfig, embedded_url: str, second_url: str, spool_dir: Path
) -> None:
    blocker = Path(second_url.removeprefix("embedded://"))
    blocker.mkdir()
    config = make_config(bus=embedded_url, destinations=[{"name": "second", "bus": second_url}])
    recorder = open_recorder(config)
    for number in range(5):
        capture(recorder, f"r{number}")
    recorder.close()
    made, registry = shipper(config)
    stop = asyncio.Event()
    task = asyncio.create_task(made.run(stop))
    await until_async(lambda: total(registry, "capture_shipped_total") == 5, "all on the main bus")
    for path in segment_files(spool_dir):
        path.unlink()
    blocker.rmdir()
    await until_async(lambda: account(registry, "second")["dropped"] == 5, "the loss")
    stop.set()
    await task
    assert account(registry, "second") == {"sent": 0, "filtered": 0, "dropped": 5, "pending": 0}
    assert total(registry, "spool_corrupt_records_total") == 0
    assert total(registry, "capture_captured_total") == 5


async def test_destinations_are_put_in_and_taken_out_while_records_flow(
    make_config: MakeConfig, embedded_url: str, second_url: str, spool_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    alone = make_config(bus=embedded_url)
    second = {"name": "second", "bus": second_url}
    both = make_config(bus=embedded_url, destinations=[second])
    made, registry = shipper(alone)
    stop = asyncio.Event()
    task = asyncio.create_task(made.run(stop))
    recorder = open_recorder(alone)
    names: list[str] = []

    async def some(count: int) -> None:
        for _ in range(count):
            names.append(f"r{len(names)}")
            capture(recorder, names[-1], body=b"x" * 8000)
        await until_async(lambda: total(registry, "capture_shipped_total") == len(names), "all on the main bus")

    await some(20)
    made.apply(both)
    await until_async(lambda: "second" in known_destinations(spool_dir), "the destination to be followed")
    await some(20)

    def all_there() -> bool:
        shown = account(registry, "second")
        return shown["sent"] >= 20 and shown["pending"] == 0

    await until_async(all_there, "those there")
    first = int(account(registry, "second")["sent"])
    assert 20 <= first < 40  # with what was not deleted yet

    made.apply(alone)
    await until_async(lambda: "second is taken out" in caplog.text, "it to be taken out")
    assert known_destinations(spool_dir) == {}
    await some(20)
    await until_async(lambda: len(segment_files(spool_dir)) <= 4, "nothing to be held back")
    made.apply(both)
    await until_async(lambda: "second" in known_destinations(spool_dir), "the destination to be followed again")
    await some(20)
    recorder.close()
    stop.set()
    await task
    assert await ids(embedded_url, "default", make_config) == names
    there = await ids(second_url, "default", make_config)
    assert len(set(there)) == len(there)  # nothing twice, although its place was forgotten
    assert there == sorted(there, key=names.index)
    assert there[:first] == names[40 - first : 40]
    assert there[-20:] == names[-20:]
    counted = account(registry, "second")
    assert counted == {"sent": len(there) - first, "filtered": 0, "dropped": 0, "pending": 0}


@pytest.mark.kafka
async def test_two_clusters_of_kafka_one_of_which_dies_and_comes_back(
    make_config: MakeConfig, kafka: Kafka, unique: str, tmp_path: Path
) -> None:
    with Kafka() as other:
        config = make_config(
            bus=kafka.url, namespace=unique, destinations=[{"name": "other", "bus": other.url}], drain_s=DEADLINE_S
        )
        with running(config, tmp_path / "shipper.log") as (process, metrics):
            recorder = open_recorder(config)
            for number in range(300):
                capture(recorder, f"r{number}")
                if number == 100:
                    until(lambda: scrape(metrics).get("destination_sent_total", 0) > 0, "some at the other")
                    other.kill()
            until(lambda: scrape(metrics).get("capture_shipped_total") == 300, "all on the main bus")
            assert scrape(metrics)["destination_pending_records"] > 0
            other.start()
            until(lambda: scrape(metrics).get("destination_sent_total") == 300, "the rest at the other")
            recorder.close()
            process.stop()
        expected = [f"r{number}" for number in range(300)]
        assert await ids(kafka.url, unique, make_config) == expected
        assert await ids(other.url, unique, make_config) == expected


async def test_the_commands_for_the_person_on_call_tell_of_each_destination(
    make_config: MakeConfig, embedded_url: str, second_url: str, spool_dir: Path, tmp_path: Path
) -> None:
    blocker = Path(second_url.removeprefix("embedded://"))
    blocker.mkdir()
    destinations = [{"name": "second", "bus": second_url}]
    config = make_config(bus=embedded_url, destinations=destinations)
    recorder = open_recorder(config)
    for number in range(30):
        capture(recorder, f"r{number}")
    recorder.close()
    with running(config, tmp_path / "shipper.log") as (process, metrics):
        until(lambda: scrape(metrics).get("capture_shipped_total") == 30, "all on the main bus")
        process.kill()
    file = tmp_path / "mirror.yaml"
    file.write_text(
        f"bus: {embedded_url}\nspool_dir: {spool_dir}\ndrain_s: 0.5\ndestinations: {json.dumps(destinations)}\n"
    )

    def spool(command: str, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            govern("mirror", "spool", command, "--config", str(file), *options),
            capture_output=True, text=True, check=False, env={"COLUMNS": "200", "PATH": "/usr/bin:/bin"},
        )  # fmt: skip

    assert re.search(r"second +│ 30 +│ 0 +│ 0 +│ 0", spool("ls").stdout)
    assert "second has yet to get 30 of them" in spool("verify").stdout
    stays = spool("drain")
    assert stays.returncode == 1
    assert "second: 0 records are on the bus now, 30 wait in the spool" in stays.stdout
    blocker.rmdir()
    drained = spool("drain", "--drain-s", str(DEADLINE_S))
    assert drained.returncode == 0, drained.stderr
    assert "second: 30 records are on the bus now, 0 wait in the spool, 0 could not be read" in drained.stdout
    assert await ids(second_url, "default", make_config) == [f"r{number}" for number in range(30)]
    assert await ids(embedded_url, "default", make_config) == [f"r{number}" for number in range(30)]


async def test_a_destination_whose_key_is_missing_is_refused_before_anything_begins(
    make_config: MakeConfig, embedded_url: str, second_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GOVERN_REDACTION_KEY", raising=False)
    hashing = {"rules": [{"path": "ssn", "action": "hash"}]}
    config = make_config(bus=embedded_url, destinations=[{"name": "second", "bus": second_url, "redaction": hashing}])
    with pytest.raises(ConfigError, match="GOVERN_REDACTION_KEY"):
        shipper(config)
    made, _ = shipper(make_config(bus=embedded_url))
    with pytest.raises(ConfigError, match="GOVERN_REDACTION_KEY"):
        made.apply(config)
