"""The dead letters of a namespace, for the person on call: to read, and to give back."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
from msgspec.structs import replace

from govern import record as records
from govern.bus import Bus, Outgoing, Partition
from govern.bus.protocol import UnknownTopic
from govern.bus.topics import Stream, topic
from govern.codecs import cloudevents
from govern.errors import BadInput, NotFound
from govern.ids import uuid7
from govern.record import ConfigChange, DeadLetter
from govern.runtime import retry

#: What can be given back: consumers of these topics know a retried message.
_RETRIED: Final[tuple[Stream, ...]] = ("inferences", "explain-requests")
#: Messages of one transaction: bounds what is held in memory, and stays far below Kafka's transaction timeout.
_BATCH: Final = 200


class Retried(msgspec.Struct, frozen=True, kw_only=True):
    """When a letter was given back, nanoseconds since the Unix epoch, and by whom."""

    t: int
    actor: str


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter as it lies in its topic.

    Attributes:
        offset: in the dead-letter topic.
        retried: the last time that it was given back; None = never.
    """

    record: DeadLetter
    offset: int
    retried: Retried | None


@dataclass(slots=True)
class Outcome:
    """What became of letters that were to be retried: given back, or left where they are and why."""

    given_back: list[Letter] = field(default_factory=list)
    left: list[tuple[Letter, str]] = field(default_factory=list)


class Letters:
    """
    Args:
        bus: entered by the caller.
        actor: who reads and retries; it goes on record.
    """

    def __init__(self, bus: Bus, namespace: str, *, actor: str) -> None:
        self._bus = bus
        self._namespace = namespace
        self._actor = actor
        self._place = Partition(topic(namespace, "dead-letter"), 0)
        self._positions = Partition(topic(namespace, "positions"), 0)

    async def all(self) -> AsyncIterator[Letter]:
        """Every letter that the topic still has, the oldest first.

        Raises:
            UnknownTopic: the namespace has no topics.
        """
        retried = _retried(await self._bus.read_table(self._positions))
        start = await self._bus.start_offset(self._place)
        while messages := await self._bus.read(self._place, start):
            for message in messages:
                record = records.decode(DeadLetter, message.value or b"")
                yield Letter(record, message.offset, retried.get(record.id))
            start = messages[-1].offset + 1

    async def one(self, letter_id: str) -> Letter:
        """The letter with an id, or with an id that begins so.

        Raises:
            NotFound: there is none, or it was deleted by the topic's retention.
            BadInput: several ids begin so.
        """
        found = {one.record.id: one async for one in self.all() if one.record.id.startswith(letter_id)}
        if not found:
            raise NotFound(
                f"dead letter {letter_id!r}",
                why=f"topic {self._place.topic} has none whose id begins so",
                fix="list them with `govern dlq ls`; the topic keeps them for a limited time, the audit log for longer",
            )
        if len(found) > 1:
            raise BadInput(
                f"dead letter {letter_id!r}",
                why=f"the ids of {len(found)} letters begin so",
                fix=f"give more of it: {', '.join(sorted(found)[:5])}",
            )
        return next(iter(found.values()))

    async def retry(self, letters: Sequence[Letter], *, again: bool = False) -> Outcome:
        """Give letters back to their topics, each once: message, mark and entry for the audit log are one transaction.

        Args:
            again: also those that were given back before.

        Raises:
            Fenced: somebody else retries in this namespace at the same moment.
        """
        transactor = await self._bus.transactor(f"govern-dlq.{self._namespace}")
        try:
            # After the fence: what another process gave back meanwhile is seen.
            retried = _retried(await self._bus.read_table(self._positions))
            outcome = Outcome()
            batch: list[tuple[Letter, Outgoing]] = []
            for letter in {one.record.id: one for one in letters}.values():
                before = retried.get(letter.record.id)
                if before is not None and not again:
                    outcome.left.append((letter, f"it was given back before, by {before.actor}"))
                    continue
                try:
                    batch.append((letter, await self._original(letter.record)))
                except BadInput as error:
                    outcome.left.append((letter, error.why))
            marks = await self._marks_of_gone(retried)
            for start in range(0, len(batch), _BATCH):
                part = batch[start : start + _BATCH]
                async with transactor.transaction() as transaction:
                    for letter, message in part:
                        await transaction.publish(letter.record.source_topic, [message])
                    marks += [self._mark(letter) for letter, _ in part]
                    await transaction.publish(self._positions.topic, marks)
                    changes = [
                        cloudevents.to_message(self._change(one.record), source="/govern/dlq") for one, _ in part
                    ]
                    await transaction.publish(topic(self._namespace, "config"), changes)
                marks = []
                outcome.given_back += [letter for letter, _ in part]
            return outcome
        finally:
            await transactor.close()

    async def _original(self, letter: DeadLetter) -> Outgoing:
        """
        Raises:
            BadInput: the letter cannot be given back, for the reason that the error states.
        """
        if letter.source_topic not in [topic(self._namespace, stream) for stream in _RETRIED]:
            fix = "give it to the command that read it once more"
            raise BadInput(f"dead letter {letter.id}", why=f"it comes from {letter.source_topic}", fix=fix)
        if not letter.value and "window" in letter.headers:
            raise BadInput(
                f"dead letter {letter.id}",
                why="it is a window that a detector could not judge; its rows are in the topic, and were counted",
                fix="mend the detector; later windows are judged by it",
            )
        if len(letter.value) < letter.value_size:
            letter = replace(letter, value=await self._from_source(letter) or letter.value)
        return retry.to_message(letter)

    async def _from_source(self, letter: DeadLetter) -> bytes | None:
        place = Partition(letter.source_topic, letter.source_partition)
        try:
            found = await self._bus.read(place, letter.source_offset, max_messages=1)
        except UnknownTopic:
            return None
        return found[0].value if found and found[0].offset == letter.source_offset else None

    async def _marks_of_gone(self, retried: Mapping[str, Retried]) -> list[Outgoing]:
        """Tombstones of the marks whose letters the topic's retention has deleted."""
        if not retried:
            return []
        there = {letter.record.id async for letter in self.all()}
        return [Outgoing(key=_KEY + name.encode(), value=None) for name in retried if name not in there]

    def _mark(self, letter: Letter) -> Outgoing:
        value = msgspec.json.encode(Retried(t=time.time_ns(), actor=self._actor))
        return Outgoing(key=_KEY + letter.record.id.encode(), value=value)

    def _change(self, letter: DeadLetter) -> ConfigChange:
        step = f"/{letter.step}" if letter.step else ""
        return ConfigChange(
            schema_version=records.SCHEMA_VERSION,
            id=uuid7(),
            namespace=self._namespace,
            subject=f"dead-letter/{letter.id}",
            action="retried",
            actor=self._actor,
            t_change=time.time_ns(),
            detail=f"{letter.source_topic}[{letter.source_partition}]@{letter.source_offset} "
            f"for {f'pipeline {letter.pipeline}{step}' if letter.pipeline else 'every pipeline'}",
        )


_KEY: Final = b"dead-letter/"


def _retried(table: dict[bytes, bytes]) -> dict[str, Retried]:
    return {
        key.removeprefix(_KEY).decode(): msgspec.json.decode(value, type=Retried)
        for key, value in table.items()
        if key.startswith(_KEY)
    }
