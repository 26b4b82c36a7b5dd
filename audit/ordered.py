"""Stored rows met in order: each is taken where it is expected, and those that nobody expects are named."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sqlalchemy import RowMapping


class Ordered:
    """Rows in the order of a column of whole numbers, read once and never held.

    Args:
        rows: sorted by `column`. Cells that are no whole numbers (SQLite allows them) are nowhere expected.
        stray: called with each row that was not taken.
    """

    def __init__(self, rows: Iterator[RowMapping], column: str, stray: Callable[[RowMapping], None]) -> None:
        self._rows = rows
        self._column = column
        self._stray = stray
        self._next = next(rows, None)

    def take(self, number: int) -> RowMapping | None:
        """The row with this number, which must be above the last one asked for; None when there is none."""
        while self._next is not None:
            row, at = self._next, self._next[self._column]
            if isinstance(at, int) and at > number:
                return None
            self._next = next(self._rows, None)
            if at == number:
                return row
            self._stray(row)
        return None

    def end(self) -> None:
        """No more numbers are expected."""
        while self._next is not None:
            self._stray(self._next)
            self._next = next(self._rows, None)
