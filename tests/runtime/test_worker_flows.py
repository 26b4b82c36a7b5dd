"""Flows in a worker on a bus: who waits for a model, who does not, and who learns."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from govern.bus import Bus, Partition, open_bus
from govern.bus.topics import specs, topic
from govern.codecs import cloudevents, v2
from govern.codecs.tensor import Tensor
from govern.record import DeadLetter, Inference, Verdict, decode
from govern.runtime import fairness, holding
from govern.runtime.checkpoint import track_key
from govern.runtime.flow import Call
from govern.runtime.flow.errors import Unreachable
from govern.runtime.loader import LoadedPipeline
from govern.runtime.outputs import lineage
from govern.runtime.report import Reporter
from govern.runtime.worker import Worker
from govern.telemetry.metrics import Metrics
from tests.bus.helpers import settled
from tests.runtime.acting import loaded
from tests.runtime.conftest import Fitted, Make
from tests.runtime.flow.test_flow_property import numbers
from tests.runtime.test_flows import CALLED, double, inference
from tests.services.process import Process

DEADLINE_S = 60.0
ALONE = """
source: {service: s, model: alone}
steps:
  - {name: judge, detector: {type: isolation_forest, artifact: x}, batch: {size: 2}}
"""


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[Bus]:
    async with open_bus(f"embedded://{tmp_path / 'bus.db'}") as connection:
        await connection.ensure_topics(specs("n", partitions=2))
        yield connection


@asynccontextmanager
async def working(bus: Bus, *pipelines: LoadedPipeline) -> AsyncIterator[Worker]:
    worker = Worker(bus=bus, namespace="n", pipelines=pipelines, reporter=Reporter(Metrics(CollectorRegistry())))
    stop = asyncio.Event()
    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
        group.create_task(worker.run(stop))
        yield worker
        stop.set()


async def publish(bus: Bus, *inferences: Inference, partition: int = 0) -> None:
    messages = [cloudevents.to_message(one, source="/test", partition=partition) for one in inferences]
    await bus.publish(topic("n", "inferences"), messages)


async def verdicts(bus: Bus, pipeline: str, count: int) -> list[Verdict]:
    while True:
        every = [decode(Verdict, one.value or b"") for one in await settled(bus, topic("n", "verdicts"))]
        if len(found := [one for one in every if one.pipeline == pipeline]) >= count:
            return found
        await asyncio.sleep(0.02)


async def test_a_partition_that_waits_for_a_model_holds_up_no_other(bus: Bus) -> None:
    there = asyncio.Event()
    asked = asyncio.Event()

    async def away(call: Call) -> Sequence[Tensor]:
        asked.set()
        if not there.is_set():
            raise Unreachable("model", why="connection refused", fix="start it")
        return await double(call)

    async with working(bus, loaded(CALLED, double=away), loaded(ALONE, name="q")):
        await publish(bus, *(inference(i) for i in range(4)))
        await asked.wait()
        await publish(bus, inference(0, model="alone"), inference(1, model="alone"), partition=1)
        assert len(await verdicts(bus, "q", 1)) == 1
        assert not there.is_set()
        there.set()
        assert len(await verdicts(bus, "p", 4)) == 4
    assert not await settled(bus, topic("n", "dead-letter"))


async def test_a_pipeline_whose_model_is_slow_waits_alone(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others of its partition go on without it; it comes back once its model keeps up."""
    monkeypatch.setattr(holding, "STALL_S", 0.3)
    monkeypatch.setattr(fairness, "COOL_S", 0.5)
    there = asyncio.Event()

    async def slow(call: Call) -> Sequence[Tensor]:
        await there.wait()
        return await double(call)

    beside = loaded(ALONE.replace("alone", "m"), name="q")
    table = Partition(topic("n", "checkpoints"), 0)
    async with working(bus, loaded(CALLED, double=slow), beside):
        await publish(bus, *(inference(i) for i in range(4)))
        assert len(await verdicts(bus, "q", 2)) == 2
        assert track_key("p") in await bus.read_table(table)
        await publish(bus, *(inference(i) for i in range(4, 6)))
        assert len(await verdicts(bus, "q", 3)) == 3
        assert not await verdicts(bus, "p", 0)
        there.set()
        assert len(await verdicts(bus, "p", 6)) == 6
        while track_key("p") in await bus.read_table(table):
            await asyncio.sleep(0.02)
    assert not await settled(bus, topic("n", "dead-letter"))


async def test_a_worker_that_stops_or_changes_over_while_a_model_is_away_loses_nothing(bus: Bus) -> None:
    asked = asyncio.Event()

    async def away(call: Call) -> Sequence[Tensor]:
        asked.set()
        raise Unreachable("model", why="connection refused", fix="start it")

    async with working(bus, loaded(CALLED, double=away)) as worker:
        await publish(bus, *(inference(i) for i in range(4)))
        await asked.wait()
        asked.clear()
        worker.take_over([loaded(CALLED, double=away)])
        await asked.wait()
    assert "Flows.run" not in [getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()]
    assert not await settled(bus, topic("n", "dead-letter"))
    async with working(bus, loaded(CALLED, double=double)):
        assert len(await verdicts(bus, "p", 4)) == 4
    records = [decode(Inference, one.value or b"") for one in await settled(bus, topic("n", "inferences"))]
    made = {one.request_id: numbers(v2.decode_response(one.response.body).outputs) for one in records if lineage(one)}
    assert made == {f"r{i}": {"a": 2 * i} for i in range(4)}


LEARNING = """
    - {name: choice, router: {strategy: thompson, routes: [{name: good}, {name: bad}]}}
    - {name: away, model: {url: "http://127.0.0.1:1"}, triggers: [choice.outputs.good, choice.outputs.bad],
       triggersJoinType: any}
"""


async def test_the_command_loses_patience_as_told_and_lets_routers_learn(
    fitted: Fitted, make_inference: Make, tmp_path: Path, unique: str
) -> None:
    file = fitted.write(tmp_path / "pipeline", unique)
    file.write_text(file.read_text().replace("  steps:\n", f"  steps:{LEARNING}"))
    url = f"embedded://{tmp_path / 'bus.db'}"
    command = [sys.executable, "-m", "govern.cli.main", "worker", str(file), "--bus", url, "--namespace", unique]
    async with open_bus(url) as connection:
        await connection.ensure_topics(specs(unique, partitions=1))
        one = cloudevents.to_message(make_inference(0, namespace=unique), source="/test")
        await connection.publish(topic(unique, "inferences"), [one])
        process = Process([*command, "--patience", "0"], log=tmp_path / "worker.log")
        process.start(lambda log: "routers learn from feedback" in log)
        try:
            async with asyncio.timeout(DEADLINE_S):
                while not (letters := await settled(connection, topic(unique, "dead-letter"))):
                    await asyncio.sleep(0.05)
        finally:
            process.stop()
    (letter,) = [decode(DeadLetter, one.value or b"") for one in letters]
    assert (letter.pipeline, letter.step, letter.code) == ("watch", "away", "step-failed")
    assert letter.value
