"""A lane: pipelines of one partition that are judged together, what waits for them, and what waits for its commit.

Work is done in turns. A turn ends by itself when its time is over, between two messages; one that is late (a detector
takes long for a window, or never returns) is left to its thread, and whoever started it sees to the other lanes.
"""

from __future__ import annotations

import time
from collections import deque
from functools import partial
from itertools import islice
from typing import Final

from govern.bus import Message
from govern.runtime.task import Effects, PartitionTask
from govern.runtime.turn import Turn

#: What may wait for a lane before its partition is paused; what one poll brings comes on top. Enough for the longest
#: turn, so that a lane which keeps up never waits for the bus.
INBOX_MESSAGES: Final = 2000
INBOX_BYTES: Final = 16 * 1024 * 1024
#: Original bytes of dead letters that end a turn and are committed at once: they wait in memory, and one transaction
#: carries them. A pipeline for which nothing is readable makes as many as there are.
LETTER_BYTES: Final = 8 * 1024 * 1024


class Lane:
    """The work of one task, of which at most one thread is in hand."""

    def __init__(self, task: PartitionTask) -> None:
        self.task = task
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
        return self.at_rest and bool(self._inbox)

    @property
    def laden(self) -> bool:
        """Whether so much is pending that it is not to wait for its commit."""
        return sum(len(one.value) for one in self.pending.dead_letters) >= LETTER_BYTES

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

    def begin(self, budget_s: float) -> None:
        """Begin a turn over what waits."""
        messages = list(islice(self._inbox, INBOX_MESSAGES))
        self._turn = Turn(partial(self.task.process, messages, enough=_Enough(budget_s)), name=self._thread)

    def begin_expiry(self, now_ns: int) -> None:
        """Begin a turn that closes the windows whose time is over."""
        self._turn = Turn(partial(self.task.expire, now_ns), name=self._thread)

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
    """Whether a turn has done enough: its time is over, or its dead letters are as long as one transaction takes."""

    def __init__(self, budget_s: float) -> None:
        self._deadline_s = time.monotonic() + budget_s
        self._letters = 0
        self._letter_bytes = 0

    def __call__(self, effects: Effects) -> bool:
        self._letter_bytes += sum(len(one.value) for one in effects.dead_letters[self._letters :])
        self._letters = len(effects.dead_letters)
        return self._letter_bytes >= LETTER_BYTES or time.monotonic() >= self._deadline_s
