"""The writer on both buses: exactly once, whatever dies, and nothing lost while the database is away."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry
from sqlalchemy import Engine, event, text

from audit.database import Mode
from audit.document import object_at
from audit.entry import Draft, Source
from audit.fsck import verify_database
from audit.query import Filter
from audit.store import AuditStore
from audit.writer import AuditWriter, BusRewound
from govern import record as records
from govern.bus import Bus, Outgoing, Partition, open_bus
from govern.bus.topics import AUDITED, Stream, specs, topic
from govern.codecs.cloudevents import to_message
from govern.telemetry.metrics import Metrics, labels
from tests.services.postgres import Postgres

from .conftest import Log

REPOSITORY = Path(__file__).parents[2]
DEADLINE_S = 60.0
PARTITIONS = 2
#: A killed member of a Kafka group is missed after its session's 10 s; on the embedded bus at once.
KILLS = {"embedded": 8, "kafka": 3}

#: What the writer says while its database is away.
WAITS = "audit writer waits"


@pytest.fixture
async def bus(bus_url: str, unique: str) -> AsyncIterator[Bus]:
    async with open_bus(bus_url) as opened:
        await opened.ensure_topics(specs(unique, partitions=PARTITIONS))
        yield opened


@pytest.fixture
def log(make_log: Callable[..., Log], sqlite_url: str, unique: str) -> Log:
    return make_log(sqlite_url, unique)


def inference(namespace: str, n: int) -> Outgoing:
    record = records.Inference(
        schema_version=1,
        id=f"inf-{n}",
        request_id=f"req-{n}",
        namespace=namespace,
        service="census",
        model="income",
        status_code=200,
        t_response=1_700_000_000_000_000_000 + n,
        traceparent=f"00-{n + 1:032x}-{n + 1:016x}-01",
        request=records.Payload(body=f"body {n}".encode(), size=9),
    )
    return to_message(record, source="/test", partition=n % PARTITIONS)


def writer_of(bus: Bus, store: AuditStore, **options: object) -> AuditWriter:
    options.setdefault("metrics", Metrics(CollectorRegistry()))
    return AuditWriter(bus=bus, store=store, batch_s=0.02, **options)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def running(writer: AuditWriter) -> AsyncIterator[None]:
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(writer.run(stop))
        yield
        stop.set()


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not await condition():
        assert time.monotonic() < deadline, f"waited {DEADLINE_S} s for {what}"
        await asyncio.sleep(0.02)


async def recorded(log: Log, count: int) -> None:
    """Wait until the log has that many entries, and see that it is whole and has each request once."""

    async def enough() -> bool:
        return await asyncio.to_thread(_size, log) >= count

    await until(enough, f"{count} entries")
    report = await asyncio.to_thread(verify_database, log.url, log.store.verifier, log.keys.encryption)
    assert report.ok, report.findings
    assert report.entries == count


def _size(log: Log) -> int:
    with log.query().snapshot() as view:
        return view.checkpoint()[0].size


def requests_in(log: Log) -> list[str]:
    with log.query().snapshot() as view:
        return [one.request_id for one in view.all(Filter(kind="inference"))]


async def test_every_audited_topic_is_recorded(bus: Bus, log: Log) -> None:
    streams: Sequence[Stream] = AUDITED
    for stream in streams:
        await bus.publish(topic(log.namespace, stream), [inference(log.namespace, 0)])
    await bus.publish(topic(log.namespace, "feedback"), [Outgoing(key=b"", value=b"\xff no record")])
    async with running(writer_of(bus, log.store)):
        await recorded(log, len(streams) + 1)
    with log.query().snapshot() as view:
        assert {one.kind: one.entries for one in view.statistics()} == {"inference": len(streams), "undecodable": 1}


async def test_a_body_that_cannot_be_decoded_is_recorded_with_all_its_bytes(bus: Bus, log: Log) -> None:
    bodies = {
        "v2": b'{"inputs": [{"name": "x"',
        "v2-grpc": b"\x00\x00\x00\x00\x09cut",
        "seldon-v1": b'{"data": {"tensor": {"shape": [9], "values": [1]}}}',
        "openai": b"data: {oops\n\n",
        "unknown": b"\xff\x00",
    }
    undecodable = [
        records.Inference(
            id=f"inf-{protocol}",
            request_id=protocol,
            namespace=log.namespace,
            protocol=protocol,
            status_code=200,
            request=records.Payload(body=body, size=len(body)),
        )
        for protocol, body in bodies.items()
    ]
    await bus.publish(
        topic(log.namespace, "inferences"), [to_message(one, source="/test", partition=0) for one in undecodable]
    )
    async with running(writer_of(bus, log.store)):
        await recorded(log, len(bodies))
    with log.query().snapshot() as view:
        boxes = {
            entry.request_id: view.open_box(entry.index, log.keys.encryption)
            for entry in view.all(Filter(kind="inference"))
        }
    assert {name: box.values["request.body"] for name, box in boxes.items() if box} == bodies


async def test_a_second_writer_goes_on_where_the_first_ended(bus: Bus, log: Log) -> None:
    name = topic(log.namespace, "inferences")
    await bus.publish(name, [inference(log.namespace, n) for n in range(20)])
    async with running(writer_of(bus, log.store)):
        await recorded(log, 20)
    await bus.publish(name, [inference(log.namespace, n) for n in range(20, 50)])
    # Another group, so without committed offsets: the database alone says where to go on.
    async with running(writer_of(bus, log.store, group="another")):
        await recorded(log, 50)
    assert sorted(requests_in(log)) == sorted(f"req-{n}" for n in range(50))


async def test_metrics_and_trace(bus: Bus, log: Log) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    metrics = Metrics(CollectorRegistry())
    registry = metrics.registry
    where = dict(
        zip(
            ("namespace", "service", "model", "revision", "endpoint", "pipeline", "step"),
            [log.namespace] + [""] * 6,
            strict=True,
        )
    )

    async def caught_up() -> bool:
        """Lag is measured once a second."""
        return registry.get_sample_value("govern_consumer_lag_records", {**where, "step": "audit"}) == 0

    await bus.publish(topic(log.namespace, "inferences"), [inference(log.namespace, n) for n in range(5)])
    async with running(writer_of(bus, log.store, metrics=metrics, tracer=provider.get_tracer("test"))):
        await recorded(log, 5)
        await until(caught_up, "the lag to be measured again")
    provider.shutdown()
    spans = exporter.get_finished_spans()
    assert {one.name for one in spans} == {"govern.audit"}
    assert {link.context.trace_id for one in spans for link in one.links} == {n + 1 for n in range(5)}
    names = labels(namespace=log.namespace, service="census", model="income")
    assert metrics.audit_entries.labels(*names)._value.get() == 5
    assert registry.get_sample_value("govern_audit_tree_size", where) == 5
    assert (registry.get_sample_value("govern_audit_append_duration_seconds_count", where) or 0) >= 1


async def test_a_bus_that_was_replaced_is_refused(bus: Bus, log: Log) -> None:
    """Offsets that the log has already read must not be taken for other messages."""
    log.store.append([Draft(kind="config", record={"id": "x"}, source=Source(topic(log.namespace, "config"), 0, 41))])
    with pytest.raises(BusRewound, match="config, partition 0"):
        await writer_of(bus, log.store).run(asyncio.Event())


async def test_what_the_bus_deleted_before_it_was_recorded_is_an_entry(bus: Bus, bus_url: str, log: Log) -> None:
    """The writer was away for longer than the topics keep their messages."""
    name = topic(log.namespace, "inferences")
    await bus.publish(name, [inference(log.namespace, n) for n in range(0, 20, PARTITIONS)])
    async with running(writer_of(bus, log.store)):
        await recorded(log, 10)
    await bus.publish(name, [inference(log.namespace, n) for n in range(20, 60, PARTITIONS)])
    await forget(bus_url, name, before=25)
    assert await bus.start_offset(Partition(name, 0)) == 25
    metrics = Metrics(CollectorRegistry())
    for _ in range(2):  # the second writer finds it recorded
        async with running(writer_of(bus, log.store, metrics=metrics)):
            await recorded(log, 10 + 1 + 5)
    with log.query().snapshot() as view:
        (found,) = [object_at(entry.document(), "record") for entry in view.all(Filter(kind="gap"))]
    assert (found["topic"], found["partition"], found["first_offset"], found["last_offset"]) == (name, 0, "10", "24")
    assert metrics.audit_gaps.labels(*labels(namespace=log.namespace))._value.get() == 1


async def forget(bus_url: str, name: str, *, before: int) -> None:
    """Delete the first messages of partition 0, as retention does."""
    if bus_url.startswith("embedded"):
        with contextlib.closing(sqlite3.connect(bus_url.removeprefix("embedded://"))) as connection, connection:
            connection.execute(
                "DELETE FROM messages WHERE id IN (SELECT m.id FROM messages m JOIN partitions p"
                " ON p.topic = ? AND p.number = 0 AND m.id >= (p.id << 40) AND m.id < (p.id << 40) + ?)",
                (name, before),
            )
        return
    admin = AIOKafkaAdminClient(bootstrap_servers=bus_url.removeprefix("kafka://"))
    await admin.start()
    try:
        await admin.delete_records({TopicPartition(name, 0): RecordsToDelete(before_offset=before)})
    finally:
        await admin.close()


async def test_a_missing_topic_is_an_error(bus_url: str, log: Log) -> None:
    async with open_bus(bus_url) as bus:
        with pytest.raises(Exception, match="govern"):
            await writer_of(bus, log.store).run(asyncio.Event())


async def test_a_full_disk_is_waited_for(
    bus: Bus, log: Log, engine_of: Callable[[str, Mode], Engine], caplog: pytest.LogCaptureFixture
) -> None:
    """While SQLite answers SQLITE_FULL nothing is recorded, and when there is room all of it is, once."""
    limit: list[int] = []

    def on_connect(connection: object, _: object) -> None:
        for pages in limit:
            connection.execute(f"PRAGMA max_page_count = {pages}")  # type: ignore[attr-defined]

    engine = engine_of(log.url, "write")
    event.listen(engine, "connect", on_connect)
    with log.engine.connect() as connection:
        limit.append(connection.execute(text("PRAGMA page_count")).scalar_one())
    store = AuditStore(engine, namespace=log.namespace, keys=log.keys)
    await bus.publish(topic(log.namespace, "inferences"), [inference(log.namespace, n) for n in range(300)])
    async with running(writer_of(bus, store)):
        await until(lambda: waits(caplog, 2), "two failures")
        whys = [one.__dict__["why"] for one in caplog.records if one.getMessage() == WAITS]
        assert all("full" in why for why in whys)
        assert _size(log) < 300
        limit.clear()
        engine.dispose()
        await recorded(log, 300)


@pytest.mark.postgres
async def test_a_database_that_goes_away_is_waited_for(
    bus: Bus, make_log: Callable[..., Log], unique: str, caplog: pytest.LogCaptureFixture
) -> None:
    """kill -9 of the whole server, between two appends."""
    name = topic(unique, "inferences")
    with Postgres() as server, server.database() as url:
        log = make_log(url, unique)
        async with running(writer_of(bus, log.store)):
            await bus.publish(name, [inference(unique, n) for n in range(50)])
            await recorded(log, 50)
            server.kill()
            await bus.publish(name, [inference(unique, n) for n in range(50, 120)])
            await until(lambda: waits(caplog, 1), "a failure")
            server.start()
            await recorded(log, 120)
        log.engine.dispose()
        log.reader.dispose()


async def waits(caplog: pytest.LogCaptureFixture, times: int) -> bool:
    return sum(one.getMessage() == WAITS for one in caplog.records) >= times


@pytest.mark.timeout(600)
async def test_a_writer_killed_again_and_again_records_exactly_once(
    bus: Bus, bus_url: str, log: Log, tmp_path: Path
) -> None:
    moments = random.Random(log.namespace)
    name = topic(log.namespace, "inferences")
    sent = 0
    for _ in range(KILLS[bus_url.partition(":")[0]]):
        before = _size(log)

        async def grown(before: int = before) -> bool:
            return await asyncio.to_thread(_size, log) > before

        async with writer_process(bus_url, log, tmp_path):
            for _ in range(10):
                await bus.publish(name, [inference(log.namespace, n) for n in range(sent, sent + 40)])
                sent += 40
            await until(grown, "the writer to work")
            # Anywhere in its loop: a turn of it takes 1 to 50 ms.
            await asyncio.sleep(moments.uniform(0.0, 0.1))
    async with running(writer_of(bus, log.store)):
        await recorded(log, sent)
    assert sorted(requests_in(log)) == sorted(f"req-{n}" for n in range(sent))


@contextlib.asynccontextmanager
async def writer_process(bus_url: str, log: Log, folder: Path) -> AsyncIterator[None]:
    """A process that is killed at the end of the block."""
    arguments = [bus_url, log.url, log.namespace, str(folder / "keys" / log.namespace)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.audit.writer_process", *arguments, cwd=REPOSITORY
    )
    try:
        yield
    finally:
        assert process.returncode is None, "the writer ended by itself"
        process.kill()
        await process.wait()
