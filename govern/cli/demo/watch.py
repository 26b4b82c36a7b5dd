"""What is on the bus so far: the demo reads the topics like any other consumer, outside every group."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from govern.bus import Bus, Partition
from govern.bus.topics import AUDITED, topic
from govern.codecs import cloudevents
from govern.record import DeadLetter, Explanation, Inference, Verdict

#: Between two looks.
LOOK_S: Final = 0.25
_PAGE: Final = 2000


class Place(NamedTuple):
    """Of a message in its topic."""

    partition: int
    offset: int


@dataclass(slots=True)
class Seen:
    """What was read.

    Attributes:
        captured: request id -> how many inferences bear it. Traffic of explainers is left out.
        requests: where an inference lies on the bus -> its request id.
        lost: capture agent -> inferences that it says it dropped.
        statuses: HTTP status -> inferences.
        flags: step -> request id of each flagged row -> its score.
        judged, flagged: step -> rows.
        audited: records that belong into the audit log.
    """

    audited: int = 0
    captured: Counter[str] = field(default_factory=Counter)
    requests: dict[Place, str] = field(default_factory=dict)
    statuses: Counter[int] = field(default_factory=Counter)
    lost: dict[str, int] = field(default_factory=dict)
    synthetic: int = 0
    verdicts: list[Verdict] = field(default_factory=list)
    explanations: list[Explanation] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    flags: dict[str, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))
    judged: Counter[str] = field(default_factory=Counter)
    flagged: Counter[str] = field(default_factory=Counter)

    @property
    def drift(self) -> list[Verdict]:
        return [verdict for verdict in self.verdicts if verdict.kind == "drift"]


class Watch:
    """Follows the topics of one namespace."""

    def __init__(self, bus: Bus, namespace: str) -> None:
        self.seen = Seen()
        self._bus = bus
        self._namespace = namespace
        self._positions: dict[Partition, int] = {}

    async def follow(self) -> None:
        """Read for ever."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Read to the end of every topic."""
        for stream in AUDITED:
            name = topic(self._namespace, stream)
            for number in range(await self._bus.partitions(name)):
                await self._read(Partition(name, number))

    async def _read(self, partition: Partition) -> None:
        while True:
            position = self._positions.get(partition, 0)
            messages = await self._bus.read(partition, position, max_messages=_PAGE)
            for message in messages:
                self._take(cloudevents.from_message(message), Place(message.partition, message.offset))
                self._positions[partition] = message.offset + 1
            if len(messages) < _PAGE:
                return

    def _take(self, record: object, place: Place) -> None:
        seen = self.seen
        seen.audited += 1
        if isinstance(record, Inference):
            seen.lost[record.capture.agent] = max(seen.lost.get(record.capture.agent, 0), record.capture.dropped_before)
            if record.synthetic:
                seen.synthetic += 1
            else:
                seen.captured[record.request_id] += 1
                seen.requests[place] = record.request_id
                seen.statuses[record.status_code] += 1
        elif isinstance(record, Verdict):
            seen.verdicts.append(record)
            seen.judged[record.step] += record.window.n_instances
            for instance in record.instances:
                if instance.flagged:
                    seen.flags[record.step][instance.request_id] = instance.score
                    seen.flagged[record.step] += 1
        elif isinstance(record, Explanation):
            seen.explanations.append(record)
        elif isinstance(record, DeadLetter):
            seen.dead_letters.append(record)
