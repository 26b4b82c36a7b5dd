"""How far a stream of halves has been read: what is kept on govern's bus, and what follows from it. Pure.

The stream is a partition of somebody's topic, or a file. A message is done when its record is on the bus. Those read
and not done wait for their other half: they are the `open` ones. Only their offsets are kept, so the bodies stay where
they are; a new start reads them there again.
"""

from __future__ import annotations

from itertools import takewhile
from typing import Final

import msgspec

from govern.mirror.runs import Run, Runs

#: What a place takes on the bus beside the runs that wait, bytes: its key, the offset, the names of the fields.
OVERHEAD_BYTES: Final = 1024


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
        open: the offsets of halves that wait; what is stored grows with their runs.
    """

    def __init__(self, stored: Stored, *, changed: bool = False) -> None:
        self.offset = stored.offset
        self.open = Runs(stored.open)
        self.t_ms = 0
        self.changed = changed
        self._awaited = Runs(stored.open)
        self._whole = stored.whole

    @property
    def start(self) -> int:
        """Where to begin to read."""
        return next(iter(self._awaited), self.offset)

    @property
    def n_bytes(self) -> int:
        """What is stored takes no more than this: each run `[first,last],`, of offsets below the next one."""
        return OVERHEAD_BYTES + self.open.count * (2 * len(str(self.offset)) + len("[,],"))

    def stored(self) -> Stored:
        return Stored(offset=self.offset, open=self.open.stored(), whole=self._whole)

    def meets(self, offset: int, t_ms: int) -> bool:
        """Whether the message that is read now is to be looked at: it is new, or it was still open."""
        self.t_ms = max(self.t_ms, t_ms)
        if offset >= self.offset:
            self.offset = offset + 1
            self.changed = True
            return True
        if offset in self._awaited:
            self._awaited.remove(offset)
            return True
        return False

    def waits(self, offset: int) -> None:
        """A message's half has to wait."""
        if offset not in self.open:
            self.open.add(offset)
            self.changed = True

    def done(self, offset: int) -> None:
        """A message's record is made."""
        if offset in self.open:
            self.open.remove(offset)
            self.changed = True

    def lost(self, before: int) -> int:
        """How many open halves before an offset are there no more; they are open no more either."""
        gone = list(takewhile(lambda offset: offset < before, self._awaited))
        for offset in gone:
            self._awaited.remove(offset)
            self.done(offset)
        return len(gone)

    def ends(self) -> None:
        """The stream has been read to its end."""
        if not self._whole:
            self._whole = True
            self.changed = True
