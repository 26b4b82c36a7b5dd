"""Windows that slide over one partition of a stream. Pure; no clock, no I/O.

The window holds the last `size` instances of the stream. It is judged

- by *count*: with each request, once it is full. Of a request by which more than `size` instances would wait to be
  judged, they are judged as soon as they are `size`, and the rest is taken after that: no instance is passed over;
- by *time*, as long as it is not full: when the oldest instance that was not judged yet is `span_ns` old by then, so
  that a model with little traffic gets its verdict. It is given all instances so far, whatever their age, and waits
  for more when they are fewer than `minimum`;
- by *drain* and by *change* as a tumbling window (`govern.runtime.windows`), when it holds what was not judged yet.

So each instance is in one window at least, and in `size` of them when requests have one instance each. What is lost
belongs to the instance that comes next, and lowers the completeness of each window that has this one: a window is
incomplete as long as it reaches over the gap, not only the first time that it does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from govern.runtime.windows import ClosedBy, ClosedWindow, Rows


class Slide(NamedTuple):
    """Where some instances stand in a window that slides.

    Attributes:
        first: the number of the first of them.
        unjudged: how many of the window, as of the newest of them, were not judged yet.
        gaps: of those before which some were lost: number, and how many.
    """

    first: int
    unjudged: int
    gaps: list[tuple[int, int]]


class RollingBuffer:
    """The window of one step on one partition, as it slides. Its instances are numbered as they come.

    Args:
        size: instances of a full window, >= 1.
        span_ns: how long an instance waits for the window to fill until it is judged all the same; 0 = for ever.
        minimum: fewest instances that make a window worth judging by time or drain, >= 1.
    """

    def __init__(self, *, size: int, span_ns: int, minimum: int) -> None:
        self._size = size
        self._span_ns = span_ns
        self._minimum = min(minimum, size)
        #: Neighbours that do not have the same outputs stay apart: one that were joined to a row without an output
        #: would lose its own, and lack it when that row has left the window.
        self._parts: list[Rows] = []
        self._count = 0
        self._end = 0
        self._unjudged = 0
        self._lost = 0
        #: Number of an instance, and how many were lost between the one before and it; of the instances held.
        self._gaps: deque[tuple[int, int]] = deque()

    def __len__(self) -> int:
        return self._count

    @property
    def first(self) -> int:
        """The number of the oldest instance."""
        return self._end - self._count

    @property
    def end(self) -> int:
        """The number that the next instance gets."""
        return self._end

    @property
    def unjudged(self) -> int:
        """Instances that no window was judged with."""
        return self._unjudged

    @property
    def lost(self) -> int:
        """Instances lost since the newest one came."""
        return self._lost

    def add(self, rows: Rows) -> list[ClosedWindow]:
        """Take the instances of one message; return the windows that are to be judged, oldest first."""
        judged = self.expire(int(rows.times[0])) if len(rows) else []
        start = 0
        while start < len(rows):
            end = start + self._size - self._unjudged
            self._append(rows if start == 0 and end >= len(rows) else rows.take(slice(start, end)))
            start = end
            if self._count == self._size:
                judged.append(self._judge("count"))
        return judged

    def add_lost(self, instances: int) -> None:
        """Note instances that were in the stream and cannot be judged."""
        self._lost += instances

    def expire(self, now_ns: int) -> list[ClosedWindow]:
        """Judge what has waited for its time at `now_ns` (nanoseconds, the clock of `Rows.times`)."""
        if not self._span_ns or not self._unjudged or self._count < self._minimum:
            return []
        if now_ns - self._oldest_unjudged() < self._span_ns:
            return []
        return [self._judge("time")]

    def drain(self, closed_by: ClosedBy = "drain") -> list[ClosedWindow]:
        """Judge the window now, when it holds what was not judged yet, and enough."""
        return [self._judge(closed_by)] if self._unjudged and self._count >= self._minimum else []

    def contents(self) -> Rows | None:
        """The window's instances as one piece, None when there are none."""
        return Rows.concat(self._parts) if self._parts else None

    def runs(self, start: int) -> Iterator[tuple[int, Rows]]:
        """The instances from a number on, with the number of the first of each piece."""
        number = self.first
        self._parts = _joined(self._parts)
        for part in self._parts:
            before = max(0, start - number)
            if before < len(part):
                yield number + before, part.take(slice(before, None)) if before else part
            number += len(part)

    def slide(self, numbers: range) -> Slide:
        """What a checkpoint says of the instances of these numbers."""
        return Slide(numbers.start, self._unjudged, [(row, lost) for row, lost in self._gaps if row in numbers])

    def restore(self, stored: Sequence[tuple[Slide, Rows]], lost: int) -> None:
        """Put back what `runs`, `slide` and `lost` gave, in order. The buffer must be new."""
        self._lost = lost
        for slide, rows in stored:
            self._parts.append(rows)
            self._count += len(rows)
            self._end = slide.first + len(rows)
            self._unjudged = slide.unjudged
            self._gaps.extend(slide.gaps)
        self._trim()

    def _append(self, rows: Rows) -> None:
        if self._lost:
            self._gaps.append((self._end, self._lost))
            self._lost = 0
        self._parts.append(rows)
        self._count += len(rows)
        self._end += len(rows)
        self._unjudged += len(rows)
        self._trim()

    def _trim(self) -> None:
        """Let go of what is older than the window."""
        excess = self._count - self._size
        while excess > 0:
            oldest = self._parts[0]
            if len(oldest) <= excess:
                del self._parts[0]
            else:
                self._parts[0] = oldest.take(slice(excess, None))
            excess -= len(oldest)
        self._count = min(self._count, self._size)
        self._unjudged = min(self._unjudged, self._count)
        while self._gaps and self._gaps[0][0] < self.first:
            self._gaps.popleft()

    def _oldest_unjudged(self) -> int:
        """When its response was given, nanoseconds."""
        left = self._count - self._unjudged
        for part in self._parts:
            if left < len(part):
                return int(part.times[left])
            left -= len(part)
        raise AssertionError("what was not judged yet is in the window")

    def _judge(self, closed_by: ClosedBy) -> ClosedWindow:
        self._parts = _joined(self._parts)
        window = ClosedWindow(
            rows=Rows.concat(self._parts),
            lost=sum(lost for _, lost in self._gaps),
            closed_by=closed_by,
            judged_before=self._count - self._unjudged,
        )
        self._unjudged = 0
        return window


def _joined(parts: Sequence[Rows]) -> list[Rows]:
    """The same instances in as few pieces as lose nothing of them."""
    return [Rows.concat(list(alike)) for _, alike in groupby(parts, key=_outputs)]


def _outputs(rows: Rows) -> list[tuple[str, tuple[int, ...]]]:
    return sorted((name, values.shape[1:]) for name, values in rows.frame.outputs.items())
