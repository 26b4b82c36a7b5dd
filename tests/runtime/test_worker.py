"""The worker on real buses: what it publishes equals what one uninterrupted task computes, whatever is killed."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections import defaultdict
from dataclasses import replace as with_fields
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from detectors.baseline.detector import MovingBaselineDrift
from detectors.outlier.online_mahalanobis import OnlineMahalanobisOutlier
from govern.bus import Bus, Message, Outgoing, Partition
from govern.bus.topics import topic
from govern.codecs import cloudevents
from govern.errors import BadInput
from govern.record import ConfigChange, DeadLetter, ExplainRequest, Inference, Verdict, decode, encode
from govern.runtime.loader import LoadedPipeline, load
from govern.runtime.past import Past
from govern.runtime.plans import read_plans
from govern.runtime.report import Reporter
from govern.runtime.task import Effects, PartitionTask
from govern.runtime.worker import Worker
from govern.telemetry.metrics import Metrics, labels
from tests.bus.helpers import settled
from tests.mirror.conftest import renew
from tests.runtime.conftest import PARTITIONS, SLIDES, Fitted, Make
from tests.services.process import Process

DEADLINE_S = 60.0


async def publish(bus: Bus, namespace: str, make: Make, numbers: range, rows: int = 2) -> None:
    await bus.publish(
        topic(namespace, "inferences"),
        [
            cloudevents.to_message(
                make(i, rows=rows, namespace=namespace, error="" if i % 11 else "reset"),
                source="/test",
                partition=i % PARTITIONS,
            )
            for i in numbers
        ],
    )


async def oracle(bus: Bus, namespace: str, pipelines: list[LoadedPipeline]) -> Effects:
    """What one task for each partition makes of the whole topic."""
    effects = Effects()
    by_partition: dict[Partition, list[Message]] = defaultdict(list)
    for message in await settled(bus, topic(namespace, "inferences")):
        by_partition[message.tp].append(message)
    for tp, messages in sorted(by_partition.items()):
        effects.extend(PartitionTask(tp, namespace, pipelines).process(messages))
    return effects


async def published(bus: Bus, namespace: str) -> tuple[list[Verdict], list[ExplainRequest], list[DeadLetter]]:
    async def of(kind: type, stream: str) -> list:  # type: ignore[type-arg]
        return [decode(kind, m.value or b"") for m in await settled(bus, f"govern.{namespace}.{stream}")]

    return (
        await of(Verdict, "verdicts"),
        await of(ExplainRequest, "explain-requests"),
        await of(DeadLetter, "dead-letter"),
    )


async def until_committed(bus: Bus, namespace: str, group: str) -> None:
    """Wait until the checkpoints say that every inference was processed."""
    from govern.runtime.checkpoint import POSITION_KEY, decode_partition, parse_track_key

    async with asyncio.timeout(DEADLINE_S):
        for number in range(PARTITIONS):
            end = 0
            messages = [m for m in await settled(bus, topic(namespace, "inferences")) if m.partition == number]
            end = messages[-1].offset + 1
            while True:
                table = await bus.read_table(Partition(topic(namespace, "checkpoints"), number))
                places = [key for key in table if key == POSITION_KEY or parse_track_key(key) is not None]
                if places and all(decode_partition(table[key]).offset >= end for key in places):
                    break
                await asyncio.sleep(0.05)


async def check(bus: Bus, namespace: str, pipelines: list[LoadedPipeline]) -> Effects:
    expected = await oracle(bus, namespace, pipelines)
    verdicts, requests, letters = await published(bus, namespace)

    def wire(found: list[Verdict] | list[ExplainRequest] | list[DeadLetter]) -> list[bytes]:
        return sorted(encode(one) for one in found)

    assert wire(verdicts) == wire([one.verdict for one in expected.judgements])
    assert wire(requests) == wire(expected.explain_requests)
    assert wire(letters) == wire(expected.dead_letters)
    assert verdicts
    return expected


@pytest.fixture
def sliding_file(fitted: Fitted, tmp_path: Path, unique: str) -> Path:
    return fitted.write(tmp_path / "sliding", unique, further=SLIDES)


async def test_publishes_what_one_task_computes_and_counts_it(
    bus: Bus, unique: str, sliding_file: Path, make_inference: Make
) -> None:
    pipelines = load(sliding_file)
    await publish(bus, unique, make_inference, range(400))
    metrics = Metrics(CollectorRegistry())
    worker = Worker(bus=bus, namespace=unique, pipelines=pipelines, reporter=Reporter(metrics))
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(worker.run(stop))
        await until_committed(bus, unique, "govern-worker")
        await publish(bus, unique, make_inference, range(400, 500))
        await until_committed(bus, unique, "govern-worker")
        stop.set()
    expected = await check(bus, unique, pipelines)

    def value(metric: str, step: str) -> float | None:
        names = labels(
            namespace=unique, service="employment", model="employment", endpoint="default", pipeline="watch", step=step
        )
        every = ("namespace", "service", "model", "revision", "endpoint", "pipeline", "step")
        return metrics.registry.get_sample_value(metric, dict(zip(every, names, strict=True)))

    found = [one.verdict for one in expected.judgements if one.verdict.step == "outlier"]
    assert value("govern_verdicts_total", "outlier") == len(found)
    assert value("govern_instances_total", "outlier") == sum(one.window.n_instances for one in found)
    flagged = sum(i.flagged for one in found for i in one.instances)
    assert value("govern_flagged_instances_total", "outlier") == flagged
    stated = {
        (sample.labels["namespace"], sample.labels["pipeline"], sample.labels["step"]): sample.value
        for family in metrics.stated_contamination.collect()
        for sample in family.samples
    }
    assert stated == {(unique, "watch", "outlier"): 0.01}, "drift and adversarial detectors state none"
    slid = [one.verdict.window for one in expected.judgements if one.verdict.step == "slides"]
    answered = sum(2 for i in range(500) if i % 11)
    assert value("govern_verdicts_total", "slides") == len(slid) == (answered - PARTITIONS * 58) // 2
    assert value("govern_instances_total", "slides") == answered, "each once, though it is in 30 windows"
    (change,) = [decode(ConfigChange, m.value or b"") for m in await settled(bus, topic(unique, "config"))]
    assert (change.subject, change.action, change.digest) == ("pipeline/watch", "loaded", pipelines[0].plan.digest)


async def test_pipelines_come_change_and_go_while_it_runs(
    bus: Bus, unique: str, pipeline_file: Path, make_inference: Make
) -> None:
    """Whoever stays judges every instance once, windows that were open included; who comes begins where it came."""
    (first,) = load(pipeline_file)
    second = with_fields(first, plan=with_fields(first.plan, name="later", digest="d" * 64))
    changed = with_fields(second, plan=with_fields(second.plan, digest="e" * 64))
    worker = Worker(bus=bus, namespace=unique, pipelines=[first], reporter=Reporter(Metrics(CollectorRegistry())))
    stop = asyncio.Event()

    async def judged(numbers: range) -> None:
        await publish(bus, unique, make_inference, numbers)
        await until_committed(bus, unique, "govern-worker")

    async def on_record(count: int) -> list[ConfigChange]:
        async with asyncio.timeout(DEADLINE_S):
            while len(found := await settled(bus, topic(unique, "config"))) < count:
                await asyncio.sleep(0.05)
        return [decode(ConfigChange, message.value or b"") for message in found]

    async with asyncio.TaskGroup() as group:
        group.create_task(worker.run(stop))
        await judged(range(150))
        worker.take_over([first, second])
        await on_record(2)
        await judged(range(150, 330))
        worker.take_over([changed])
        await on_record(4)
        await judged(range(330, 400))
        stop.set()

    actions = [(one.subject, one.action, one.digest) for one in await on_record(4)]
    watch, later = "pipeline/watch", "pipeline/later"
    assert actions[:2] == [(watch, "loaded", first.plan.digest), (later, "loaded", "d" * 64)]
    assert sorted(actions[2:]) == sorted([(watch, "removed", first.plan.digest), (later, "changed", "e" * 64)])
    messages = defaultdict(list)
    for message in await settled(bus, topic(unique, "inferences")):
        messages[message.tp].append(message)
    expected = Effects()
    for tp, mine in messages.items():
        number = {message.offset: int(decode(Inference, message.value or b"").id.split("-")[1]) for message in mine}
        expected.extend(PartitionTask(tp, unique, [first]).process([m for m in mine if number[m.offset] < 330]))
        expected.extend(PartitionTask(tp, unique, [second]).process([m for m in mine if number[m.offset] >= 150]))
    verdicts, _, _ = await published(bus, unique)
    assert sorted(map(encode, verdicts)) == sorted(encode(one.verdict) for one in expected.judgements)
    assert {one.pipeline for one in verdicts} == {"watch", "later"}
    plans = read_plans(await bus.read_table(Partition(topic(unique, "checkpoints"), 0)))
    assert [one.digest for one in plans["watch"].in_force] == [first.plan.digest, ""]
    assert [one.digest for one in plans["later"].in_force] == ["d" * 64, "e" * 64]
    number = {
        m.offset: int(decode(Inference, m.value or b"").id.split("-")[1])
        for m in messages[Partition(topic(unique, "inferences"), 0)]
    }
    mine = sorted(number)
    begins = [next((number[o] for o in mine if o >= one.first_offset), 0) for one in plans["later"].in_force]
    assert begins == [150, 330], "from the message on before which the change was taken over"


@pytest.mark.e2e
async def test_it_follows_its_files(bus: Bus, bus_url: str, unique: str, pipeline_file: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "govern.cli.main", "worker", str(pipeline_file), "--bus", bus_url]
    process = Process([*command, "--namespace", unique], log=tmp_path / "worker.log")
    process.start(lambda log: "partition taken" in log)
    text = pipeline_file.read_text()

    async def until(words: str) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while words not in process.log():
                await asyncio.sleep(0.05)

    try:
        renew(pipeline_file, text.replace("kind: Pipeline", "kind: Pipelin"))
        await until("the pipelines in force stay")
        renew(pipeline_file, text.replace("name: watch", "name: other").replace("watch.inputs", "other.inputs"))
        await until("pipelines taken over")
        os.kill(process.pid, signal.SIGHUP)
        async with asyncio.timeout(DEADLINE_S):
            while process.log().count("pipelines taken over") < 2:
                await asyncio.sleep(0.05)
    finally:
        process.stop()
    found = [decode(ConfigChange, message.value or b"") for message in await settled(bus, topic(unique, "config"))]
    assert [(one.subject, one.action) for one in found] == [
        ("pipeline/watch", "loaded"),
        ("pipeline/watch", "removed"),
        ("pipeline/other", "loaded"),
    ]


async def test_what_is_too_long_for_the_bus_stops_nobody(
    bus: Bus, unique: str, pipeline_file: Path, make_inference: Make
) -> None:
    """Windows of many instances with long request ids, and a message that is as long as the bus takes."""
    pipeline_file.write_text(pipeline_file.read_text().replace("batch: {size: 20,", "batch: {size: 1500,"))
    inferences = topic(unique, "inferences")
    huge = Outgoing(key=b"k", value=b"\xff" * 999_000, headers=(("ce_type", b"io.govern.inference.v1"),), partition=0)
    for start in (0, 75):
        records = [
            make_inference(i, rows=20, namespace=unique, request_id=f"{i}-" * 250) for i in range(start, start + 75)
        ]
        await bus.publish(inferences, [cloudevents.to_message(one, source="/test", partition=0) for one in records])
        await bus.publish(inferences, [huge])
    await publish(bus, unique, make_inference, range(2))  # so that both partitions have something to commit
    worker = Worker(
        bus=bus, namespace=unique, pipelines=load(pipeline_file), reporter=Reporter(Metrics(CollectorRegistry()))
    )
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(worker.run(stop))
        await until_committed(bus, unique, "govern-worker")
        stop.set()
    verdicts, _, letters = await published(bus, unique)
    long = [one for one in verdicts if one.step == "outlier"]
    assert [one.window.n_instances for one in long] == [1500, 1500]
    assert all(sum(len(each.request_id) for each in one.instances) > 500_000 for one in long)
    assert all(len(one.instances) < 1500 for one in long)
    assert [(one.value_size, len(one.value) < 999_000) for one in letters] == [(999_000, True)] * 2


@pytest.mark.e2e
@pytest.mark.timeout(600)
async def test_killed_and_stopped_at_random_it_publishes_everything_once(
    bus: Bus, bus_url: str, unique: str, sliding_file: Path, make_inference: Make, fitted: Fitted, tmp_path: Path
) -> None:
    """Of a step that remembers, each verdict depends on all windows before: what one worker forgot would show in all
    that the next ones say. Replayed, they say the same.
    """
    OnlineMahalanobisOutlier(max_n=1000).fit(fitted.replay).save(tmp_path / "moving")
    remembers = f"- name: moving\n      detector: {{type: online_mahalanobis, artifact: {tmp_path / 'moving'}}}\n"
    remembers += "      inputs: [watch.inputs]\n      batch: {size: 20}\n"
    MovingBaselineDrift(detector="ks", min_rows=40).fit(fitted.replay).save(tmp_path / "trailing")
    remembers += f"    - name: trailing\n      detector: {{type: moving_baseline, artifact: {tmp_path / 'trailing'}}}\n"
    remembers += "      inputs: [watch.inputs]\n      batch: {size: 40}\n    - name: explain"
    sliding_file.write_text(sliding_file.read_text().replace("- name: explain", remembers))
    chance = random.Random(7)
    kills = 5  # the fifth of these is a SIGTERM; `test_storm` has a hundred
    # -P: the current folder is never searched first; the same as the console script.
    command = [sys.executable, "-P", "-m", "govern.cli.main", "worker", str(sliding_file)]
    command += ["--bus", bus_url, "--namespace", unique]
    log = (tmp_path / "worker.log").open("wb")

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, stdout=log, stderr=log)

    workers = [start(), start()]
    try:
        sent = 0
        for _ in range(kills):
            step = chance.randint(40, 160)
            end = await bus.end_offset(Partition(topic(unique, "checkpoints"), 0))
            await publish(bus, unique, make_inference, range(sent, sent + step), rows=3)
            sent += step
            async with asyncio.timeout(DEADLINE_S):  # some progress first, so that there is something to lose
                while await bus.end_offset(Partition(topic(unique, "checkpoints"), 0)) <= end:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(chance.uniform(0, 0.2))
            victim = chance.randrange(len(workers))
            how = signal.SIGKILL if chance.random() < 0.8 else signal.SIGTERM
            os.kill(workers[victim].pid, how)
            await asyncio.to_thread(workers[victim].wait, 120)
            workers[victim] = start()
        await until_committed(bus, unique, "govern-worker")
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
        log.close()
    pipelines = load(sliding_file)
    await check(bus, unique, pipelines)
    past = Past(bus, unique)
    moving = await past.verdicts(lambda one: one.step == "moving")
    assert len({one.memory_digest for one in moving}) > len(moving) - PARTITIONS > kills
    trailing = await past.verdicts(lambda one: one.step == "trailing")
    # The first window of a partition has only the reference to be compared with.
    told = [any(one.signal == "trailing" for one in verdict.features) for verdict in trailing]
    assert told.count(False) == PARTITIONS < told.count(True)
    both = [*moving, *trailing]
    outcomes = [one.outcome async for one in past.replay(both, {"watch": pipelines[0]})]
    assert outcomes == ["identical"] * len(both)


async def test_a_checkpoint_of_another_version_stops_the_worker_with_a_clear_error(
    bus: Bus, unique: str, pipeline_file: Path, make_inference: Make
) -> None:
    import msgspec

    from govern.bus import Outgoing
    from govern.runtime.checkpoint import POSITION_KEY

    await publish(bus, unique, make_inference, range(4))
    newer = msgspec.msgpack.encode({"format_version": 99})
    await bus.publish(
        topic(unique, "checkpoints"),
        [Outgoing(key=POSITION_KEY, value=newer, partition=number) for number in range(PARTITIONS)],
    )
    worker = Worker(
        bus=bus, namespace=unique, pipelines=load(pipeline_file), reporter=Reporter(Metrics(CollectorRegistry()))
    )
    with pytest.raises(BadInput, match="format_version 99"):
        await worker.run(asyncio.Event())
