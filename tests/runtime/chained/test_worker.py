"""Workers that run chained pipelines: what they publish equals what one thread makes of the topics."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from govern.bus import Bus, Message, Partition, open_bus
from govern.bus.topics import specs, topic
from govern.codecs import cloudevents
from govern.codecs.inference import request_tensors
from govern.errors import ConfigError
from govern.frame import Frame
from govern.plugins import DETECTORS
from govern.plugins import load as plugin
from govern.record import Inference, Verdict, decode, encode
from govern.runtime.chained.linked import link
from govern.runtime.loader import LoadedPipeline, load
from govern.runtime.report import Reporter
from govern.runtime.task import PartitionTask
from govern.runtime.worker import Worker
from govern.schema import Feature, FeatureSchema
from govern.telemetry.metrics import Metrics
from tests.bus.helpers import settled, until
from tests.runtime.chained.conftest import SCHEMA, called
from tests.runtime.test_storm import storm

PARTITIONS = 2
KILLS = 6
#: Requests between two kills.
ROUND = 30
PIPELINES = """\
apiVersion: govern.io/v1alpha1
kind: Pipeline
metadata: {name: left, namespace: NAMESPACE}
spec:
  source: {service: shop, model: price}
  schema: schema.yaml
  steps: [{name: price, model: {captured: true}}]
---
apiVersion: govern.io/v1alpha1
kind: Pipeline
metadata: {name: right, namespace: NAMESPACE}
spec:
  source: {service: shop, model: stock}
  schema: schema.yaml
  steps: [{name: stock, model: {captured: true}}]
---
apiVersion: govern.io/v1alpha1
kind: Pipeline
metadata: {name: answers, namespace: NAMESPACE}
spec:
  input: {externalInputs: [left.step.price.outputs.y]}
  schema: answers.yaml
  steps:
    - {name: odd, detector: {type: isolation_forest, artifact: answers}, batch: {size: 5, windowMs: 3600000}}
---
apiVersion: govern.io/v1alpha1
kind: Pipeline
metadata: {name: both, namespace: NAMESPACE}
spec:
  input:
    externalInputs: [left.step.price.outputs.y, right.step.stock.outputs.y]
    tensorMap: {right.step.stock.outputs.y: z}
    joinWindowMs: 600000
  schema: both.yaml
  steps:
    - {name: odd, detector: {type: isolation_forest, artifact: both}, batch: {size: 5, windowMs: 3600000}}
    - {name: drift, detector: {type: ks, artifact: drift}, batch: {size: 20, windowMs: 3600000, rolling: true}}
"""


@pytest.fixture(scope="session")
def fitted_pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector of one answer, and two of two."""
    folder = tmp_path_factory.mktemp("chained")
    (folder / "schema.yaml").write_text(SCHEMA.to_yaml())
    for name, features in (("answers", "y"), ("both", "yz")):
        schema = FeatureSchema(
            format_version=1, model="m", features=tuple(Feature(name=one, kind="numeric") for one in features)
        )
        (folder / f"{name}.yaml").write_text(schema.to_yaml())
        rows = np.random.default_rng(7).normal(1000, 500, size=(400, len(features)))
        frame = Frame(
            schema=schema,
            columns=tuple(np.ascontiguousarray(column) for column in rows.T),
            instance_ids=tuple(str(number) for number in range(400)),
            unseen={},
            outputs={},
        )
        plugin(DETECTORS, "isolation_forest")(n_estimators=5).fit(frame).save(folder / name)
    plugin(DETECTORS, "ks")().fit(frame).save(folder / "drift")
    return folder


def write(fitted_pair: Path, namespace: str) -> Path:
    file = fitted_pair / f"{namespace}.yaml"
    file.write_text(PIPELINES.replace("NAMESPACE", namespace))
    return file


async def publish(bus: Bus, namespace: str, numbers: range, chance: random.Random) -> None:
    """Calls of both models, in any order; each model on a partition of its own."""
    calls = [(model, number) for model in ("price", "stock") for number in numbers]
    chance.shuffle(calls)
    messages = [
        cloudevents.to_message(
            called(model, number, 10 * number, namespace=namespace), source="/test", partition=model == "stock"
        )
        for model, number in calls
    ]
    await bus.publish(topic(namespace, "inferences"), messages)


async def joined(bus: Bus, namespace: str) -> list[Inference]:
    found = [decode(Inference, one.value or b"") for one in await settled(bus, topic(namespace, "inferences"))]
    return [one for one in found if one.model == "both.inputs"]


async def verdicts(bus: Bus, namespace: str) -> list[Verdict]:
    return [decode(Verdict, one.value or b"") for one in await settled(bus, topic(namespace, "verdicts"))]


async def until_judged(bus: Bus, namespace: str, count: int) -> None:
    """Both pipelines have judged so many requests, in windows of five."""

    async def there() -> bool:
        await asyncio.sleep(0.05)
        rows = [one.window.n_instances for one in await verdicts(bus, namespace) if one.step == "odd"]
        return sum(rows) >= 2 * (count - count % 5)

    await until(there, f"verdicts on {count} requests")


async def check(bus: Bus, namespace: str, pipelines: list[LoadedPipeline], numbers: range) -> None:
    made = await joined(bus, namespace)
    assert sorted(int(one.request_id.split("-")[1]) for one in made) == list(numbers)
    for one in made:
        number = 10.0 * int(one.request_id.split("-")[1])
        assert {t.name: t.data.tolist() for t in request_tensors(one, SCHEMA)} == {"y": [[number]], "z": [[number]]}
    by_partition: dict[Partition, list[Message]] = defaultdict(list)
    for message in await settled(bus, topic(namespace, "inferences")):
        by_partition[message.tp].append(message)
    expected: list[Verdict] = []
    for tp, messages in by_partition.items():
        effects = PartitionTask(tp, namespace, link(pipelines).pipelines).process(messages)
        assert effects.dead_letters == []
        expected += [one.verdict for one in effects.judgements]
    assert sorted(map(encode, await verdicts(bus, namespace))) == sorted(map(encode, expected))
    assert {(one.pipeline, one.model) for one in expected} == {("answers", "price"), ("both", "both.inputs")}
    assert {one.window.n_instances for one in expected if one.step == "drift"} == {20}


async def test_chained_and_joined_pipelines_judge_what_one_thread_would(
    bus_url: str, unique: str, fitted_pair: Path
) -> None:
    pipelines = load(write(fitted_pair, unique))
    async with open_bus(bus_url) as bus:
        await bus.ensure_topics(specs(unique, partitions=PARTITIONS))
        worker = Worker(bus=bus, namespace=unique, pipelines=pipelines, reporter=Reporter(Metrics(CollectorRegistry())))
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(worker.run(stop))
            await publish(bus, unique, range(40), random.Random(1))
            await until_judged(bus, unique, 40)
            stop.set()
        await check(bus, unique, pipelines, range(40))


@pytest.mark.timeout(300)
async def test_workers_that_are_killed_join_and_judge_each_request_once(
    embedded_url: str, unique: str, fitted_pair: Path, tmp_path: Path
) -> None:
    chance = random.Random(5)
    file = write(fitted_pair, unique)
    async with open_bus(embedded_url) as bus:
        await bus.ensure_topics(specs(unique, partitions=PARTITIONS))
        with storm(file, embedded_url, unique, tmp_path / "workers.log") as workers:
            for _ in range(2):
                await workers.start()
            for number in range(KILLS):
                before = await bus.end_offset(Partition(topic(unique, "join-checkpoints"), number % PARTITIONS))
                await publish(bus, unique, range(number * ROUND, (number + 1) * ROUND), chance)

                async def at_work(before: int = before, number: int = number) -> bool:
                    await asyncio.sleep(chance.uniform(0, 0.02))
                    return (
                        await bus.end_offset(Partition(topic(unique, "join-checkpoints"), number % PARTITIONS)) > before
                    )

                await until(at_work, "parts that wait")
                workers.kill(chance.randrange(2))
                await workers.start()
            await until_judged(bus, unique, KILLS * ROUND)
        await check(bus, unique, load(file), range(KILLS * ROUND))


def test_what_reads_a_pipeline_that_is_not_there_is_not_run(fitted_pair: Path, unique: str) -> None:
    pipelines = load(write(fitted_pair, unique))
    linked = link([one for one in pipelines if one.plan.name != "right"])
    assert [one.plan.name for one in linked.pipelines] == ["left", "answers"]
    (error,) = linked.refused.values()
    assert isinstance(error, ConfigError)
    assert "it reads right.step.stock.outputs.y, and no pipeline 'right' runs here" in error.why
