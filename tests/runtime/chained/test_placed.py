"""Workers of two placements run one pipeline: what they judge equals what one worker makes of the whole, whoever of
them is killed; of files and of a fleet.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from prometheus_client import CollectorRegistry

from govern.bus import Bus, Partition, open_bus
from govern.bus.topics import specs, topic
from govern.codecs import cloudevents
from govern.errors import ConfigError
from govern.frame import Frame
from govern.plugins import DETECTORS
from govern.plugins import load as plugin
from govern.record import ConfigChange, DeadLetter, Inference, Verdict, decode
from govern.runtime.chained.linked import link
from govern.runtime.fleet import follower
from govern.runtime.fleet.fleet import Fleet
from govern.runtime.fleet.follower import Follower
from govern.runtime.fleet.pack import pack
from govern.runtime.fleet.shelf import shelf
from govern.runtime.fleet.together import Following, Together
from govern.runtime.loader import LoadedPipeline, load, load_documented
from govern.runtime.past import Past
from govern.runtime.report import Reporter
from govern.runtime.worker import Worker
from govern.schema import Feature, FeatureSchema
from govern.telemetry.metrics import Metrics
from tests.bus.helpers import settled, until
from tests.runtime.chained.conftest import SCHEMA, called
from tests.runtime.test_storm import storm

WINDOW = 5
REQUESTS = 40
KILLS = 4
#: Requests between two kills.
ROUND = 10
PIPELINE = """\
apiVersion: govern.io/v1alpha1
kind: Pipeline
metadata: {name: p, namespace: NAMESPACE}
spec:
  source: {service: shop, model: price}
  schema: schema.yaml
  steps:
    - {name: asked, model: {captured: true}}
    - {name: near, detector: {type: isolation_forest, artifact: x}, batch: BATCH}
    - {name: net, placement: gpu, combiner: {method: mean, output: net}, inputs: [p.inputs.x, asked.outputs.y]}
    - {name: odd, detector: {type: isolation_forest, artifact: net}, batch: BATCH, inputs: [net.outputs]}
    - name: sum
      combiner: {method: weighted, weights: [1, 3], output: sum}
      inputs: [net.outputs.net, asked.outputs.y]
      joinWindowMs: 600000
    - name: high
      placement: gpu
      detector: {type: isolation_forest, artifact: sum}
      batch: BATCH
      inputs: [sum.outputs]
""".replace("BATCH", "{size: 5, windowMs: 3600000}")
#: Step -> the pipeline that runs it when steps are placed; its artifact, and what it judges as multiples of a request.
PARTS = {"near": "p", "odd": "p-odd", "high": "p-high"}
VALUES = {"near": ("x", 1.0), "odd": ("net", 5.5), "high": ("sum", 8.875)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Detectors of what is asked, of what one step makes of it, and of what is made of that."""
    folder = tmp_path_factory.mktemp("placed")
    (folder / "schema.yaml").write_text(SCHEMA.to_yaml())
    for name in ("x", "net", "sum"):
        schema = FeatureSchema(format_version=1, model="m", features=(Feature(name=name, kind="numeric"),))
        schema = SCHEMA if name == "x" else schema
        rows = np.random.default_rng(7).normal(100, 500, size=400)
        plugin(DETECTORS, "isolation_forest")(n_estimators=5).fit(frame_of(schema, rows)).save(folder / name)
    return folder


def frame_of(schema: FeatureSchema, rows: npt.NDArray[np.float64]) -> Frame:
    ids = tuple(map(str, range(len(rows))))
    return Frame(schema=schema, columns=(rows,), instance_ids=ids, unseen={}, outputs={})


def write(folder: Path, namespace: str, *, placed: bool = True) -> Path:
    file = folder / f"{namespace}-{'placed' if placed else 'whole'}.yaml"
    text = PIPELINE.replace("NAMESPACE", namespace)
    file.write_text(text if placed else text.replace("placement: gpu, ", "").replace("      placement: gpu\n", ""))
    return file


async def publish(bus: Bus, namespace: str, numbers: range, partition: int = 0) -> None:
    calls = (called("price", number, 10 * number, namespace=namespace) for number in numbers)
    messages = [cloudevents.to_message(one, source="/test", partition=partition) for one in calls]
    await bus.publish(topic(namespace, "inferences"), messages)


@contextlib.asynccontextmanager
async def working(
    bus: Bus, namespace: str, pipelines: Sequence[LoadedPipeline], *placements: str
) -> AsyncIterator[None]:
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for placement in placements:
            reporter = Reporter(Metrics(CollectorRegistry()))
            worker = Worker(bus=bus, namespace=namespace, pipelines=pipelines, reporter=reporter, placement=placement)
            group.create_task(worker.run(stop))
        try:
            yield
        finally:
            stop.set()


async def verdicts(bus: Bus, namespace: str) -> list[Verdict]:
    return [decode(Verdict, one.value or b"") for one in await settled(bus, topic(namespace, "verdicts"))]


async def until_judged(bus: Bus, namespace: str, count: int) -> list[Verdict]:
    async def there() -> bool:
        await asyncio.sleep(0.05)
        return len(await verdicts(bus, namespace)) >= count

    await until(there, f"{count} verdicts")
    letters = await settled(bus, topic(namespace, "dead-letter"))
    assert [decode(DeadLetter, one.value or b"") for one in letters] == []
    return await verdicts(bus, namespace)


def contents(found: Sequence[Verdict]) -> list[tuple[object, ...]]:
    """What verdicts say, by step and in order; not of which pipeline they are, nor what their records are called."""
    said = [
        (
            one.step,
            one.window.t_first,
            one.window.t_last,
            one.window.n_instances,
            one.detector_digest,
            tuple((each.score, each.flagged) for each in one.instances),
        )
        for one in found
    ]
    return sorted(said, key=lambda each: each[:2])


async def test_two_workers_judge_what_one_makes_of_the_whole(bus_url: str, unique: str, folder: Path) -> None:
    found = {}
    for namespace, placed in ((f"{unique}w", False), (unique, True)):
        async with open_bus(bus_url) as bus:
            await bus.ensure_topics(specs(namespace, partitions=1))
            await publish(bus, namespace, range(REQUESTS))
            pipelines = load(write(folder, namespace, placed=placed))
            async with working(bus, namespace, pipelines, "", *(["gpu"] if placed else [])):
                found[placed] = await until_judged(bus, namespace, 3 * REQUESTS // WINDOW)
            running = {one.plan.name: one for one in link(pipelines).pipelines}
            replayed = [one.outcome async for one in Past(bus, namespace).replay(found[placed], running)]
            assert replayed == ["identical"] * len(found[placed])
    assert contents(found[True]) == contents(found[False])
    assert {(one.step, one.pipeline) for one in found[False]} == {(step, "p") for step in PARTS}
    assert {(one.step, one.pipeline) for one in found[True]} == set(PARTS.items())


@pytest.mark.e2e
@pytest.mark.timeout(300)
async def test_a_worker_of_either_placement_that_is_killed_loses_and_repeats_nothing(
    embedded_url: str, unique: str, folder: Path, tmp_path: Path
) -> None:
    chance = random.Random(3)
    file = write(folder, unique)
    async with open_bus(embedded_url) as bus:
        await bus.ensure_topics(specs(unique, partitions=2))
        with (
            storm(file, embedded_url, unique, tmp_path / "home.log") as home,
            storm(file, embedded_url, unique, tmp_path / "gpu.log", "gpu") as gpu,
        ):
            for workers in (home, gpu):
                await workers.start()
            for number in range(KILLS):
                before = await ends(bus, unique)
                await publish(bus, unique, range(number * ROUND, (number + 1) * ROUND), partition=number % 2)

                async def at_work(before: int = before) -> bool:
                    await asyncio.sleep(chance.uniform(0, 0.02))
                    return await ends(bus, unique) > before

                await until(at_work, "work that is committed")
                victims = (gpu, home)[number % 2]
                try:
                    victims.kill(0)
                except ProcessLookupError:  # it has ended by itself, and its log says why
                    logs = [(tmp_path / f"{name}.log").read_text()[-4000:] for name in ("home", "gpu")]
                    pytest.fail("\n".join(logs))
                await victims.start()
            found = await until_judged(bus, unique, len(VALUES) * KILLS * ROUND // WINDOW)
        records = await settled(bus, topic(unique, "inferences"))
    requests = {
        one.id: int(one.request_id.split("-")[1]) for one in (decode(Inference, r.value or b"") for r in records)
    }
    for step, (name, times) in VALUES.items():
        rows = [each for one in found if one.step == step for each in one.instances]
        judged = [requests[each.instance_id.removesuffix("/0")] for each in rows]
        assert sorted(judged) == list(range(KILLS * ROUND))
        detector = plugin(DETECTORS, "isolation_forest").load(folder / name)
        expected = detector.score(frame_of(detector.schema, times * np.array(judged, dtype=np.float64))).scores
        np.testing.assert_allclose([each.score for each in rows], expected)


async def ends(bus: Bus, namespace: str) -> int:
    name = topic(namespace, "checkpoints")
    return sum([await bus.end_offset(Partition(name, number)) for number in range(2)])


@pytest.fixture
async def fleet_bus(embedded_url: str, unique: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bus]:
    monkeypatch.setattr(follower, "LOOK_EVERY_S", 0.1)
    async with open_bus(embedded_url) as bus:
        await bus.ensure_topics(specs(unique, partitions=1))
        yield bus


async def test_workers_of_two_placements_run_a_pipeline_of_their_fleet(
    fleet_bus: Bus, unique: str, folder: Path, tmp_path: Path
) -> None:
    documented = load_documented(write(folder, unique))
    fleet = Fleet(fleet_bus, unique, actor="test")
    assert await fleet.apply([pack(one) for one in documented]) == {"p": "created"}
    assert await fleet.apply([pack(one) for one in documented]) == {"p": "unchanged"}
    taken = folder / f"{unique}-taken.yaml"
    whole = write(folder, unique, placed=False).read_text()
    taken.write_text(whole.replace("{name: p,", "{name: p-net,").replace("p.inputs.x", "p-net.inputs.x"))
    named = [pack(one) for one in load_documented(taken)]
    with pytest.raises(ConfigError, match="'p-net' cannot be applied") as refused:
        await fleet.apply(named)
    assert "pipeline 'p' is cut" in refused.value.why
    (entry,) = (await fleet.entries()).values()
    assert (entry.name, entry.service, entry.model) == ("p", "shop", "price")
    assert {path.split("/")[0] for path in entry.files if "/" in path} == {"x", "net", "sum"}
    await publish(fleet_bus, unique, range(REQUESTS))
    stop = asyncio.Event()
    running: dict[str, Worker] = {}
    with contextlib.ExitStack() as shelves:
        async with contextlib.AsyncExitStack() as following, asyncio.TaskGroup() as group:
            for placement in ("", "gpu"):
                together = Together(lambda names: None)
                followed = Follower(
                    fleet_bus, unique, shelves.enter_context(shelf(tmp_path / f"at-{placement}")), placement
                )
                reporter = Reporter(Metrics(CollectorRegistry()))
                running[placement] = worker = Worker(
                    bus=fleet_bus,
                    namespace=unique,
                    pipelines=together.fleet(await followed.start()),
                    reporter=reporter,
                    placement=placement,
                )

                def take_over(found: Following, worker: Worker = worker, together: Together = together) -> None:
                    worker.take_over(together.fleet(found))

                await following.enter_async_context(followed.following(take_over))
                group.create_task(worker.run(stop))
            found = await until_judged(fleet_bus, unique, len(VALUES) * REQUESTS // WINDOW)
            assert {(one.step, one.pipeline) for one in found} == set(PARTS.items())
            await fleet.delete(["p"])
            assert await fleet.apply(named) == {"p-net": "created"}
            with pytest.raises(ConfigError, match="'p' cannot be applied"):
                await fleet.apply([pack(one) for one in documented])
            await fleet.delete(["p-net"])

            async def gone() -> bool:
                await asyncio.sleep(0.05)
                changes = [decode(ConfigChange, one.value or b"") for one in await settled(fleet_bus, config)]
                removed = {one.subject for one in changes if one.action == "removed"}
                return removed == {f"pipeline/{name}" for name in ("p", "p-net", "p-odd", "p-sum", "p-high")}

            config = topic(unique, "config")
            await until(gone, "all parts gone")
            stop.set()


def test_a_pipeline_of_a_file_that_has_a_parts_name_keeps_the_whole_of_the_fleets_out(
    folder: Path, unique: str
) -> None:
    parts = load(write(folder, unique))
    (own,) = load(write(folder, unique, placed=False))
    own = replace(own, plan=replace(own.plan, name="p-net"))
    refused: list[frozenset[str]] = []
    together = Together(refused.append)
    together.files([own])
    assert [one.plan.name for one in together.fleet(Following(tuple(parts), frozenset()))] == ["p-net"]
    assert refused[-1] == {"p"}


def test_a_part_of_the_fleet_never_takes_the_name_of_another(folder: Path, unique: str) -> None:
    parts, refused = load(write(folder, unique)), list[frozenset[str]]()
    (other,) = load(write(folder, unique, placed=False))
    other = replace(other, plan=replace(other.plan, name="p-net"))
    for order in ((*parts, other), (other, *parts)):
        assert [one.plan.name for one in Together(refused.append).fleet(Following(order, frozenset()))] == ["p-net"]
        assert refused[-1] == {"p"}


def test_what_runs_elsewhere_need_not_be_here(folder: Path, unique: str) -> None:
    file = write(folder, unique)
    text = file.read_text()
    file.write_text(text.replace("combiner: {method: mean, output: net}", "transformer: {callable: 'nowhere:net'}"))
    with pytest.raises(ConfigError, match="nowhere"):
        load(file, placement="gpu")
    assert [one.flow is not None for one in load(file, placement="") if one.plan.name in ("p-net", "p-sum")] == [
        False,
        True,
    ]
