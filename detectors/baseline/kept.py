"""Which rows of the past a window is compared with, and which are kept for the windows to come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, Protocol

import numpy as np
import numpy.typing as npt

from detectors.baseline.rows import Rows

Name = Literal["previous", "trailing", "time_of_week"]

_HOUR_NS: Final = 3600 * 10**9
_WEEK_NS: Final = 7 * 24 * _HOUR_NS
#: From the Monday before the epoch, a Thursday, to the epoch.
_EPOCH_NS: Final = 3 * 24 * _HOUR_NS


class Baseline(Protocol):
    """Rows are in stream order; the windows do not overlap."""

    def against(self, kept: Rows, times: npt.NDArray[np.int64]) -> Rows:
        """What rows of these times are compared with; as many as there are, which may be none."""
        ...

    def learn(self, kept: Rows, window: Rows) -> Rows:
        """What is kept after a window that enters the baseline."""
        ...


@dataclass(frozen=True, slots=True)
class Previous:
    """The window before, at most its newest `size` rows.

    Attributes:
        least: a window with fewer rows does not take its place.
    """

    size: int
    least: int

    def against(self, kept: Rows, times: npt.NDArray[np.int64]) -> Rows:
        return kept

    def learn(self, kept: Rows, window: Rows) -> Rows:
        return window.take(slice(-self.size, None)) if len(window) >= self.least else kept


@dataclass(frozen=True, slots=True)
class Trailing:
    """The newest `size` rows."""

    size: int

    def against(self, kept: Rows, times: npt.NDArray[np.int64]) -> Rows:
        return kept

    def learn(self, kept: Rows, window: Rows) -> Rows:
        return kept.then(window).take(slice(-self.size, None))


@dataclass(frozen=True, slots=True)
class TimeOfWeek:
    """The same hours of the weeks before, in UTC.

    A slot is some hours of the week, the first from Monday 00:00. Of each slot and week a fair sample is kept (bottom-k
    by rank). Rows of the week that a slot is in do not count yet: else a morning would be compared with itself. A row
    that is more than a week ahead of its window's middle one has a wrong clock, and is not kept.

    Attributes:
        hours: of a slot; they divide a day.
        weeks: before the one that a slot is in.
        sample: rows kept of a slot in a week, at most.

    References:
        Cohen, Kaplan (2007): Summarizing data using bottom-k sketches. PODC, 225-234.
    """

    hours: int
    weeks: int
    sample: int

    def against(self, kept: Rows, times: npt.NDArray[np.int64]) -> Rows:
        """As many rows of each slot as make the window's own mix of slots; none when one of its slots has none."""
        places, counts = np.unique(self._places(times), return_counts=True)
        known = self._places(kept.times)
        before = [np.flatnonzero(np.isin(known, place - self._turn * np.arange(1, self.weeks + 1))) for place in places]
        shares = counts / counts.sum()
        total = min(len(rows) / share for rows, share in zip(before, shares, strict=True))
        chosen: list[npt.NDArray[np.intp]] = []
        for rows, share in zip(before, shares, strict=True):
            # What rounding makes of a product that is whole in exact arithmetic is not to cost a row.
            wanted = int(np.floor(total * share + 1e-9))
            chosen.append(rows[np.argsort(kept.ranks[rows], kind="stable")[:wanted]])
        # A row that serves two weeks of one window serves once.
        return kept.take(np.unique(np.concatenate(chosen)))

    def learn(self, kept: Rows, window: Rows) -> Rows:
        whole = kept.then(window)
        places = self._places(whole.times)
        # The window's time is that of its middle row, so that one clock that runs ahead does not age all that is kept.
        now = int(np.sort(self._places(window.times))[len(window) // 2])
        order = np.lexsort((whole.ranks, places))
        begins = np.flatnonzero(np.diff(places[order], prepend=places[order[0]] - 1))
        within = np.arange(len(order)) - np.repeat(begins, np.diff(np.append(begins, len(order))))
        fits = np.zeros(len(order), dtype=bool)
        fits[order[within < self.sample]] = True
        return whole.take(fits & (places > now - self._turn * (self.weeks + 1)) & (places <= now + self._turn))

    @property
    def _turn(self) -> int:
        """Slots of a week."""
        return _WEEK_NS // (self.hours * _HOUR_NS)

    def _places(self, times: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Each time's slot, counted on from week to week."""
        return np.asarray((times + _EPOCH_NS) // (self.hours * _HOUR_NS), dtype=np.int64)
