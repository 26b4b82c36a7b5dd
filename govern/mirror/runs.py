"""A set of offsets that lie mostly in a row, as the runs that it consists of. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import TypeAlias

#: Offsets: one, or a run of them from the first to the last.
Run: TypeAlias = int | tuple[int, int]


class Runs:
    """Takes memory, and time for each change and for `stored`, by its runs, however long they are.

    Args:
        runs: ascending.
    """

    def __init__(self, runs: Iterable[Run] = ()) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        for run in runs:
            first, last = (run, run) if isinstance(run, int) else run
            if self._lasts and first == self._lasts[-1] + 1:
                self._lasts[-1] = last
            else:
                self._firsts.append(first)
                self._lasts.append(last)

    def __contains__(self, offset: int) -> bool:
        at = bisect_right(self._firsts, offset) - 1
        return at >= 0 and offset <= self._lasts[at]

    def __iter__(self) -> Iterator[int]:
        for first, last in zip(self._firsts, self._lasts, strict=True):
            yield from range(first, last + 1)

    @property
    def count(self) -> int:
        """How many runs there are."""
        return len(self._firsts)

    def add(self, offset: int) -> None:
        """Add one that is not in it."""
        at = bisect_right(self._firsts, offset)  # of the run behind it
        after = at < len(self._firsts) and self._firsts[at] == offset + 1
        if at and self._lasts[at - 1] == offset - 1:
            if after:
                del self._firsts[at]
                self._lasts[at - 1] = self._lasts.pop(at)
            else:
                self._lasts[at - 1] = offset
        elif after:
            self._firsts[at] = offset
        else:
            self._firsts.insert(at, offset)
            self._lasts.insert(at, offset)

    def remove(self, offset: int) -> None:
        """Remove one that is in it."""
        at = bisect_right(self._firsts, offset) - 1
        first, last = self._firsts[at], self._lasts[at]
        if first == last:
            del self._firsts[at], self._lasts[at]
        elif offset == first:
            self._firsts[at] = offset + 1
        elif offset == last:
            self._lasts[at] = offset - 1
        else:
            self._lasts[at] = offset - 1
            self._firsts.insert(at + 1, offset + 1)
            self._lasts.insert(at + 1, last)

    def stored(self) -> list[Run]:
        return [
            first if first == last else (first, last) for first, last in zip(self._firsts, self._lasts, strict=True)
        ]
