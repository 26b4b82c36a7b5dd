"""Which halves wait, and which inferences are done: the state that the journal makes last. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from govern.mirror.sink.half import Half
from govern.mirror.sink.journal import Arrived, Entry, Placed, Settled, Undone

#: What a settled inference takes in the journal, about.
_SETTLED_BYTES: Final = 120


class Standing(Enum):
    """What a half is to the ledger."""

    FIRST = "the first of its inference"
    SECOND = "the one that another waits for"
    LATE = "its inference was recorded without it"
    AGAIN = "delivered before"


@dataclass(slots=True)
class Waiting:
    """An inference that is not recorded yet.

    Attributes:
        since: when its first half came, by the clock that the ledger is told.
        alone: nothing will come any more: it is recorded with what it has.
    """

    since: float
    halves: list[Half] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    n_bytes: int = 0
    alone: bool = False

    @property
    def complete(self) -> bool:
        return self.alone or len(self.halves) == 2 or self.halves[0].side == "feedback"


@dataclass(slots=True)
class _Done:
    since: float
    sides: tuple[str, ...]
    segment: int


class Ledger:
    """Bounded by what its user lets in; of what is done it remembers the newest.

    Args:
        remembered: how many inferences that are done.
        remember_s: for how long.
    """

    def __init__(self, *, remembered: int, remember_s: float) -> None:
        self._remembered = remembered
        self._remember_s = remember_s
        #: In the order of their first halves.
        self.waiting: dict[str, Waiting] = {}
        self._done: dict[str, _Done] = {}
        self._in_doubt: Settled | None = None
        self._doubt_segment = 0
        #: Of the halves' bodies.
        self.body_bytes = 0
        self._frame_bytes = 0
        #: Entries of each segment that are still needed.
        self._needed: dict[int, int] = {}

    @property
    def halves(self) -> int:
        return sum(len(waiting.halves) for waiting in self.waiting.values())

    @property
    def needed_bytes(self) -> int:
        """What of the journal is still needed, about."""
        return self._frame_bytes + _SETTLED_BYTES * len(self._done)

    def standing(self, half: Half) -> Standing:
        waiting = self.waiting.get(half.key)
        if waiting is not None:
            return Standing.AGAIN if any(half.side == known.side for known in waiting.halves) else Standing.SECOND
        done = self._done.get(half.key)
        if done is None:
            return Standing.FIRST
        return Standing.AGAIN if half.side in done.sides else Standing.LATE

    def arrive(self, placed: Placed, half: Half, now: float) -> Waiting:
        """A half is in the journal."""
        waiting = self.waiting.get(half.key)
        if waiting is None:
            waiting = self.waiting[half.key] = Waiting(now, alone=half.key in self._done)
        waiting.halves.append(half)
        waiting.segments.append(placed.segment)
        waiting.n_bytes += placed.n_bytes
        self.body_bytes += half.n_bytes
        self._frame_bytes += placed.n_bytes
        self._need(placed.segment, 1)
        return waiting

    def settle(self, settled: Settled, segment: int, now: float) -> None:
        """An inference is done, which the journal says in that segment."""
        waiting = self.waiting.get(settled.key)
        # Written again for the sake of what it remembers, it is older than a half that came late and waits.
        if waiting is not None and all(half.side in settled.sides for half in waiting.halves):
            del self.waiting[settled.key]
            self.body_bytes -= sum(half.n_bytes for half in waiting.halves)
            self._frame_bytes -= waiting.n_bytes
            for each in waiting.segments:
                self._need(each, -1)
        before = self._done.pop(settled.key, None)
        sides = settled.sides
        if before is not None:
            self._need(before.segment, -1)
            sides = (*before.sides, *(side for side in sides if side not in before.sides))
        self._done[settled.key] = _Done(now, sides, segment)
        self._need(segment, 1)

    def overdue(self, now: float, join_s: float) -> list[str]:
        """The inferences whose other half did not come in time."""
        found = []
        for key, waiting in self.waiting.items():
            if now - waiting.since < join_s:
                break
            found.append(key)
        return found

    def forget(self, now: float) -> None:
        """Forget what is done and old, or too much."""
        while self._done:
            key, done = next(iter(self._done.items()))
            if len(self._done) <= self._remembered and now - done.since < self._remember_s:
                return
            del self._done[key]
            self._need(done.segment, -1)

    def needs(self, segment: int) -> bool:
        """Whether anything in a segment of the journal is still needed."""
        return self._needed.get(segment, 0) > 0

    def needed(self, placed: Placed) -> Entry | None:
        """What to write again of an entry whose segment is given up; None when nothing."""
        entry = placed.entry
        if isinstance(entry, Arrived):
            waiting = self.waiting.get(entry.half.key)
            if waiting is not None and any(
                half.side == entry.half.side and segment == placed.segment
                for half, segment in zip(waiting.halves, waiting.segments, strict=True)
            ):
                return entry
        elif isinstance(entry, Settled):
            done = self._done.get(entry.key)
            if done is not None and done.segment == placed.segment:
                return Settled(entry.key, done.sides)
        return None

    def moved(self, again: Placed) -> None:
        """An entry was written again, and its old segment does not matter any more."""
        entry = again.entry
        if isinstance(entry, Settled):
            done = self._done[entry.key]
            self._need(done.segment, -1)
            done.segment = again.segment
        elif isinstance(entry, Arrived):
            waiting = self.waiting[entry.half.key]
            at = next(number for number, half in enumerate(waiting.halves) if half.side == entry.half.side)
            self._need(waiting.segments[at], -1)
            waiting.segments[at] = again.segment
        self._need(again.segment, 1)

    def replay(self, placed: Placed, now: float) -> None:
        """Take in an entry of an earlier run. That another one follows an intent proves that it was carried out."""
        entry = placed.entry
        doubt, self._in_doubt = self._in_doubt, None
        if doubt is not None and not (isinstance(entry, Undone) and entry.key == doubt.key):
            self.settle(doubt, self._doubt_segment, now)
        if isinstance(entry, Settled) and entry.agent:
            self._in_doubt, self._doubt_segment = entry, placed.segment
        elif isinstance(entry, Settled):
            self.settle(entry, placed.segment, now)
        elif isinstance(entry, Arrived):
            if self.standing(entry.half) is Standing.AGAIN:
                if self.needed(placed) is None and entry.half.key in self.waiting:
                    self.moved(placed)  # it was written again before its old segment could be deleted
            else:
                self.arrive(placed, entry.half, now)

    def in_doubt(self) -> Settled | None:
        """After the replay: the intent of which nothing in the journal says whether it was carried out."""
        doubt, self._in_doubt = self._in_doubt, None
        return doubt

    def _need(self, segment: int, change: int) -> None:
        count = self._needed.get(segment, 0) + change
        if count:
            self._needed[segment] = count
        else:
            self._needed.pop(segment, None)
