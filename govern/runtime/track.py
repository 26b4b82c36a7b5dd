"""A track: pipelines of one partition that are judged together, what waits for them, and what waits for its commit.

Work is done in turns. A turn ends by itself when its time is over, between two messages; one that is late (a detector
takes long for a window, or never returns) is left to its thread, and whoever started it sees to the other tracks.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import islice, takewhile
from typing import Final, NamedTuple

from govern.bus import Bus, Message, Partition
from govern.record import DeadLetter
from govern.runtime.flows import Ahead, Flows
from govern.runtime.loader import LoadedPipeline
from govern.runtime.task import Effects, Output, PartitionTask
from govern.runtime.turn import Turn

#: What may wait for a track before its partition is paused; what one poll brings comes on top. Enough for the longest
#: turn, so that a track which keeps up never waits for the bus.
INBOX_MESSAGES: Final = 2000
INBOX_BYTES: Final = 16 * 1024 * 1024
#: The same for a track of one pipeline, of which there may be several: what does not fit is read from the topic again.
OWN_MESSAGES: Final = 500
OWN_BYTES: Final = 4 * 1024 * 1024
#: Bytes of dead letters and outputs that end a turn and are committed at once: they wait in memory, and one transaction
#: carries them. A pipeline for which nothing is readable makes as many as there are.
LETTER_BYTES: Final = 8 * 1024 * 1024


class Track:
    """The work of one task, of which at most one thread is in hand.

    Args:
        flows: run for its messages before they are judged.
        own: it is one pipeline's, and what does not fit its inbox is read from the topic again.
    """

    def __init__(self, task: PartitionTask, flows: Flows, *, own: bool = False) -> None:
        self.task = task
        #: When it had its last turn, among the tracks that take turns with it.
        self.served = 0
        self._ahead = Ahead(flows)
        self.pending = Effects()
        self.uncommitted_since: float | None = None
        self._inbox: deque[Message] = deque()
        self._inbox_bytes = 0
        self._next = 0
        self._own = own
        self._turn: Turn[Effects] | None = None
        self._spent_s: dict[str, float] = {}
        self._reading: asyncio.Task[Reading] | None = None

    def __len__(self) -> int:
        """Messages that wait."""
        return len(self._inbox)

    @property
    def full(self) -> bool:
        messages, length = (OWN_MESSAGES, OWN_BYTES) if self._own else (INBOX_MESSAGES, INBOX_BYTES)
        return len(self._inbox) >= messages or self._inbox_bytes >= length

    @property
    def next(self) -> int:
        """The offset after the last message that waits or has been judged."""
        return max(self._next, self.task.position)

    @property
    def waiting(self) -> Sequence[Message]:
        return tuple(self._inbox)

    @property
    def at_rest(self) -> bool:
        """Whether no thread is at its task: only then may its state be looked at."""
        return self._turn is None

    @property
    def ready(self) -> bool:
        return self.at_rest and bool(self._inbox) and self._ahead.reached(self._inbox[0])

    @property
    def flowing(self) -> bool:
        """Whether flows run, of which nobody is told when they come to rest."""
        return self._ahead.under_way

    @property
    def flow_s(self) -> float:
        """How long what waits has been waiting for flows, seconds; 0 when it does not."""
        return self._ahead.age_s if self._inbox and not self._ahead.reached(self._inbox[0]) else 0.0

    @property
    def laden(self) -> bool:
        """Whether so much is pending that it is not to wait for its commit."""
        return _weight(self.pending.dead_letters, self.pending.outputs) >= LETTER_BYTES

    @property
    def turn_s(self) -> float:
        """How long the turn in hand has lasted, seconds; 0 when there is none."""
        return 0.0 if self._turn is None else self._turn.age_s

    def take(self, message: Message) -> None:
        """Let a message wait, unless it was here before."""
        if message.offset < self.next:
            return
        self._next = message.offset + 1
        self._inbox.append(message)
        self._inbox_bytes += len(message.value or b"")

    def look_ahead(self) -> None:
        """Let flows run for what waits, and take up those that are at rest."""
        if self.at_rest:
            self._ahead.look(self._inbox, self.task.position)

    async def run(self, flows: Flows) -> None:
        """Let these flows run from now on, and go of those that do."""
        if self._ahead.runs(flows):
            return
        await self._ahead.stop()
        self._ahead = Ahead(flows)

    def begin(self, budget_s: float) -> None:
        """Begin a turn over what waits."""
        messages = list(takewhile(self._ahead.reached, islice(self._inbox, INBOX_MESSAGES)))
        work = partial(self.task.process, messages, self._ahead.outcomes, enough=_Enough(budget_s))
        self._turn = Turn(work, name=self._thread)

    def begin_expiry(self, now_ns: int) -> None:
        """Begin a turn that closes the windows whose time is over."""
        self._turn = Turn(partial(self.task.expire, now_ns), name=self._thread)

    def begin_take_over(self, pipelines: Sequence[LoadedPipeline]) -> None:
        """Begin a turn after which these judge in the place of those before."""
        self._turn = Turn(partial(self.task.take_over, pipelines), name=self._thread)

    async def rest(self, timeout_s: float) -> bool:
        """Whether the turn in hand has ended, at the latest after `timeout_s`; what it gave rise to is then pending."""
        if self._turn is None:
            return True
        if not await self._turn.wait(timeout_s):
            return False
        effects, began_s = self._turn.result(), time.monotonic() - self._turn.age_s
        self._turn = None
        moved = bool(self._inbox) and self._inbox[0].offset < self.task.position
        while self._inbox and self._inbox[0].offset < self.task.position:
            self._inbox_bytes -= len(self._inbox.popleft().value or b"")
        self.pending.extend(effects)
        for pipeline, spent_s in effects.spent_s.items():
            self._spent_s[pipeline] = self._spent_s.get(pipeline, 0.0) + spent_s
        # Whoever looked for windows whose time is over, and found none, has nothing to commit.
        if self.uncommitted_since is None and (moved or effects.spent_s):
            self.uncommitted_since = began_s
        return True

    def spent_s(self) -> dict[str, float]:
        """Pipeline -> seconds that it took in the turns since the last call."""
        spent_s, self._spent_s = self._spent_s, {}
        return spent_s

    def touch(self) -> None:
        """Have its state committed, whether or not anything was judged."""
        self.uncommitted_since = self.uncommitted_since or time.monotonic()

    def read(self, bus: Bus) -> None:
        """Fetch what did not fit the inbox, while nothing waits in it."""
        if self._reading is None and self.at_rest and not self._inbox:
            self._reading = asyncio.create_task(_read(bus, self.task.tp, self.next))

    def take_read(self) -> int:
        """Let wait what has been read since; return how many messages are lost: the topic had deleted them.

        Raises:
            BusError: it could not be read.
        """
        if self._reading is None or not self._reading.done() or not self.at_rest:
            return 0
        if self._inbox:
            return 0  # come from the shared track meanwhile, which has gone back: they are judged, and then it is seen
        read, self._reading = self._reading.result(), None
        first = read.messages[0].offset if read.messages else read.kept_from
        lost = max(0, min(first, read.kept_from) - self.next)
        if lost:
            self.pending.extend(self.task.skip(self.next + lost, lost))
            self.touch()
        for message in read.messages:
            self.take(message)
        return lost

    async def close(self) -> None:
        """Stop reading, and let go of the flows that run. The turn in hand is left to itself."""
        await self._ahead.stop()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait({self._reading})

    def committed(self) -> None:
        self.pending = Effects()
        self.uncommitted_since = None

    @property
    def _thread(self) -> str:
        return f"govern-judge-{self.task.tp.partition}"


class Reading(NamedTuple):
    """Messages of a partition, and the offset from which it was kept when they had been read."""

    messages: Sequence[Message]
    kept_from: int


async def _read(bus: Bus, tp: Partition, start: int) -> Reading:
    messages = await bus.read(tp, start, max_messages=OWN_MESSAGES)
    # Only now: what is kept then was there before.
    return Reading(messages, await bus.start_offset(tp))


class _Enough:
    """Whether a turn has done enough: its time is over, or what it gives is as long as one transaction takes."""

    def __init__(self, budget_s: float) -> None:
        self._deadline_s = time.monotonic() + budget_s
        self._letters = self._outputs = 0
        self._bytes = 0

    def __call__(self, effects: Effects) -> bool:
        self._bytes += _weight(effects.dead_letters[self._letters :], effects.outputs[self._outputs :])
        self._letters, self._outputs = len(effects.dead_letters), len(effects.outputs)
        return self._bytes >= LETTER_BYTES or time.monotonic() >= self._deadline_s


def _weight(letters: Iterable[DeadLetter], outputs: Iterable[Output]) -> int:
    bodies = (len(one.record.request.body) + len(one.record.response.body) for one in outputs)
    return sum(len(one.value) for one in letters) + sum(bodies)
