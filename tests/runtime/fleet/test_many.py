"""Many pipelines over as many models in one worker: all are judged, and a change concerns nobody else."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from govern.bus import Bus
from govern.bus.topics import topic
from govern.codecs import cloudevents
from govern.record import Verdict, decode
from govern.runtime.fleet import follower
from govern.runtime.fleet.fleet import Fleet
from govern.runtime.fleet.follower import Follower
from govern.runtime.fleet.shelf import shelf
from govern.runtime.fleet.together import Following
from govern.runtime.loader import LoadedPipeline
from govern.runtime.report import Reporter
from govern.runtime.worker import Worker
from govern.telemetry.metrics import Metrics
from tests.bus.helpers import settled
from tests.runtime.conftest import Fitted, Make
from tests.runtime.fleet.conftest import PARTITIONS, packed
from tests.runtime.test_worker import until_committed

DEADLINE_S = 60.0
MODELS = 50
#: Instances of a window; of each model come one window and a half.
WINDOW = 20
ROWS = 5

PIPELINE = """
apiVersion: govern.io/v1alpha1
kind: Pipeline
metadata: {name: pMODEL, namespace: NAMESPACE}
spec:
  source: {service: many, model: mMODEL}
  schema: schema.yaml
  steps:
    - name: outlier
      detector: {type: isolation_forest, params: {n_estimators: 20}, artifact: artifacts/outlier}
      inputs: [pMODEL.inputs]
      batch: {size: WINDOW, windowMs: 3600000}
---
"""
Many = Callable[..., Path]

pytestmark = pytest.mark.parametrize("bus_url", ["embedded"], indirect=True)


@pytest.fixture
def many(fitted: Fitted, tmp_path: Path, unique: str) -> Many:
    """`many(*numbers, window=...)`: a file of the pipelines of these models."""

    def write(*numbers: int, window: int = WINDOW) -> Path:
        file = fitted.write(tmp_path / f"{numbers[0]}-{window}", unique)
        text = PIPELINE.replace("NAMESPACE", unique).replace("WINDOW", str(window))
        file.write_text("".join(text.replace("MODEL", str(number)) for number in numbers).removesuffix("---\n"))
        return file

    return write


async def test_each_of_many_models_is_judged_and_one_change_concerns_one_pipeline(
    bus: Bus, unique: str, many: Many, make_inference: Make, tmp_path: Path
) -> None:
    fleet = Fleet(bus, unique, actor="test")
    await fleet.apply(packed(many(*range(MODELS))))

    async def publish(requests: range) -> None:
        made = [
            make_inference(i * MODELS + model, rows=ROWS, namespace=unique, service="many", model=f"m{model}")
            for i in requests
            for model in range(MODELS)
        ]
        messages = [
            cloudevents.to_message(one, source="/test", partition=int(one.model[1:]) % PARTITIONS) for one in made
        ]
        await bus.publish(topic(unique, "inferences"), messages)

    async def judged(count: int) -> list[Verdict]:
        async with asyncio.timeout(DEADLINE_S):
            while len(found := await settled(bus, topic(unique, "verdicts"))) < count:
                await asyncio.sleep(0.05)
        return [decode(Verdict, message.value or b"") for message in found]

    stop = asyncio.Event()
    with shelf(tmp_path / "cache") as cache:
        followed = Follower(bus, unique, cache)
        before = await followed.start()
        assert (len(before.pipelines), before.refused) == (MODELS, frozenset())
        reporter = Reporter(Metrics(CollectorRegistry()))
        worker = Worker(bus=bus, namespace=unique, pipelines=before.pipelines, reporter=reporter)
        async with asyncio.TaskGroup() as group:
            group.create_task(worker.run(stop))
            await publish(range(6))
            await until_committed(bus, unique, "govern-worker")
            assert Counter(one.pipeline for one in await judged(MODELS)) == {f"p{i}": 1 for i in range(MODELS)}
            await fleet.apply(packed(many(7, window=15)))
            async with asyncio.timeout(DEADLINE_S):
                while not await followed.look():
                    await asyncio.sleep(0.01)
            after = await followed.load()
            kept = {id(one) for one in before.pipelines} & {id(one) for one in after.pipelines}
            assert len(kept) == MODELS - 1, "what did not change was not loaded again"
            worker.take_over(after.pipelines)
            verdicts = await judged(MODELS + 1)
            await publish(range(6, 8))
            await judged(2 * MODELS)
            stop.set()
    closed = {(one.pipeline, one.window.closed_by, one.window.n_instances) for one in verdicts}
    assert closed - {(f"p{i}", "count", WINDOW) for i in range(MODELS)} == {("p7", "change", WINDOW // 2)}
    verdicts = [decode(Verdict, m.value or b"") for m in await settled(bus, topic(unique, "verdicts"))]
    counted = Counter(one.pipeline for one in verdicts if one.window.closed_by == "count")
    assert counted == {f"p{i}": 1 if i == 7 else 2 for i in range(MODELS)}
    assert {one.window.completeness for one in verdicts} == {1.0}, "nobody lost an instance"


async def test_changes_that_come_in_a_row_are_taken_over_together(
    bus: Bus, unique: str, many: Many, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(follower, "SETTLE_S", DEADLINE_S)
    fleet = Fleet(bus, unique, actor="test")
    applied = [packed(many(number)) for number in range(6)]
    taken: asyncio.Queue[tuple[LoadedPipeline, ...]] = asyncio.Queue()
    with shelf(tmp_path / "cache") as cache:
        followed = Follower(bus, unique, cache)
        assert await followed.start() == Following((), frozenset())
        look = followed.look

        async def applied_before_each_look() -> bool:
            if applied:
                await fleet.apply(applied.pop())
            return await look()

        monkeypatch.setattr(followed, "look", applied_before_each_look)
        async with followed.following(lambda found: taken.put_nowait(found.pipelines)):
            first = await asyncio.wait_for(taken.get(), DEADLINE_S)
            assert sorted(one.plan.name for one in first) == [f"p{number}" for number in range(6)]
            # They are not waited for for ever.
            monkeypatch.setattr(follower, "SETTLE_S", 0.0)
            applied += [packed(many(number, window=10)) for number in range(2)]
            assert len({id(one) for one in await asyncio.wait_for(taken.get(), DEADLINE_S)} & {*map(id, first)}) == 5
            assert len({id(one) for one in await asyncio.wait_for(taken.get(), DEADLINE_S)} & {*map(id, first)}) == 4
