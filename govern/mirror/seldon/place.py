"""How far a partition of Seldon's has been read: what is kept on govern's bus, and what follows from it. Pure.

A message is done when its record is on the bus. Those read and not done wait for their other half: they are the
`open` ones. Only their offsets are kept, so the bodies stay where they are; a new start reads them there again.
"""

from __future__ import annotations

import msgspec

from govern.mirror.seldon.topics import Stream


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """What the positions topic keeps of a partition.

    Attributes:
        offset: the next one to read for the first time.
        open: offsets before it of halves that wait.
    """

    offset: int = 0
    open: list[int] = []


class Place:
    """One partition while it is read.

    Args:
        changed: what is stored on the bus is something else.

    Attributes:
        t_ms: the newest message's time; the stream has no older ones to come, but for disorder among producers.
    """

    def __init__(self, stream: Stream, stored: Stored, *, changed: bool = False) -> None:
        self.stream = stream
        self.offset = stored.offset
        self.open = set(stored.open)
        self.t_ms = 0
        self.changed = changed
        self._awaited = set(stored.open)

    @property
    def start(self) -> int:
        """Where to begin to read."""
        return min(self._awaited, default=self.offset)

    def stored(self) -> Stored:
        return Stored(offset=self.offset, open=sorted(self.open))

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
        self.open.add(offset)
        self.changed = True

    def done(self, offset: int) -> None:
        """A message's record is made."""
        if offset in self.open:
            self.open.discard(offset)
            self.changed = True

    def lost(self, before: int) -> int:
        """How many open halves before an offset are in the topic no more; they are open no more either."""
        gone = {offset for offset in self._awaited if offset < before}
        if gone:
            self._awaited -= gone
            self.open -= gone
            self.changed = True
        return len(gone)
