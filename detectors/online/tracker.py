"""The seam between an online detector and the statistics that it follows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from detectors.base import Array

Floats = npt.NDArray[np.float64]
Arrays = tuple[Array, ...]


class Tracker(Protocol):
    """Statistics that each row brings up to date, larger where the stream differs more from the reference.

    What it gives for a row depends on the rows since the start and on nothing else: not on how they were cut into
    windows, bit for bit.
    """

    def prepare(self, rows: Floats) -> Floats:
        """What `simulate` takes, (n, anything), each row by itself."""
        ...

    def simulate(self, prepared: Floats) -> Floats:
        """The statistics of a stream that begins with these rows: (n, k), NaN where there is none yet."""
        ...

    def begin(self) -> Arrays:
        """What it knows before the first row."""
        ...

    def walk(self, known: Arrays, rows: Floats) -> tuple[Floats, Arrays]:
        """The statistics at each of (n, d) rows that follow, (n, k), and what it knows after them. Pure."""
        ...

    def accepts(self, known: Arrays, rows: int) -> bool:
        """Whether `walk` can go on from there, `rows` rows after the start."""
        ...


def horizon_of(sizes: Sequence[int]) -> int:
    """Rows since the start after which, without change, nothing of windows of these sizes depends on the start.

    Windows that share no row with the first full one know nothing of it.
    """
    return 3 * max(sizes)


class Windowed(ABC):
    """A tracker that compares the last rows, as many as each of `sizes`, with the reference.

    Nothing is tested before the smallest window is full. It remembers the rows of the largest.
    """

    def __init__(self, sizes: Sequence[int], width: int) -> None:
        self.sizes = np.array(sizes, dtype=np.int64)
        self._largest = int(self.sizes.max())
        self._width = width

    @abstractmethod
    def prepare(self, rows: Floats) -> Floats: ...

    @abstractmethod
    def _statistics(self, prepared: Floats, before: int) -> Floats:
        """Of the rows after the first `before`, which only fill the windows."""

    def simulate(self, prepared: Floats) -> Floats:
        return self._statistics(prepared, 0)

    def begin(self) -> Arrays:
        return (np.empty((0, self._width)),)

    def walk(self, known: Arrays, rows: Floats) -> tuple[Floats, Arrays]:
        (last,) = known
        both = np.concatenate((last, rows))
        return self._statistics(self.prepare(both), len(last)), (both[-self._largest :],)

    def accepts(self, known: Arrays, rows: int) -> bool:
        return (
            len(known) == 1
            and known[0].dtype == np.float64
            and known[0].shape == (min(rows, self._largest), self._width)
        )
