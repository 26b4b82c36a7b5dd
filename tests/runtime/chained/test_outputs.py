"""What a pipeline and its steps give, read by others: over two hops, and joined from different depths."""

from __future__ import annotations

import asyncio
from pathlib import Path

from prometheus_client import CollectorRegistry

from govern.bus import open_bus
from govern.bus.topics import specs, topic
from govern.codecs import cloudevents
from govern.codecs.inference import response_tensors
from govern.record import DeadLetter, Inference, decode
from govern.runtime.loader import load
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


async def test_what_pipelines_and_steps_give_is_read_over_two_hops_and_joined(
    embedded_url: str, unique: str, tmp_path: Path
) -> None:
    pipelines = [loaded for file in write(tmp_path, unique) for loaded in load(file)]
    async with open_bus(embedded_url) as bus:
        await bus.ensure_topics(specs(unique, partitions=3))
        other = called("price", 99, namespace=unique, outputs=[column("q", 1.0)])  # the combiner waits for y
        sent = [*(called("price", number, 10 * number, namespace=unique) for number in range(20)), other]
        await bus.publish(topic(unique, "inferences"), [cloudevents.to_message(one, source="/test") for one in sent])
        worker = Worker(bus=bus, namespace=unique, pipelines=pipelines, reporter=Reporter(Metrics(CollectorRegistry())))
        stop = asyncio.Event()

        async def given() -> list[Inference]:
            found = [decode(Inference, one.value or b"") for one in await settled(bus, topic(unique, "inferences"))]
            return [one for one in found if one.model != "price"]

        async def there() -> bool:
            await asyncio.sleep(0.05)
            return sum(one.model == "third" for one in await given()) >= 20

        async with asyncio.TaskGroup() as group:
            group.create_task(worker.run(stop))
            await until(there, "20 records of the last pipeline")
            stop.set()
        found = await given()
        letters = [decode(DeadLetter, one.value or b"") for one in await settled(bus, topic(unique, "dead-letter"))]
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
