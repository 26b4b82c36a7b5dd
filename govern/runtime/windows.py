"""Windows over one partition of a stream: by count, by time, or whichever comes first. Pure; no clock, no I/O.

A window tumbles: each instance belongs to exactly one. (For those that slide, see `govern.runtime.rolling`.) It closes

- by *count*, as soon as it holds `size` instances, inside a request when need be (the rest opens the next one);
- by *time*, when an instance arrives whose event time is `span_ns` or more after the window's first one, or when
  `expire` is called with such a time. A window that a detector could not judge (fewer than `minimum` instances)
  stays open, so that a model with little traffic gets its verdict late rather than never;
- by *drain*, when asked to;
- by *change*, when the step that collects it is replaced by one that judges otherwise.

Sizes count instances, never requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from govern.frame import Frame

ClosedBy = Literal["count", "time", "drain", "change"]


@dataclass(frozen=True, slots=True)
class Rows:
    """Instances with their place in the stream.

    Attributes:
        frame: n rows.
        offsets: (n,) int64, offset of the message that each row came in.
        positions: (n,) int32, the row's index within its request.
        times: (n,) int64, t_response in nanoseconds.
        request_ids, traceparents: one for each row.
    """

    frame: Frame
    offsets: npt.NDArray[np.int64]
    positions: npt.NDArray[np.int32]
    times: npt.NDArray[np.int64]
    request_ids: tuple[str, ...]
    traceparents: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.offsets)

    @classmethod
    def of_message(cls, frame: Frame, *, offset: int, time_ns: int, request_id: str, traceparent: str) -> Self:
        n = len(frame)
        return cls(
            frame=frame,
            offsets=np.full(n, offset, dtype=np.int64),
            positions=np.arange(n, dtype=np.int32),
            times=np.full(n, time_ns, dtype=np.int64),
            request_ids=(request_id,) * n,
            traceparents=(traceparent,) * n,
        )

    def take(self, rows: slice) -> Rows:
        return Rows(
            frame=self.frame.take(rows),
            offsets=self.offsets[rows],
            positions=self.positions[rows],
            times=self.times[rows],
            request_ids=self.request_ids[rows],
            traceparents=self.traceparents[rows],
        )

    @classmethod
    def concat(cls, parts: Sequence[Rows]) -> Rows:
        if len(parts) == 1:
            return parts[0]
        return cls(
            frame=Frame.concat([part.frame for part in parts]),
            offsets=np.concatenate([part.offsets for part in parts]),
            positions=np.concatenate([part.positions for part in parts]),
            times=np.concatenate([part.times for part in parts]),
            request_ids=tuple(one for part in parts for one in part.request_ids),
            traceparents=tuple(one for part in parts for one in part.traceparents),
        )


@dataclass(frozen=True, slots=True)
class ClosedWindow:
    """A window to judge.

    Attributes:
        rows: its instances, in stream order.
        lost: instances known to be missing between the previous window's end and this one's; of a window that slides,
            all that are missing among its own.
        judged_before: how many of its instances, the oldest, were in the window before.
    """

    rows: Rows
    lost: int
    closed_by: ClosedBy
    judged_before: int = 0

    @property
    def new(self) -> int:
        """How many of its instances no window before had."""
        return len(self.rows) - self.judged_before

    @property
    def completeness(self) -> float:
        return len(self.rows) / (len(self.rows) + self.lost)


class WindowBuffer:
    """The open window of one step on one partition.

    Args:
        size: instances per window, >= 1.
        span_ns: duration after which a window closes by time; 0 = never.
        minimum: fewest instances that make a window worth closing by time or drain, >= 1.
    """

    def __init__(self, *, size: int, span_ns: int, minimum: int) -> None:
        self._size = size
        self._span_ns = span_ns
        self._minimum = min(minimum, size)
        self._parts: list[Rows] = []
        self._count = 0
        self._lost = 0
        self._windows = 0

    def __len__(self) -> int:
        return self._count

    @property
    def unjudged(self) -> int:
        """Instances that no window has been closed with."""
        return self._count

    @property
    def lost(self) -> int:
        return self._lost

    @property
    def windows(self) -> int:
        """How many windows this buffer has closed."""
        return self._windows

    def add(self, rows: Rows) -> list[ClosedWindow]:
        """Take the instances of one message; return the windows that this closed, oldest first."""
        closed: list[ClosedWindow] = []
        if len(rows) == 0:
            return closed
        closed.extend(self.expire(int(rows.times[0])))
        while self._count + len(rows) >= self._size:
            room = self._size - self._count
            self._append(rows.take(slice(0, room)) if room < len(rows) else rows)
            closed.append(self._close("count"))
            if room == len(rows):
                return closed
            rows = rows.take(slice(room, None))
        self._append(rows)
        return closed

    def add_lost(self, instances: int) -> None:
        """Note instances that were in the stream and cannot be judged."""
        self._lost += instances

    def expire(self, now_ns: int) -> list[ClosedWindow]:
        """Close the window when its time is over at `now_ns` (nanoseconds, the clock of `Rows.times`)."""
        if not self._span_ns or self._count < self._minimum or not self._parts:
            return []
        if now_ns - int(self._parts[0].times[0]) < self._span_ns:
            return []
        return [self._close("time")]

    def drain(self, closed_by: ClosedBy = "drain") -> list[ClosedWindow]:
        """Close the window now, when it holds enough to be judged."""
        return [self._close(closed_by)] if self._count >= self._minimum else []

    def contents(self) -> Rows | None:
        """The open window's instances as one piece, None when there are none."""
        if not self._parts:
            return None
        self._parts = [Rows.concat(self._parts)]
        return self._parts[0]

    def restore(self, rows: Rows | None, lost: int) -> None:
        """Put back what `contents` and `lost` gave. The buffer must be new."""
        self._parts = [] if rows is None else [rows]
        self._count = 0 if rows is None else len(rows)
        self._lost = lost

    def _append(self, rows: Rows) -> None:
        self._parts.append(rows)
        self._count += len(rows)

    def _close(self, closed_by: ClosedBy) -> ClosedWindow:
        window = ClosedWindow(rows=Rows.concat(self._parts), lost=self._lost, closed_by=closed_by)
        self._parts = []
        self._count = 0
        self._lost = 0
        self._windows += 1
        return window
