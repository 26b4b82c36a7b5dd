"""Past verdicts and the inferences that they name, as the topics still have them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from govern import record as records
from govern.bus import Bus, Message, Partition
from govern.bus.topics import topic
from govern.record import Verdict
from govern.runtime.checkpoint import split_placement
from govern.runtime.flows import Flows
from govern.runtime.loader import LoadedPipeline
from govern.runtime.memory import known
from govern.runtime.plans import PlanState, is_plan, read_plans
from govern.runtime.recall import Line, Recall, Stored, Way, place, remembering
from govern.runtime.replay import Replayed, replay
from govern.runtime.watched import Failed, Ran

#: How long a model that is to be asked again may be away, seconds: somebody waits for the answer.
_PATIENCE_S: Final = 10.0
#: Messages of a checkpoint in one read: at half a megabyte each, 50 MB.
_CHECKPOINT_MESSAGES: Final = 100


class Past:
    """
    Args:
        bus: entered by the caller.
    """

    def __init__(self, bus: Bus, namespace: str) -> None:
        self._bus = bus
        self._namespace = namespace

    async def verdicts(self, wanted: Callable[[Verdict], bool]) -> list[Verdict]:
        """Those of the recorded verdicts that are wanted, in the order of their windows.

        Raises:
            UnknownTopic: the namespace has no topics.
        """
        found = []
        name = topic(self._namespace, "verdicts")
        for number in range(await self._bus.partitions(name)):
            partition = Partition(name, number)
            start = await self._bus.start_offset(partition)
            while messages := await self._bus.read(partition, start):
                decoded = [records.decode(Verdict, message.value or b"") for message in messages]
                found += [verdict for verdict in decoded if wanted(verdict)]
                start = messages[-1].offset + 1
        return sorted(found, key=place)

    async def replay(
        self, verdicts: Sequence[Verdict], pipelines: Mapping[str, LoadedPipeline]
    ) -> AsyncIterator[Replayed]:
        """Each verdict computed once more. Given in the order of `verdicts()`, each record is read once.

        Models are asked again whose answers a step had judged. Memory holds the records, and what was answered, from
        the beginning of the window at hand to the end of the longest one so far. Where a detector remembers, the
        windows before are gone through, too, as far back as a memory is known.
        """
        flows = {name: Flows([one], patience_s=_PATIENCE_S) for name, one in pipelines.items() if one.flow is not None}
        plans: dict[int, dict[str, PlanState]] = {}
        asked = frozenset(one.id for one in verdicts)
        recall, before = await self._recalled(verdicts, pipelines)
        way = sorted((*(one for one in before if one.id not in asked), *verdicts), key=place)
        try:
            async for one in self._replay(way, pipelines, flows, recall):
                if one.recorded.id not in asked:
                    continue
                name, where = one.recorded.pipeline, one.recorded.window
                if where.partition not in plans:
                    plans[where.partition] = await self._plans(where.partition)
                plan = plans[where.partition].get(name)
                yield replace(
                    one,
                    recorded_plan=plan.at(where.last_offset) if plan is not None else "",
                    replayed_plan=pipelines[name].plan.digest if name in pipelines else "",
                )
        finally:
            for each in flows.values():
                await each.close()

    async def _plans(self, partition: int) -> dict[str, PlanState]:
        """What the checkpoint of a partition says of plans; the windows in it pass by."""
        newest: dict[bytes, bytes] = {}
        async for messages in self._checkpoint(partition):
            found = ((split_placement(one.key)[1], one.value) for one in messages)
            newest.update((key, value) for key, value in found if is_plan(key) and value is not None)
        return read_plans(newest)

    async def _memories(self, partition: int) -> AsyncIterator[tuple[str, bytes]]:
        """What the checkpoint of a partition has of memories, each with its digest."""
        stored = Stored()
        async for messages in self._checkpoint(partition):
            for one in stored.take(messages):
                yield one
        for one in stored.rest():
            yield one

    async def _checkpoint(self, partition: int) -> AsyncIterator[Sequence[Message]]:
        """All that the topic has of a partition, values that were replaced since included."""
        where = Partition(topic(self._namespace, "checkpoints"), partition)
        start = await self._bus.start_offset(where)
        while messages := await self._bus.read(where, start, max_messages=_CHECKPOINT_MESSAGES):
            yield messages
            start = messages[-1].offset + 1

    async def _recalled(
        self, verdicts: Sequence[Verdict], pipelines: Mapping[str, LoadedPipeline]
    ) -> tuple[Recall, Sequence[Verdict]]:
        """What is known of the memories that verdicts rest on, and the verdicts to go through."""
        detectors = {
            Line.of(one): detector
            for one in verdicts
            if one.memory_digest and (detector := remembering(one, pipelines)) is not None
        }
        if not detectors:
            return Recall(), ()
        last = {Line.of(one): place(one) for one in verdicts}
        lines: dict[Line, dict[str, Verdict]] = {}
        for one in await self.verdicts(lambda one: Line.of(one) in detectors and place(one) <= last[Line.of(one)]):
            lines.setdefault(Line.of(one), {})[one.id] = one
        asked = frozenset(one.id for one in verdicts)
        ways: dict[Line, Way] = {}
        for line, found in lines.items():
            kept_from = await self._bus.start_offset(Partition(line.topic, line.partition))
            first = known(None, detectors[line]).digest
            ways[line] = Way(list(found.values()), asked, kept_from=kept_from, first=first)
        for partition in {line.partition for line in ways}:
            theirs = [way for line, way in ways.items() if line.partition == partition]
            async for digest, packed in self._memories(partition):
                for way in theirs:
                    way.offer(digest, packed)
        stored = dict(way.stored for way in ways.values() if way.stored is not None)
        return Recall(stored), [one for way in ways.values() for one in way.verdicts]

    async def _replay(
        self,
        verdicts: Sequence[Verdict],
        pipelines: Mapping[str, LoadedPipeline],
        flows: Mapping[str, Flows],
        recall: Recall,
    ) -> AsyncIterator[Replayed]:
        seen: set[str] = set()
        partition, held, kept_from = None, list[Message](), 0
        outcomes: dict[tuple[str, int], Ran | Failed] = {}
        for verdict in verdicts:
            where = verdict.window
            if partition != (where.topic, where.partition):
                partition, held, outcomes = Partition(where.topic, where.partition), [], {}
                kept_from = await self._bus.start_offset(partition)
            held = [one for one in held if one.offset >= where.first_offset]
            start = held[-1].offset + 1 if held else max(kept_from, where.first_offset)
            while start <= where.last_offset and (more := await self._bus.read(partition, start)):
                held += more
                start = more[-1].offset + 1
            if verdict.id in seen:
                yield Replayed(verdict, "doubled", "the topic has a verdict of this id twice")
                continue
            seen.add(verdict.id)
            outcomes = {key: found for key, found in outcomes.items() if key[1] >= where.first_offset}
            if verdict.pipeline in flows and verdict.step in pipelines[verdict.pipeline].fed:
                new = [one for one in held if (verdict.pipeline, one.offset) not in outcomes]
                outcomes.update(
                    await flows[verdict.pipeline].run([one for one in new if one.offset <= where.last_offset])
                )
            yield replay(verdict, held, pipelines, kept_from=kept_from, outcomes=outcomes, recall=recall)
