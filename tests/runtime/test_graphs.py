"""Random graph x random interleaving x random crashes, on a bus: a worker publishes what the interpreter says."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from govern.bus import Bus, Partition, open_bus
from govern.bus.topics import specs, topic
from govern.codecs import cloudevents, v2
from govern.codecs.tensor import Tensor
from govern.pipeline import Pipeline, plan
from govern.pipeline.graph import OUTPUT
from govern.pipeline.spec import Step as StepSpec
from govern.record import DeadLetter, Inference, Verdict, decode
from govern.runtime.checkpoint import POSITION_KEY, decode_partition
from govern.runtime.flow import Step
from govern.runtime.flow.connections import Connections
from govern.runtime.loader import LoadedPipeline
from govern.runtime.outputs import lineage
from govern.runtime.report import Reporter
from govern.runtime.watched import WatchedFlow
from govern.runtime.worker import Worker
from govern.telemetry.metrics import Metrics
from tests.bus.helpers import settled
from tests.runtime.acting import SCHEMA, Echo
from tests.runtime.conftest import START_NS, payload
from tests.runtime.flow.interpreter import Failed, interpret
from tests.runtime.flow.test_flow_property import World, as_tuples, make_spec, numbers, tensor

NAMESPACE = "n"
WINDOW = 3
MESSAGES = 40
DEADLINE_S = 60


@dataclass
class Acting(Connections):
    """The steps of a world; says when so many calls were made, which is when the worker is to crash."""

    world: World
    calls: int = 0
    crash_at: int = -1
    crash: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        super().__init__()

    def step(self, spec: StepSpec) -> Step | None:
        if spec.transformer is None:
            return None
        act = self.world.step(spec.name, Random(f"{self.world.delays}{spec.name}"))

        async def call(call: Any, /) -> Sequence[Tensor]:
            self.calls += 1
            if self.calls == self.crash_at:
                self.crash.set()
            return await act(call)  # type: ignore[no-any-return]

        return call


@dataclass(frozen=True)
class QuickWorld(World):
    """Its steps take turns, and no time."""

    def step(self, name: str, chance: Random) -> Any:
        async def call(call: Any) -> list[Tensor]:
            parts = [(part.position, numbers(part.tensors)) for part in call.parts]
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
            return [tensor(*item) for item in self.answer(name, call.visit, parts).items()]

        return call


def watching(size: int, cyclic: bool, seed: int) -> dict[str, Any]:
    """A random graph with a detector on the tensor `a` of one of its steps, and perhaps on one branch only."""
    spec = make_spec(size, cyclic, seed)
    chance = Random(seed)
    names = [step["name"] for step in spec["steps"]]
    judge: dict[str, Any] = {"name": "judge", "inputs": [f"{chance.choice(names)}.outputs.a"]}
    judge |= {"detector": {"type": "isolation_forest", "artifact": "a"}, "batch": {"size": WINDOW}}
    judge |= {"triggers": [f"{chance.choice(names)}.outputs.b"]} if chance.random() < 0.3 else {}
    spec["steps"].insert(chance.randrange(len(names) + 1), judge)
    return spec | {"source": {"service": "s", "model": "m"}, "schema": "schema.yaml"}


def loaded(spec: dict[str, Any], acting: Acting) -> LoadedPipeline:
    content = {"apiVersion": "govern.io/v1alpha1", "kind": "Pipeline", "metadata": {"name": "p", "namespace": "n"}}
    pipeline = Pipeline.model_validate({**content, "spec": as_tuples(spec)})
    flow = WatchedFlow(pipeline, SCHEMA, connections=acting)
    return LoadedPipeline(plan(pipeline), SCHEMA, {"judge": Echo()}, frozenset({"judge"}), flow)  # type: ignore[dict-item]


def inference(i: int, request: dict[str, int]) -> Inference:
    body = v2.encode_request([tensor(*item) for item in request.items()])
    return Inference(
        schema_version=1,
        id=f"i{i}",
        request_id="r",
        namespace=NAMESPACE,
        service="s",
        model="m",
        protocol="v2",
        t_response=START_NS + i,
        status_code=200 if i % 5 else 500,
        request=payload(body if i % 7 else b"{"),
    )


@dataclass
class Expected:
    """What is to be published: outputs by inference, rows in order, and letters: (offset, step)."""

    outputs: dict[str, dict[str, int]] = field(default_factory=dict)
    rows: list[tuple[str, int]] = field(default_factory=list)
    letters: list[tuple[str, str]] = field(default_factory=list)

    def take(self, one: Inference, spec: dict[str, Any], request: dict[str, int], world: World) -> None:
        if one.status_code != 200:
            return
        if one.request.body == b"{":
            self.letters.append((one.id, ""))
            return
        read: list[int] = []

        def behave(step: str, visit: int, parts: Sequence[tuple[int, dict[str, int]]]) -> dict[str, int]:
            if step != "judge":
                return world.answer(step, visit, parts)
            read.extend(part["a"] for _, part in parts)
            return {}

        try:
            rest = interpret("p", spec, request, behave)
        except Failed as error:
            self.letters.append((one.id, error.step))
            return
        if rest.outputs is None:
            self.letters.append((one.id, OUTPUT))
            return
        if rest.outputs:
            self.outputs[one.id] = rest.outputs
        self.rows += [(f"{one.id}/0", value) for value in read]


async def worked(bus: Bus, spec: dict[str, Any], world: World, crashes: Sequence[int], end: int) -> None:
    """Workers, one after another; each crashes when it has made so many calls, but for the last."""
    for crash_at in (*crashes, -1):
        acting = Acting(world, crash_at=crash_at)
        worker = Worker(
            bus=bus,
            namespace=NAMESPACE,
            pipelines=[loaded(spec, acting)],
            reporter=Reporter(Metrics(CollectorRegistry())),
        )
        running = asyncio.create_task(worker.run(asyncio.Event()))
        ends = [asyncio.create_task(acting.crash.wait()), asyncio.create_task(judged(bus, end))]
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.wait([*ends, running], return_when=asyncio.FIRST_COMPLETED)
        for task in (*ends, running):
            task.cancel()
        found = await asyncio.gather(*ends, running, return_exceptions=True)
        assert all(one is None or one is True or isinstance(one, asyncio.CancelledError) for one in found), found


async def judged(bus: Bus, end: int) -> None:
    while True:
        table = await bus.read_table(Partition(topic(NAMESPACE, "checkpoints"), 0))
        if POSITION_KEY in table and decode_partition(table[POSITION_KEY]).offset >= end:
            return
        await asyncio.sleep(0.01)


async def published(bus: Bus, kind: type[Any], stream: str) -> list[Any]:
    return [decode(kind, one.value or b"") for one in await settled(bus, f"govern.{NAMESPACE}.{stream}")]


async def run(
    spec: dict[str, Any], requests: Sequence[dict[str, int]], world: World, crashes: Sequence[int], url: str
) -> None:
    sent = [inference(i, request) for i, request in enumerate(requests)]
    expected = Expected()
    for one, request in zip(sent, requests, strict=True):
        expected.take(one, spec, request, world)
    async with open_bus(url) as bus:
        await bus.ensure_topics(specs(NAMESPACE, partitions=1))
        await bus.publish(topic(NAMESPACE, "inferences"), [cloudevents.to_message(one, source="/test") for one in sent])
        await worked(bus, spec, world, crashes, len(sent))
        records = await published(bus, Inference, "inferences")
        outputs = {}
        for record, origin in [(one, sent[one.t_response - START_NS]) for one in records if lineage(one)]:
            assert origin.id not in outputs, "published twice"
            outputs[origin.id] = numbers(v2.decode_response(record.response.body).outputs)
            assert numbers(v2.decode_request(record.request.body).inputs) == requests[int(origin.id[1:])]
        assert outputs == expected.outputs
        letters = [(sent[one.source_offset].id, one.step) for one in await published(bus, DeadLetter, "dead-letter")]
        assert letters == expected.letters
        verdicts: list[Verdict] = await published(bus, Verdict, "verdicts")
        rows = [(one.instance_id, int(one.score)) for verdict in verdicts for one in verdict.instances]
        assert rows == expected.rows[: len(expected.rows) // WINDOW * WINDOW]
        assert all(verdict.window.n_instances == WINDOW for verdict in verdicts)


@dataclass(frozen=True)
class Example:
    spec: dict[str, Any]
    requests: list[dict[str, int]]
    world: World
    crashes: list[int]

    @classmethod
    def of(cls, seed: int) -> Example:
        """A random one in which something comes of the graph; most random graphs say little."""
        chance = Random(seed)
        while True:
            spec = watching(chance.randint(1, 6), chance.random() < 0.4, chance.randrange(2**32))
            world = QuickWorld(chance.randrange(2**32), chance.random() < 0.5, chance.randrange(2**32))
            requests = [
                {name: chance.randrange(10) for name in chance.choice(["a", "b", "ab"])} for _ in range(MESSAGES)
            ]
            crashes = [chance.randint(1, 100) for _ in range(chance.randint(0, 3))]
            expected = Expected()
            for i, request in enumerate(requests):
                expected.take(inference(i, request), spec, request, world)
            if expected.outputs and len(expected.rows) >= 2 * WINDOW:
                return cls(spec, requests, world, crashes)


@given(st.integers(0, 2**32).map(Example.of))
@settings(max_examples=12, deadline=None)
def test_a_worker_publishes_once_what_one_step_after_another_gives(one: Example) -> None:
    event(f"{len(one.crashes)} crashes")
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(one.spec, one.requests, one.world, one.crashes, f"embedded://{folder}/bus.db"))
