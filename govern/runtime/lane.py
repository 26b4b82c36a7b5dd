"""A lane: pipelines of one partition that are judged together, what waits for them, and what waits for its commit.

Work is done in turns. A turn ends by itself when its time is over, between two messages; one that is late (a detector
takes long for a window, or never returns) is left to its thread, and whoever started it sees to the other lanes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import islice, takewhile
from typing import Final

from govern.bus import Message
from govern.record import DeadLetter
from govern.runtime.flows import Ahead, Flows
from govern.runtime.loader import LoadedPipeline
from govern.runtime.task import Effects, Output, PartitionTask
from govern.runtime.turn import Turn

#: What may wait for a lane before its partition is paused; what one poll brings comes on top. Enough for the longest
#: turn, so that a lane which keeps up never waits for the bus.
INBOX_MESSAGES: Final = 2000
INBOX_BYTES: Final = 16 * 1024 * 1024
#: Bytes of dead letters and outputs that end a turn and are committed at once: they wait in memory, and one transaction
#: carries them. A pipeline for which nothing is readable makes as many as there are.
LETTER_BYTES: Final = 8 * 1024 * 1024


class Lane:
    """The work of one task, of which at most one thread is in hand.

    Args:
        flows: run for its messages before they are judged.
    """

    def __init__(self, task: PartitionTask, flows: Flows) -> None:
        self.task = task
        self._ahead = Ahead(flows)
        self.pending = Effects()
        self.uncommitted_since: float | None = None
        self._inbox: deque[Message] = deque()
        self._inbox_bytes = 0
        self._next = 0
        self._turn: Turn[Effects] | None = None

    def __len__(self) -> int:
        """Messages that wait."""
        return len(self._inbox)

    @property
    def full(self) -> bool:
        return len(self._inbox) >= INBOX_MESSAGES or self._inbox_bytes >= INBOX_BYTES

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
    def laden(self) -> bool:
        """Whether so much is pending that it is not to wait for its commit."""
        return _weight(self.pending.dead_letters, self.pending.outputs) >= LETTER_BYTES

    @property
    def turn_s(self) -> float:
        """How long the turn in hand has lasted, seconds; 0 when there is none."""
        return 0.0 if self._turn is None else self._turn.age_s

    def take(self, message: Message) -> None:
        """Let a message wait, unless it was here before."""
        if message.offset < max(self._next, self.task.position):
            return
        self._next = message.offset + 1
        self._inbox.append(message)
        self._inbox_bytes += len(message.value or b"")

    def look_ahead(self) -> None:
        """Let flows run for what waits, and take up those that are at rest."""
        if self.at_rest:
            self._ahead.look(self._inbox, self.task.position)

    async def stop(self) -> None:
        """Let go of the flows that run."""
        await self._ahead.stop()

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
        effects, self._turn = self._turn.result(), None
        moved = bool(self._inbox) and self._inbox[0].offset < self.task.position
        while self._inbox and self._inbox[0].offset < self.task.position:
            self._inbox_bytes -= len(self._inbox.popleft().value or b"")
        self.pending.extend(effects)
        # Whoever looked for windows whose time is over, and found none, has nothing to commit.
        if self.uncommitted_since is None and (moved or effects.spent_s):
            self.uncommitted_since = time.monotonic()
        return True

    def committed(self) -> None:
        self.pending = Effects()
        self.uncommitted_since = None

    @property
    def _thread(self) -> str:
        return f"govern-judge-{self.task.tp.partition}"


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
