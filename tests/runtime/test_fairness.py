"""A pipeline that takes long, hangs or fails holds up nobody but itself, and changes nothing but when it is done."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace as with_fields
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from govern.bus import Bus, Partition, open_bus
from govern.bus.embedded import EmbeddedBus
from govern.bus.topics import RETENTION_MS, specs, topic
from govern.codecs import cloudevents
from govern.detection import Detector, Scores
from govern.frame import Frame
from govern.pipeline.spec import Source
from govern.record import Verdict, decode
from govern.runtime import fairness, holding, rota, track, worker
from govern.runtime.checkpoint import track_key
from govern.runtime.loader import LoadedPipeline, load
from govern.runtime.report import Reporter
from govern.runtime.worker import Worker
from govern.telemetry.metrics import Metrics
from tests.bus.helpers import settled
from tests.runtime.conftest import PARTITIONS, Make, payload
from tests.runtime.test_worker import check, until_committed

DEADLINE_S = 60.0


class Gate:
    """A detector that judges while it is open, and else does not return."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self.open = threading.Event()
        self.reached = threading.Event()

    def __getattr__(self, name: str) -> object:
        return getattr(self._detector, name)

    def score(self, window: Frame) -> Scores:
        self.reached.set()
        assert self.open.wait(DEADLINE_S)
        return self._detector.score(window)


def watching(loaded: LoadedPipeline, name: str, model: str, *steps: str) -> LoadedPipeline:
    """The pipeline with some of its detectors, under another name and for another model."""
    kept = tuple(step for step in loaded.plan.steps if step.name in steps)
    plan = with_fields(
        loaded.plan, name=name, source=Source(service="employment", model=model), steps=kept, outputs=steps
    )
    return with_fields(loaded, plan=plan, detectors={step: loaded.detectors[step] for step in steps})


def gated(loaded: LoadedPipeline) -> tuple[LoadedPipeline, Gate]:
    ((step, detector),) = loaded.detectors.items()
    gate = Gate(detector)
    return with_fields(loaded, detectors={step: gate}), gate  # type: ignore[dict-item]


async def publish(bus: Bus, namespace: str, make: Make, model: str, partition: int, numbers: range) -> None:
    calls = [make(i, rows=2, namespace=namespace, model=model) for i in numbers]
    messages = [cloudevents.to_message(one, source="/test", partition=partition) for one in calls]
    await bus.publish(topic(namespace, "inferences"), messages)


@asynccontextmanager
async def working(bus: Bus, namespace: str, pipelines: list[LoadedPipeline]) -> AsyncIterator[Metrics]:
    metrics, stop = Metrics(CollectorRegistry()), asyncio.Event()
    running = Worker(bus=bus, namespace=namespace, pipelines=pipelines, reporter=Reporter(metrics))
    async with asyncio.TaskGroup() as group:
        group.create_task(running.run(stop))
        yield metrics
        stop.set()


async def until(metrics: Metrics, name: str, expected: float, **labels: str) -> None:
    """Wait until a metric has a value, summed over the series with these labels."""

    def value() -> float:
        samples = [one for family in metrics.registry.collect() for one in family.samples if one.name == name]
        return sum(one.value for one in samples if labels.items() <= one.labels.items())

    try:
        async with asyncio.timeout(DEADLINE_S):
            while value() != expected:
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"{name} {labels} is {value()}, not {expected}") from None


async def test_a_partition_that_hangs_is_paused_and_the_other_goes_on(
    bus: Bus, unique: str, pipeline_file: Path, make_inference: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits in memory is bounded meanwhile; once the detector returns, all is judged as if it had never hung."""
    monkeypatch.setattr(track, "INBOX_MESSAGES", 40)
    (loaded,) = load(pipeline_file)
    slow, gate = gated(watching(loaded, "slow", "hot", "outlier"))
    fast = watching(loaded, "fast", "cool", "outlier", "adversarial")
    await publish(bus, unique, make_inference, "hot", 0, range(100))
    async with working(bus, unique, [slow, fast]) as metrics:
        await asyncio.to_thread(gate.reached.wait, DEADLINE_S)
        await publish(bus, unique, make_inference, "hot", 0, range(100, 200))
        await publish(bus, unique, make_inference, "cool", 1, range(100))
        await until(metrics, "govern_instances_total", 200, pipeline="fast", step="outlier")
        await until(metrics, "govern_worker_paused_partitions", 1)
        assert not gate.open.is_set()
        gate.open.set()
        await until_committed(bus, unique, "govern-worker")
        await until(metrics, "govern_worker_paused_partitions", 0)
        await until(metrics, "govern_pipeline_lag_records", 0, pipeline="slow")
    await check(bus, unique, [slow, fast])


async def test_the_others_of_a_partition_do_not_wait_for_one_that_hangs(
    embedded_url: str, unique: str, pipeline_file: Path, make_inference: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on in a track of its own, from the last commit; what does not fit in memory it reads from the topic."""
    monkeypatch.setattr(holding, "STALL_S", 0.3)
    monkeypatch.setattr(track, "OWN_MESSAGES", 40)
    (loaded,) = load(pipeline_file)
    slow, gate = gated(watching(loaded, "slow", "employment", "outlier"))
    fast = watching(loaded, "fast", "employment", "outlier", "adversarial")
    async with open_bus(embedded_url) as bus:
        await bus.ensure_topics(specs(unique, partitions=PARTITIONS))
        await publish(bus, unique, make_inference, "employment", 1, range(1))
        async with working(bus, unique, [slow, fast]) as metrics:
            for start in (0, 100, 200):
                await publish(bus, unique, make_inference, "employment", 0, range(start, start + 100))
                await until(metrics, "govern_instances_total", 2 * (start + 100), pipeline="fast", step="outlier")
            assert not gate.open.is_set()
            await until(metrics, "govern_pipeline_own_tracks", 1, pipeline="slow")
            await until(metrics, "govern_pipeline_lag_records", 0, pipeline="fast")
            gate.open.set()
            await until(metrics, "govern_instances_total", 600, pipeline="slow", step="outlier")
            await until(metrics, "govern_pipeline_lag_records", 0, pipeline="slow")
        await check(bus, unique, [slow, fast])


async def test_a_crash_with_a_pipeline_behind_changes_no_verdict(
    embedded_url: str, unique: str, pipeline_file: Path, make_inference: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever takes the partition next goes on from both places; the pipeline comes back when it has kept up."""
    monkeypatch.setattr(holding, "STALL_S", 0.3)
    monkeypatch.setattr(fairness, "COOL_S", 0.5)
    monkeypatch.setattr(worker, "HANDOVER_S", 0.1)
    (loaded,) = load(pipeline_file)
    slow, gate = gated(watching(loaded, "slow", "employment", "outlier"))
    fast = watching(loaded, "fast", "employment", "outlier", "adversarial")
    async with open_bus(embedded_url) as bus:
        await bus.ensure_topics(specs(unique, partitions=PARTITIONS))
        await publish(bus, unique, make_inference, "employment", 0, range(100))
        await publish(bus, unique, make_inference, "employment", 1, range(1))
        async with working(bus, unique, [slow, fast]) as metrics:
            await until(metrics, "govern_instances_total", 200, pipeline="fast", step="outlier")
        behind = await bus.read_table(Partition(topic(unique, "checkpoints"), 0))
        assert track_key("slow") in behind
        gate.open.set()
        await publish(bus, unique, make_inference, "employment", 0, range(100, 200))
        async with working(bus, unique, [slow, fast]) as metrics:
            await until(metrics, "govern_instances_total", 400, pipeline="slow", step="outlier")
            await until_committed(bus, unique, "govern-worker")
            await until_shared(bus, unique)
        await check(bus, unique, [slow, fast])


async def until_shared(bus: Bus, namespace: str) -> None:
    """Wait until no pipeline has a place of its own in the checkpoint."""
    async with asyncio.timeout(DEADLINE_S):
        while track_key("slow") in await bus.read_table(Partition(topic(namespace, "checkpoints"), 0)):
            await asyncio.sleep(0.05)


async def test_what_retention_deletes_before_a_pipeline_comes_to_it_is_missing_in_its_window(
    embedded_url: str, unique: str, pipeline_file: Path, make_inference: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is counted once, a restart in the middle of the window included, and only for the one that was late."""
    monkeypatch.setattr(fairness, "WEIGH_S", DEADLINE_S)
    monkeypatch.setattr(track, "OWN_MESSAGES", 1)
    (loaded,) = load(pipeline_file)
    slow, gate = gated(watching(loaded, "slow", "employment", "outlier"))
    fast = watching(loaded, "fast", "employment", "outlier")
    later = EmbeddedBus(
        Path(embedded_url.removeprefix("embedded://")), clock=lambda: time.time() + 2 * RETENTION_MS / 1000
    )
    async with open_bus(embedded_url) as bus, later:
        await bus.ensure_topics(specs(unique, partitions=PARTITIONS))
        await publish(bus, unique, make_inference, "employment", 1, range(1))
        await publish(bus, unique, make_inference, "employment", 0, range(19))
        gate.open.set()
        async with working(bus, unique, [slow, fast]) as metrics:
            await until_committed(bus, unique, "govern-worker")
            gate.open.clear()
            gate.reached.clear()
            await publish(bus, unique, make_inference, "employment", 0, range(19, 20))
            await asyncio.to_thread(gate.reached.wait, DEADLINE_S)
            monkeypatch.setattr(holding, "STALL_S", 0.0)
            await until(metrics, "govern_pipeline_own_tracks", 1, pipeline="slow")
            monkeypatch.setattr(holding, "STALL_S", DEADLINE_S)
            await publish(bus, unique, make_inference, "employment", 0, range(20, 100))
            await until(metrics, "govern_instances_total", 200, pipeline="fast")
            await publish(later, unique, make_inference, "employment", 0, range(100, 105))
            assert await bus.start_offset(Partition(topic(unique, "inferences"), 0)) == 100
            gate.open.set()
            await until(metrics, "govern_pipeline_lost_records_total", 80, pipeline="slow")
        async with working(bus, unique, [slow, fast]) as metrics:
            await publish(bus, unique, make_inference, "employment", 0, range(105, 110))
            await until(metrics, "govern_instances_total", 20, pipeline="slow")
            await until(metrics, "govern_instances_total", 20, pipeline="fast")
            await until(metrics, "govern_pipeline_lost_records_total", 0)
        verdicts = [decode(Verdict, one.value or b"") for one in await settled(bus, topic(unique, "verdicts"))]
    # Its first window's verdict is as old as what was deleted.
    late = [one.window for one in verdicts if one.pipeline == "slow"]
    assert [(one.first_offset, one.last_offset, one.completeness) for one in late] == [(10, 19, 1.0), (100, 109, 0.2)]
    assert {one.window.completeness for one in verdicts if one.pipeline == "fast"} == {1.0}


async def test_turns_that_are_always_late_are_committed_between(
    embedded_url: str, unique: str, pipeline_file: Path, make_inference: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A partition that always has work left is at rest for a moment only, and that moment is for the commit."""
    for name in ("ROUND_S", "TURN_S", "LATE_S"):
        monkeypatch.setattr(rota, name, 0.0)
    monkeypatch.setattr(worker, "COMMIT_INTERVAL_S", 0.0)
    (loaded,) = load(pipeline_file)
    async with open_bus(embedded_url) as bus:
        await bus.ensure_topics(specs(unique, partitions=PARTITIONS))
        await publish(bus, unique, make_inference, "employment", 1, range(1))
        await publish(bus, unique, make_inference, "employment", 0, range(100))
        async with working(bus, unique, [loaded]):
            await until_committed(bus, unique, "govern-worker")
        assert await bus.end_offset(Partition(topic(unique, "checkpoints"), 0)) > 20


async def test_dead_letters_of_one_turn_are_bounded(
    embedded_url: str, unique: str, pipeline_file: Path, make_inference: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipeline for which nothing is readable: each record is a dead letter with its bytes, over many transactions."""
    monkeypatch.setattr(track, "LETTER_BYTES", 10_000)
    (loaded,) = load(pipeline_file)
    async with open_bus(embedded_url) as bus:
        await bus.ensure_topics(specs(unique, partitions=PARTITIONS))
        await publish(bus, unique, make_inference, "employment", 1, range(40))
        broken = [make_inference(i, namespace=unique, request=payload(b"{" + b"x" * 3_000)) for i in range(40)]
        messages = [cloudevents.to_message(one, source="/test", partition=0) for one in broken]
        await bus.publish(topic(unique, "inferences"), messages)
        async with working(bus, unique, [loaded]):
            await until_committed(bus, unique, "govern-worker")
        commits = await bus.end_offset(Partition(topic(unique, "checkpoints"), 0))
        assert commits > 5
        expected = await check(bus, unique, [loaded])
        assert len(expected.dead_letters) == 40
