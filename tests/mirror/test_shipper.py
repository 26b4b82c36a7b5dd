"""From the spool to the bus: once each, in order, whatever dies; on both kinds of bus."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families

from govern.bus import Message, Partition, TopicSpec, open_bus
from govern.bus.protocol import BusError
from govern.bus.topics import key, topic
from govern.codecs.cloudevents import from_message
from govern.errors import Unavailable
from govern.mirror.config import MirrorConfig
from govern.mirror.exported import CaptureMetrics, SnapshotRegistry
from govern.mirror.folder import held_bytes, make_private
from govern.mirror.inspect import inspect_segments
from govern.mirror.recorder import Recorder, open_recorder
from govern.mirror.sampling import point_of
from govern.mirror.segment import HEADER_BYTES
from govern.mirror.shipper import Shipper
from govern.record import Inference
from govern.telemetry.metrics import Metrics
from tests.bus.helpers import settled
from tests.mirror.conftest import DEADLINE_S, SEGMENT_BYTES, exchange, govern, request, segment_files, until
from tests.services.kafka import Kafka
from tests.services.process import Process, free_port

MakeConfig = Callable[..., MirrorConfig]
PARENT = f"00-{'a' * 32}-{'b' * 16}-01"


def capture(recorder: Recorder, name: str, *, body: bytes = b"{}", status: int = 200, hurried: bool = False) -> None:
    """One exchange; unless hurried, at a pace at which the segments' maker keeps up (tests' segments are tiny)."""
    if not hurried:
        until(lambda: recorder.spool.ahead > 0, "the next segment")
    headers = {b"x-request-id": name.encode(), b"traceparent": PARENT.encode()}
    exchange = recorder.begin(b"POST", b"/v2/models/income/infer", headers)
    assert exchange is not None
    exchange.request_body(body)
    exchange.response_head(status, {})
    exchange.response_body(body)
    exchange.finish()


def shipper(config: MirrorConfig, **options: object) -> tuple[Shipper, SnapshotRegistry]:
    registry = SnapshotRegistry()
    make_private(config.spool_dir)
    metrics = CaptureMetrics(Metrics(registry), registry.updating, config.spool_dir)
    made = Shipper(config, open_bus=lambda: open_bus(config.bus), metrics=metrics, **options)  # type: ignore[arg-type]
    return made, registry


async def ship_all(config: MirrorConfig, **options: object) -> SnapshotRegistry:
    """Ship what dead agents left, however long it takes, and stop."""
    config = config.model_copy(update={"drain_s": DEADLINE_S})
    made, registry = shipper(config, **options)
    stop = asyncio.Event()
    stop.set()
    await made.run(stop)
    return registry


async def on_the_bus(config: MirrorConfig, name: str = "") -> list[tuple[Message, Inference]]:
    """A topic's records; by default those of the namespace."""
    found = []
    async with open_bus(config.bus) as bus:
        for message in await settled(bus, name or topic(config.namespace, "inferences")):
            record = from_message(message)
            assert isinstance(record, Inference)
            found.append((message, record))
    return found


async def positions(config: MirrorConfig) -> dict[bytes, bytes]:
    async with open_bus(config.bus) as bus:
        return await bus.read_table(Partition(topic(config.namespace, "positions"), 0))


def total(registry: SnapshotRegistry, name: str) -> float:
    return sum(
        sample.value for family in registry.collect() for sample in family.samples if sample.name == f"govern_{name}"
    )


@contextmanager
def running(config: MirrorConfig, log: Path, *, disk_dir: Path | None = None) -> Iterator[tuple[Process, str]]:
    """A shipper process and the address of its metrics."""
    port = free_port()
    file = log.with_suffix(".yaml")
    file.write_text(
        f"spool_bytes: {config.spool_bytes}\nsegment_bytes: {config.segment_bytes}\nbody_bytes: 16384\n"
        f"drain_s: {config.drain_s}\ndisk_bytes: {config.disk_bytes}\n"
        f"fan_out: {json.dumps([each.model_dump() for each in config.fan_out])}\n"
        f"destinations: {json.dumps([each.model_dump(mode='json') for each in config.destinations])}\n"
    )
    process = Process(
        govern(
            *("mirror", "ship", "--config", str(file), "--bus", config.bus, "--namespace", config.namespace),
            *("--spool-dir", str(config.spool_dir), "--metrics-listen", f"127.0.0.1:{port}"),
            *(("--disk-dir", str(disk_dir)) if disk_dir else ()),
        ),
        log=log,
    )
    process.start(lambda text: "shipping" in text)
    try:
        yield process, f"http://127.0.0.1:{port}/metrics"
    finally:
        process.kill()


def scrape(url: str) -> dict[str, float]:
    """Totals by name, over all labels."""
    sums: Counter[str] = Counter()
    with urllib.request.urlopen(url, timeout=DEADLINE_S) as answer:
        for family in text_string_to_metric_families(answer.read().decode()):
            for sample in family.samples:
                sums[sample.name.removeprefix("govern_")] += sample.value
    return dict(sums)


async def test_records_arrive_in_order_with_their_keys_and_the_spool_is_empty_after(
    make_config: MakeConfig, bus_url: str, unique: str, spool_dir: Path
) -> None:
    config = make_config(bus=bus_url, namespace=unique)
    recorders = [open_recorder(config) for _ in range(3)]
    for number in range(300):
        capture(recorders[number % 3], f"r{number}", body=os.urandom(number * 5))
    for recorder in recorders:
        recorder.close()
    registry = await ship_all(config)
    found = await on_the_bus(config)
    assert sorted(record.request_id for _, record in found) == sorted(f"r{number}" for number in range(300))
    assert {message.key for message, _ in found} == {key(unique, "income", "income")}
    assert len({message.partition for message, _ in found}) == 1
    for recorder in recorders:
        agent = recorder.spool.info.agent
        assert [record.capture.seq for _, record in found if record.capture.agent == agent] == list(range(100))
    headers = dict(found[0][0].headers)
    assert headers["ce_type"] == b"io.govern.inference.v1"
    assert headers["ce_source"] == b"/govern/mirror/pod-1"
    assert headers["traceparent"] == PARENT.encode()
    assert sorted(path.name for path in spool_dir.iterdir()) == ["retired.json", "spool.id"]
    assert await positions(config) == {}
    assert total(registry, "capture_shipped_total") == total(registry, "capture_captured_total") == 300
    assert total(registry, "spool_pending_records") == 0


async def test_the_longest_record_fits_into_a_message_of_the_bus(
    make_config: MakeConfig, bus_url: str, unique: str
) -> None:
    limits = {name: MirrorConfig.model_fields[name].default for name in ("body_bytes", "segment_bytes", "spool_bytes")}
    config = make_config(bus=bus_url, namespace=unique, **limits)
    recorder = open_recorder(config)
    capture(recorder, "i" * 2000, body=os.urandom(config.body_bytes + 1))
    recorder.close()
    await ship_all(config)
    ((_, record),) = await on_the_bus(config)
    assert len(record.request.body) == len(record.response.body) == config.body_bytes
    assert record.truncated == ("request", "response")


async def test_what_is_captured_meanwhile_follows_without_a_restart(
    make_config: MakeConfig, embedded_url: str, spool_dir: Path
) -> None:
    config = make_config(bus=embedded_url)
    made, registry = shipper(config)
    stop = asyncio.Event()
    task = asyncio.create_task(made.run(stop))
    recorder = open_recorder(config)
    for number in range(200):
        capture(recorder, f"r{number}", body=b"x" * 3000)
        await asyncio.sleep(0)
    deadline = asyncio.get_running_loop().time() + DEADLINE_S
    while total(registry, "capture_shipped_total") < 200:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.01)
    assert len(segment_files(spool_dir)) <= 5  # shipped segments are deleted while the agent lives
    recorder.close()
    stop.set()
    await task
    assert [record.request_id for _, record in await on_the_bus(config)] == [f"r{number}" for number in range(200)]


async def test_kill_9_again_and_again_every_record_once_and_in_order(
    make_config: MakeConfig, bus_url: str, unique: str, tmp_path: Path
) -> None:
    config = make_config(bus=bus_url, namespace=unique)
    names: dict[str, list[str]] = {}
    done = threading.Event()

    def keep_capturing() -> None:
        recorder = open_recorder(config)
        agent = names[recorder.spool.info.agent] = []
        while not done.wait(0.002):
            name = f"r{len(agent)}"
            capture(recorder, name, body=os.urandom(500))
            agent.append(name)
        recorder.close()

    writers = [threading.Thread(target=keep_capturing) for _ in range(2)]
    for writer in writers:
        writer.start()
    source = random.Random(20261124)
    for round_ in range(8):
        with running(config, tmp_path / "shipper.log") as (process, metrics):
            pause = source.uniform(0, 0.4)
            if round_ % 2:
                until(lambda url=metrics: scrape(url).get("capture_shipped_total", 0) > 20, "some records shipped")
            await asyncio.sleep(pause)
            process.kill()
    done.set()
    for writer in writers:
        writer.join()
    await ship_all(config)
    found = await on_the_bus(config)
    for agent, captured in names.items():
        assert len(captured) > 100
        mine = [record for _, record in found if record.capture.agent == agent]
        assert [record.request_id for record in mine] == captured
        assert [record.capture.seq for record in mine] == list(range(len(captured)))


async def test_a_killed_agents_last_records_are_shipped_and_its_torn_one_is_not(
    make_config: MakeConfig, embedded_url: str, spool_dir: Path
) -> None:
    config = make_config(bus=embedded_url)
    recorder = open_recorder(config)
    for number in range(10):
        capture(recorder, f"r{number}")
    (segment,) = [path for path in segment_files(spool_dir) if path.name.endswith(".0000000000.seg")]
    whole = segment.read_bytes()
    (inspected,) = inspect_segments([spool_dir])
    *_, last = inspected.frames()
    end, frame = last.stop, last.stop - last.start
    # As kill -9 leaves it: frame 9 whole but not counted in `end`, the next one torn, nothing sealed, no lock.
    torn = bytearray(whole)
    torn[32:40] = (end - frame).to_bytes(8, "little")
    torn[end : end + frame // 2] = whole[end - frame : end - frame + frame // 2]
    recorder.close()
    segment.write_bytes(torn)
    registry = await ship_all(config)
    assert [record.request_id for _, record in await on_the_bus(config)] == [f"r{number}" for number in range(10)]
    assert total(registry, "spool_corrupt_records_total") == 0
    assert segment_files(spool_dir) == []


async def test_damage_in_a_segment_costs_what_it_hit_and_is_counted(
    make_config: MakeConfig, embedded_url: str, spool_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = make_config(bus=embedded_url)
    recorder = open_recorder(config)
    for number in range(50):
        capture(recorder, f"r{number}", body=b"x" * 200)
    recorder.close()
    segment = segment_files(spool_dir)[0]
    data = bytearray(segment.read_bytes())
    frame = (int.from_bytes(data[32:40], "little") - HEADER_BYTES) // 50
    at = HEADER_BYTES + 20 * frame
    data[at : at + 3 * frame] = os.urandom(3 * frame)
    segment.write_bytes(data)
    registry = await ship_all(config)
    arrived = [record.capture.seq for _, record in await on_the_bus(config)]
    assert 50 - len(arrived) in (3, 4)  # frames vary by a few bytes: the end of a fourth may be hit
    assert arrived == sorted(arrived)
    assert total(registry, "spool_corrupt_records_total") == 50 - len(arrived)
    assert "is damaged" in caplog.text


async def test_the_capture_span_is_a_child_of_the_callers_and_its_context_travels(
    make_config: MakeConfig, embedded_url: str
) -> None:
    config = make_config(bus=embedded_url)
    recorder = open_recorder(config)
    capture(recorder, "traced")
    recorder.close()
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    await ship_all(config, tracer=provider.get_tracer("govern.mirror"))
    provider.shutdown()
    (span,) = exporter.get_finished_spans()
    ((message, record),) = await on_the_bus(config)
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == "b" * 16
    assert dict(message.headers)["traceparent"].decode() == f"00-{'a' * 32}-{span.context.span_id:016x}-01"
    assert record.traceparent == PARENT
    assert (span.start_time, span.end_time) == (record.t_request, record.t_response)


async def test_a_stopped_shipper_neither_slows_nor_loses(
    make_config: MakeConfig, embedded_url: str, tmp_path: Path, uvicorn: int, proxy_process: Callable[..., Process]
) -> None:
    config = make_config(bus=embedded_url, namespace="default")
    port = free_port()
    proxy = proxy_process(port, uvicorn)
    with running(config, tmp_path / "shipper.log") as (process, metrics):
        until(lambda: scrape(metrics).get("capture_seen_total", -1) == 0, "the shipper to see the proxy")
        os.kill(process.pid, signal.SIGSTOP)
        for number in range(200):
            data = request("/v2/models/echo/infer", b"{}", headers=[f"X-Request-Id: r{number}"])
            assert exchange(port, [data]).endswith(b"{}")
        os.kill(process.pid, signal.SIGCONT)
        until(lambda: scrape(metrics).get("capture_shipped_total") == 200, "all to be shipped")
        counted = scrape(metrics)
        assert counted["capture_seen_total"] == counted["capture_captured_total"] == 200
        proxy.stop()
        process.stop()
    arrived = [record.request_id for _, record in await on_the_bus(config)]
    assert arrived == [f"r{number}" for number in range(200)]


async def test_while_the_bus_is_away_sealed_segments_move_to_disk_and_come_back(
    make_config: MakeConfig, embedded_url: str, spool_dir: Path, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    limits = {"spool_bytes": 16 * SEGMENT_BYTES, "disk_bytes": 1 << 30}
    away = make_config(bus=f"kafka://127.0.0.1:{free_port()}", disk_dir=disk, **limits)
    with running(away, tmp_path / "shipper.log", disk_dir=disk):
        recorder = open_recorder(away)
        sent = 0
        while len(segment_files(disk)) < 20:
            capture(recorder, f"r{sent}", body=b"x" * 8000)
            sent += 1
        assert held_bytes(spool_dir) <= 16 * SEGMENT_BYTES
        recorder.close()
    assert recorder.spool.counts == (sent, 0, 0)
    assert {path.stat().st_mode & 0o777 for path in disk.iterdir()} == {0o600}
    await ship_all(make_config(bus=embedded_url, disk_dir=disk, **limits))
    found = [record.request_id for _, record in await on_the_bus(make_config(bus=embedded_url))]
    assert found == [f"r{number}" for number in range(sent)]
    assert list(disk.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
async def test_a_full_disk_stops_nothing_and_loses_nothing_but_what_is_counted(
    make_config: MakeConfig, embedded_url: str, tmp_path: Path
) -> None:
    mount = tmp_path / "mount"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k,mode=700", "tmpfs", mount], check=True)
    try:
        limits = {"spool_bytes": 16 * SEGMENT_BYTES, "disk_bytes": 1 << 30}
        away = make_config(bus=f"kafka://127.0.0.1:{free_port()}", disk_dir=mount, **limits)
        with running(away, tmp_path / "shipper.log", disk_dir=mount) as (process, metrics):
            recorder = open_recorder(away)
            sent = 0
            while recorder.spool.counts.dropped < 5 or "No space left" not in process.log():
                capture(recorder, f"r{sent}", body=b"x" * 8000, hurried=True)
                sent += 1
            recorder.close()
            counts = recorder.spool.counts
            until(lambda: scrape(metrics).get("capture_seen_total") == sent, "the account")
            shown = scrape(metrics)
            assert shown["capture_captured_total"] + shown["capture_dropped_total"] == sent
        assert counts.seen == sent
        assert list(mount.glob("*.moving")) == []
        await ship_all(make_config(bus=embedded_url, disk_dir=mount, **limits))
        found = [record for _, record in await on_the_bus(make_config(bus=embedded_url))]
        assert [record.capture.seq for record in found] == list(range(counts.captured))
    finally:
        subprocess.run(["umount", mount], check=True)


async def test_agents_counts_outlive_them_and_a_restart(make_config: MakeConfig, embedded_url: str) -> None:
    config = make_config(bus=embedded_url, sampling_rate=0.5)
    for _ in range(2):
        recorder = open_recorder(config)
        for number in range(50):
            capture(recorder, f"r{number}")
        recorder.close()
        await ship_all(config)
    registry = await ship_all(config)
    assert total(registry, "capture_seen_total") == 100
    captured, left_out = total(registry, "capture_captured_total"), total(registry, "capture_sampled_out_total")
    assert captured + left_out == 100
    assert captured == len(await on_the_bus(config))
    assert 0 < captured < 100


async def test_segments_whose_agent_file_is_lost_are_shipped_from_disk(
    make_config: MakeConfig, embedded_url: str, spool_dir: Path, tmp_path: Path
) -> None:
    """As after the machine went down: what lay on tmpfs is gone, what lay on disk is not."""
    disk = tmp_path / "disk"
    make_private(disk)
    config = make_config(bus=embedded_url, disk_dir=disk)
    recorder = open_recorder(config)
    for number in range(5):
        capture(recorder, f"r{number}")
    recorder.close()
    segment = segment_files(spool_dir)[0]
    (disk / segment.name).write_bytes(segment.read_bytes())
    for path in spool_dir.iterdir():
        path.unlink()
    await ship_all(config)
    assert [record.request_id for _, record in await on_the_bus(config)] == [f"r{number}" for number in range(5)]
    assert list(disk.iterdir()) == []


async def test_a_second_shipper_is_refused(make_config: MakeConfig, embedded_url: str) -> None:
    config = make_config(bus=embedded_url)
    first, _ = shipper(config)
    stop = asyncio.Event()
    task = asyncio.create_task(first.run(stop))
    try:
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="spool") as caught:
            await ship_all(config)
        assert "another shipper" in caught.value.why
    finally:
        stop.set()
        await task


@pytest.mark.kafka
async def test_a_topic_that_takes_shorter_messages_than_records_is_refused_and_the_records_stay(
    make_config: MakeConfig, kafka: Kafka, unique: str, spool_dir: Path
) -> None:
    config = make_config(bus=kafka.url, namespace=unique)
    async with open_bus(config.bus) as bus:
        await bus.ensure_topics([TopicSpec(name=topic(unique, "inferences"), partitions=4)])
    recorder = open_recorder(config)
    capture(recorder, "r0")
    recorder.close()
    too_long = make_config(bus=kafka.url, namespace=unique, message_bytes=2_000_000)
    with pytest.raises(BusError, match=topic(unique, "inferences")) as caught:
        await ship_all(too_long)
    assert "needed: 2,000,000" in caught.value.why
    assert segment_files(spool_dir) != []
    await ship_all(config)
    assert [record.request_id for _, record in await on_the_bus(config)] == ["r0"]


async def test_each_target_gets_what_fits_its_filter_once_through_kill_9(
    make_config: MakeConfig, bus_url: str, unique: str, tmp_path: Path
) -> None:
    fan_out = [
        {"topic": f"{unique}-failed", "filter": {"status": "5??"}},
        {"namespace": f"{unique}-half", "partitions": 2, "filter": {"model": "inc*", "rate": 0.5}},
        {"topic": f"{unique}-none", "filter": {"service": "another"}},
    ]
    config = make_config(bus=bus_url, namespace=unique, fan_out=fan_out)
    recorder = open_recorder(config)
    names = [f"r{number}" for number in range(200)]
    for number, name in enumerate(names):
        capture(recorder, name, status=500 if number % 10 == 0 else 200)
    with running(config, tmp_path / "shipper.log") as (process, metrics):
        until(lambda: scrape(metrics).get("capture_shipped_total", 0) > 0, "the first batch")
        process.kill()
    for number, name in enumerate(names):
        capture(recorder, f"again-{name}", status=500 if number % 10 == 0 else 200)
    recorder.close()
    await ship_all(config)
    names += [f"again-{name}" for name in names]

    async def ids(name: str) -> list[str]:
        return sorted(record.request_id for _, record in await on_the_bus(config, name))

    assert await ids("") == sorted(names)
    assert await ids(f"{unique}-failed") == sorted(names[::10])
    assert await ids(topic(f"{unique}-half", "inferences")) == sorted(name for name in names if point_of(name) < 0.5)
    assert await ids(f"{unique}-none") == []
