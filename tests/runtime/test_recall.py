"""Past verdicts of a detector that remembers: the same bits again, or what it is that nobody knows any more."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace as with_fields
from pathlib import Path

import pytest
from msgspec.structs import replace

from govern.bus import Bus, Outgoing, Partition, open_bus
from govern.bus.embedded import EmbeddedBus
from govern.bus.topics import RETENTION_MS, specs, topic
from govern.codecs import cloudevents
from govern.record import Verdict
from govern.runtime.limits import to_message
from govern.runtime.loader import LoadedPipeline
from govern.runtime.past import Past
from govern.runtime.replay import Replayed
from govern.runtime.task import PartitionTask
from tests.bus.helpers import settled
from tests.bus.test_embedded import Clock
from tests.runtime.conftest import START_NS, Make
from tests.runtime.remembering import Remembering

INFERENCES = Partition(topic("default", "inferences"), 0)
DAY_NS = 24 * 3600 * 10**9
STEP_NS = 2 * 3600 * 10**9
#: One in two hours, so that the stream goes through four days (UTC), of two revisions.
CALLS = 36
#: Those of its first day.
FIRST_DAY = sum((START_NS + i * STEP_NS) // DAY_NS == START_NS // DAY_NS for i in range(CALLS))
Change = Callable[[list[Verdict]], Sequence[Verdict]]


@pytest.fixture
def remembering(pipeline: LoadedPipeline) -> LoadedPipeline:
    steps = tuple(with_fields(one, batch_size=5) for one in pipeline.plan.steps if one.name == "outlier")
    plan = with_fields(pipeline.plan, steps=steps)
    return with_fields(pipeline, plan=plan, detectors={"outlier": Remembering(pipeline.schema, refuses=True)})


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[Bus]:
    async with open_bus(f"embedded://{tmp_path / 'bus.db'}") as connection:
        await connection.ensure_topics(specs("default", partitions=1))
        yield connection


async def record(
    bus: Bus,
    loaded: LoadedPipeline,
    make: Make,
    change: Change = list,
    *,
    clock: Clock | None = None,
    committing: bool = True,
) -> list[Verdict]:
    """What a worker would have left on the bus, in commits of seven messages; the verdicts as they are then.

    Args:
        clock: goes on by two seconds after the calls of the first day.
        committing: whether the checkpoint is left, too.
    """
    for i in range(CALLS):
        call = make(i, rows=1 + i % 4, revision=str(i % 2), t_response=START_NS + i * STEP_NS)
        await bus.publish(INFERENCES.topic, [cloudevents.to_message(call, source="/test")])
        if clock is not None and i == FIRST_DAY - 1:
            clock.now_s += 2
    task, found = PartitionTask(INFERENCES, "default", [loaded]), list[Verdict]()
    messages = await settled(bus, INFERENCES.topic)
    for start in range(0, len(messages), 7):
        found += [one.verdict for one in task.process(messages[start : start + 7]).judgements]
        state = [Outgoing(key=key, value=value, partition=0) for key, value in task.changed_state()]
        await bus.publish(topic("default", "checkpoints"), state if committing else [])
    said = list(change(found))
    await bus.publish(topic("default", "verdicts"), [to_message(one, source="/test") for one in said])
    return said


async def replayed(bus: Bus, loaded: LoadedPipeline, *ids: str) -> dict[str, Replayed]:
    past = Past(bus, "default")
    verdicts = await past.verdicts(lambda one: not ids or one.id in ids)
    return {one.recorded.id: one async for one in past.replay(verdicts, {"watch": loaded})}


async def test_any_verdict_is_computed_again_by_going_through_those_before(
    bus: Bus, remembering: LoadedPipeline, make_inference: Make
) -> None:
    recorded = await record(bus, remembering, make_inference)
    assert len(recorded) > 12
    assert len({one.memory_digest for one in recorded}) == len(recorded) - 1, "both revisions begin with the same"
    found = await replayed(bus, remembering)
    assert [(one.outcome, one.why) for one in found.values()] == [("identical", "")] * len(recorded)
    for one in (recorded[0], recorded[-1], recorded[len(recorded) // 2]):
        alone = await replayed(bus, remembering, one.id)
        assert [(id_, again.outcome) for id_, again in alone.items()] == [(one.id, "identical")]


def of_revision(recorded: Sequence[Verdict], revision: str = "0") -> list[Verdict]:
    return [one for one in recorded if one.revision == revision]


async def test_what_was_altered_is_told_of_its_verdict_alone(
    bus: Bus, remembering: LoadedPipeline, make_inference: Make
) -> None:
    """Be it what the detector said or what it rests on; and a second verdict of a window leads nobody astray."""

    def change(recorded: list[Verdict]) -> list[Verdict]:
        second, third, fourth = of_revision(recorded)[1:4]
        forged = {
            second.id: replace(second, alarm=not second.alarm),
            third.id: replace(third, memory_digest="0" * 64),
        }
        twice = replace(fourth, id="another", alarm=not fourth.alarm)
        return [*(forged.get(one.id, one) for one in recorded), twice]

    recorded = await record(bus, remembering, make_inference, change)
    second, third = of_revision(recorded)[1:3]
    found = await replayed(bus, remembering)
    assert {id_: one.outcome for id_, one in found.items() if one.outcome != "identical"} == {
        second.id: "values",
        third.id: "memory",
        "another": "values",
    }
    assert [one.field for one in found[second.id].differences] == ["alarm"]
    assert found[third.id].why.startswith("it rests on memory 000000000000, the windows before give ")


async def test_a_verdict_that_is_gone_makes_those_after_it_unknown_until_a_memory_is_known(
    bus: Bus, remembering: LoadedPipeline, make_inference: Make
) -> None:
    def change(recorded: list[Verdict]) -> list[Verdict]:
        gone = of_revision(recorded)[1].id
        return [one for one in recorded if one.id != gone]

    recorded = await record(bus, remembering, make_inference, change)
    found = [one.outcome for one in (await replayed(bus, remembering)).values() if one.recorded.revision == "0"]
    assert found[:2] == ["identical", "memory"]
    others = {one.outcome for one in (await replayed(bus, remembering)).values() if one.recorded.revision == "1"}
    assert others == {"identical"}
    # Asked alone, the last begins with what the checkpoint has of its day.
    last = of_revision(recorded)[-1]
    assert [one.outcome for one in (await replayed(bus, remembering, last.id)).values()] == ["identical"]


@pytest.mark.parametrize("committing", [True, False])
async def test_what_retention_has_deleted_is_not_needed_after_the_next_day_has_begun(
    tmp_path: Path, remembering: LoadedPipeline, make_inference: Make, committing: bool
) -> None:
    """The records of the first day are gone, on which all later verdicts of the partition depend."""
    clock = Clock()
    async with EmbeddedBus(tmp_path / "bus.db", clock=clock) as bus:
        await bus.ensure_topics(specs("default", partitions=1))
        recorded = await record(bus, remembering, make_inference, clock=clock, committing=committing)
        clock.now_s += RETENTION_MS / 1000 - 1
        await bus.publish(INFERENCES.topic, [cloudevents.to_message(make_inference(99), source="/test")])
        assert await bus.start_offset(INFERENCES) == FIRST_DAY
        found = await replayed(bus, remembering)
    for revision in "01":
        mine = [found[one.id] for one in of_revision(recorded, revision)]
        outcomes = [one.outcome for one in mine]
        deleted = outcomes.count("deleted")
        assert outcomes[:deleted] == ["deleted"] * deleted != []
        known = outcomes.index("identical") if committing else len(outcomes)
        assert outcomes[deleted:known] == ["memory"] * (known - deleted)
        assert outcomes[known:] == ["identical"] * (len(outcomes) - known)
        if committing:
            assert mine[known].recorded.window.t_last - START_NS <= 2 * DAY_NS
        else:
            assert all(f"begins at {FIRST_DAY} by now" in one.why for one in mine[deleted:])


async def test_another_detector_is_not_asked(bus: Bus, remembering: LoadedPipeline, make_inference: Make) -> None:
    recorded = await record(bus, remembering, make_inference)
    other = with_fields(remembering, detectors={"outlier": Remembering(remembering.schema, digest="f" * 64)})
    found = await replayed(bus, other)
    assert [(one.outcome, one.differences) for one in found.values()] == [("detector", ())] * len(recorded)
