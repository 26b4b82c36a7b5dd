"""How far a stream of halves has been read: what is kept on govern's bus, and what follows from it. Pure.

The stream is a partition of somebody's topic, or a file. A message is done when its record is on the bus. Those read
and not done wait for their other half: they are the `open` ones. Only their offsets are kept, so the bodies stay where
they are; a new start reads them there again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeAlias

import msgspec

#: What a place takes on the bus beside the runs that wait, bytes: its key, the offset, the names of the fields.
OVERHEAD_BYTES: Final = 1024

#: Offsets that wait: one, or a run of them from the first to the last.
Run: TypeAlias = int | tuple[int, int]


class Stored(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the positions topic keeps of a stream.

    Attributes:
        offset: the next one to read for the first time.
        open: offsets before it of halves that wait, ascending. A file of one side is one run, however long it is.
        whole: the stream has an end, and was read up to it.
    """

    offset: int = 0
    open: list[Run] = []
    whole: bool = False


class Place:
    """One stream while it is read.

    Args:
        changed: what is stored on the bus is something else.

    Attributes:
        t_ms: the newest message's time; the stream has no older ones to come, but for disorder among producers.
        runs: of how many runs the open offsets are; what is stored grows with them.
    """

    def __init__(self, stored: Stored, *, changed: bool = False) -> None:
        self.offset = stored.offset
        self.open = offsets_of(stored.open)
        self.t_ms = 0
        self.runs = len(runs_of(self.open))
        self.changed = changed
        self._awaited = set(self.open)
        self._whole = stored.whole

    @property
    def start(self) -> int:
        """Where to begin to read."""
        return min(self._awaited, default=self.offset)

    @property
    def n_bytes(self) -> int:
        """What is stored takes no more than this: each run `[first,last],`, of offsets below the next one."""
        return OVERHEAD_BYTES + self.runs * (2 * len(str(self.offset)) + len("[,],"))

    def stored(self) -> Stored:
        return Stored(offset=self.offset, open=runs_of(self.open), whole=self._whole)

    def meets(self, offset: int, t_ms: int) -> bool:
        """Whether the message that is read now is to be looked at: it is new, or it was still open."""
        self.t_ms = max(self.t_ms, t_ms)
        if offset >= self.offset:
            self.offset = offset + 1
            self.changed = True
            return True
        if offset in self._awaited:
            self._awaited.discard(offset)
            return True
        return False

    def waits(self, offset: int) -> None:
        """A message's half has to wait."""
        if offset not in self.open:
            self.open.add(offset)
            self.runs += 1 - self._beside(offset)
            self.changed = True

    def done(self, offset: int) -> None:
        """A message's record is made."""
        if offset in self.open:
            self.open.discard(offset)
            self.runs -= 1 - self._beside(offset)
            self.changed = True

    def lost(self, before: int) -> int:
        """How many open halves before an offset are there no more; they are open no more either."""
        gone = {offset for offset in self._awaited if offset < before}
        if gone:
            self._awaited -= gone
            for offset in gone:
                self.done(offset)
        return len(gone)

    def ends(self) -> None:
        """The stream has been read to its end."""
        if not self._whole:
            self._whole = True
            self.changed = True

    def _beside(self, offset: int) -> int:
        """How many open runs touch an offset."""
        return (offset - 1 in self.open) + (offset + 1 in self.open)


def runs_of(offsets: Iterable[int]) -> list[Run]:
    runs: list[list[int]] = []
    for offset in sorted(offsets):
        if runs and offset == runs[-1][1] + 1:
            runs[-1][1] = offset
        else:
            runs.append([offset, offset])
    return [first if first == last else (first, last) for first, last in runs]


def offsets_of(runs: Iterable[Run]) -> set[int]:
    found: set[int] = set()
    for run in runs:
        first, last = (run, run) if isinstance(run, int) else run
        found.update(range(first, last + 1))
    return found
