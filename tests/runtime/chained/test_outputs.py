"""What a pipeline and its steps give, read by others: over two hops, and joined from different depths."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from govern.bus import Bus, Partition, open_bus
from govern.bus.topics import specs, topic
from govern.cli.worker import worker as run_worker
from govern.codecs import cloudevents
from govern.codecs.inference import response_tensors
from govern.errors import ConfigError
from govern.record import DeadLetter, Inference, decode
from govern.runtime.checkpoint import split_placement
from govern.runtime.loader import LoadedPipeline, load
from govern.runtime.outputs import lineage
from govern.runtime.report import Reporter
from govern.runtime.worker import Worker
from govern.schema import Feature, FeatureSchema
from govern.telemetry.metrics import Metrics
from tests.bus.helpers import settled, until
from tests.runtime.chained.conftest import called, column

HEAD = """\
apiVersion: govern.io/v1alpha1
kind: Pipeline
metadata: {name: NAME, namespace: NAMESPACE}
spec:
"""
PIPELINES = {
    "first": """\
  source: {service: shop, model: price}
  schema: x.yaml
  steps:
    - {name: price, model: {captured: true}}
    - {name: mean, combiner: {method: mean, output: m}, inputs: [price.outputs.y, first.inputs.x]}
  output: {steps: [mean]}
""",
    "second": """\
  input: {externalInputs: [first.outputs.m], tensorMap: {first.outputs.m: y}}
  schema: y.yaml
  steps: [{name: same, combiner: {method: mean, output: s}}]
  output: {steps: [same]}
""",
    "third": """\
  input:
    externalInputs: [second.outputs.s, first.step.mean.outputs.m]
    externalTriggers: [first.inputs]
    joinWindowMs: 60000
  schema: sm.yaml
  steps: [{name: both, combiner: {method: mean, output: b}, inputs: [third.inputs.s, third.inputs.m]}]
  output: {steps: [both]}
""",
}


def write(folder: Path, namespace: str) -> list[Path]:
    for name in ("x", "y", "sm"):
        features = tuple(Feature(name=one, kind="numeric") for one in name)
        (folder / f"{name}.yaml").write_text(FeatureSchema(format_version=1, model="m", features=features).to_yaml())
    files = []
    for name, text in PIPELINES.items():
        files.append(folder / f"{name}-pipeline.yaml")
        files[-1].write_text(HEAD.replace("NAMESPACE", namespace).replace("NAME", name) + text)
    return files


@contextlib.asynccontextmanager
async def working(
    bus: Bus, namespace: str, pipelines: list[LoadedPipeline], placement: str = ""
) -> AsyncIterator[None]:
    worker = Worker(
        bus=bus,
        namespace=namespace,
        pipelines=pipelines,
        reporter=Reporter(Metrics(CollectorRegistry())),
        placement=placement,
    )
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(worker.run(stop))
        yield
        stop.set()


async def send(bus: Bus, namespace: str) -> None:
    await bus.ensure_topics(specs(namespace, partitions=3))
    other = called("price", 99, namespace=namespace, outputs=[column("q", 1.0)])  # the combiner waits for y
    sent = [*(called("price", number, 10 * number, namespace=namespace) for number in range(20)), other]
    await bus.publish(topic(namespace, "inferences"), [cloudevents.to_message(one, source="/test") for one in sent])


async def given(bus: Bus, namespace: str) -> list[Inference]:
    found = [decode(Inference, one.value or b"") for one in await settled(bus, topic(namespace, "inferences"))]
    return [one for one in found if one.model != "price"]


async def until_given(bus: Bus, namespace: str, model: str) -> None:
    async def there() -> bool:
        await asyncio.sleep(0.05)
        return sum(one.model == model for one in await given(bus, namespace)) >= 20

    await until(there, f"20 records of {model}")


async def check(bus: Bus, namespace: str) -> None:
    """Each pipeline and step that is read gave one record for each request, and none was given up."""
    found = await given(bus, namespace)
    letters = [decode(DeadLetter, one.value or b"") for one in await settled(bus, topic(namespace, "dead-letter"))]
    assert letters == []
    assert {(one.model, lineage(one)) for one in found} == {
        ("first", ("first",)),
        ("first.mean", ("first",)),
        ("second", ("second", "first")),
        ("third.inputs", ("second", "first")),
        ("third", ("third", "second", "first")),
    }
    for model in ("first", "first.mean", "second", "third.inputs", "third"):
        mine = [one for one in found if one.model == model]
        assert sorted(one.request_id for one in mine) == sorted(f"request-{number}" for number in range(20)), model
    for one in found:
        assert one.service == "shop"
        if one.model == "third":
            number = int(one.request_id.split("-")[1])
            (tensor,) = response_tensors(one)
            assert (tensor.name, tensor.data.tolist()) == ("b", [[5.5 * number]])  # of 10 and 1 times the number


async def test_what_pipelines_and_steps_give_is_read_over_two_hops_and_joined(
    embedded_url: str, unique: str, tmp_path: Path
) -> None:
    pipelines = [loaded for file in write(tmp_path, unique) for loaded in load(file)]
    async with open_bus(embedded_url) as bus:
        await send(bus, unique)
        async with working(bus, unique, pipelines):
            await until_given(bus, unique, "third")
        await check(bus, unique)


async def test_workers_run_what_is_placed_with_them_and_leave_the_others_work_alone(
    embedded_url: str, unique: str, tmp_path: Path
) -> None:
    files = write(tmp_path, unique)
    text = files[1].read_text()
    files[1].write_text(text.replace("{name: second,", "{name: second, labels: {govern.io/placement: gpu},"))
    pipelines = [loaded for file in files for loaded in load(file)]

    async def models(bus: Bus) -> set[str]:
        return {one.model for one in await given(bus, unique)}

    async with open_bus(embedded_url) as bus:
        await send(bus, unique)
        async with working(bus, unique, pipelines):
            await until_given(bus, unique, "first.mean")
        assert await models(bus) == {"first", "first.mean"}
        async with working(bus, unique, pipelines, "gpu"):
            await until_given(bus, unique, "second")
        assert await models(bus) == {"first", "first.mean", "second"}
        async with working(bus, unique, pipelines), working(bus, unique, pipelines, "gpu"):
            await until_given(bus, unique, "third")
        await check(bus, unique)
        tables = [await bus.read_table(Partition(topic(unique, "checkpoints"), number)) for number in range(3)]
    assert {split_placement(key)[0] for table in tables for key in table} == {"", "gpu"}


def test_a_worker_with_nothing_to_run_says_where_the_pipelines_are_placed(tmp_path: Path, embedded_url: str) -> None:
    with pytest.raises(ConfigError, match="no pipeline is placed at 'gpu'") as refused:
        run_worker(bus=embedded_url, files=write(tmp_path, "default"), placement="gpu")
    assert refused.value.why == "the placements are none"
