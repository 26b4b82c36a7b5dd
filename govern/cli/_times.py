"""Rows of a table by their time, and those of ranges that are nobody's normal left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from detectors.baseline.ranges import outside, read_ranges
from govern.errors import BadInput
from govern.table import Table

Ranges = tuple[tuple[int, int], ...]
_DAY_NS: Final = 86_400 * 10**9


@dataclass(frozen=True, slots=True)
class Timed:
    """
    Attributes:
        table: the rows that are left.
        left_out: how many are not.
        span: first and last time of the rest, nanoseconds since the epoch; empty when nobody says which column has it.
    """

    table: Table
    left_out: int = 0
    span: tuple[int, ...] = ()


def ranges(texts: Sequence[str]) -> Ranges:
    """What `--exclude-range` names: nanoseconds since the epoch, from the first on and before the end.

    Raises:
        BadInput: one is no range of times with their zones, or ends before it begins.
    """
    return read_ranges(",".join(texts), method="--exclude-range")


def per_day(rows: int, span: Sequence[int], left_out: Ranges) -> int:
    """Rows a day, one at least, of so many between two times but for the ranges; 0 of less than a day, or of no times.

    A part of a day says nothing of a day: traffic goes by the hour.
    """
    if not span:
        return 0
    first, last = span
    # Ranges may share times, so that each is counted from where those before it ended.
    lasted, told = last - first, first
    for begin, end in sorted(left_out):
        begin, end = max(begin, told), min(end, last)
        if end > begin:
            lasted, told = lasted - (end - begin), end
    return max(1, round(rows * _DAY_NS / lasted)) if lasted >= _DAY_NS else 0


def without(table: Table, column: str, left_out: Ranges) -> Timed:
    """The rows whose time, in this column ("" = there is none), is in none of the ranges; those without a time go, too.

    Raises:
        BadInput: ranges and no column, a column that is missing or holds no times, or nothing is left.
    """
    if not column:
        if left_out:
            raise BadInput(
                "--exclude-range", why="a table does not say which column has the time", fix="add --time-column NAME"
            )
        return Timed(table)
    table.require([column], needed_as="time column")
    times = _times(table, column)
    known = pc.is_valid(times).to_numpy(zero_copy_only=False)
    since: npt.NDArray[np.int64] = times.cast(pa.int64()).fill_null(0).to_numpy()
    kept = known & outside(since, left_out)
    if not kept.any():
        raise BadInput(
            f"{table.origin}: no row is left",
            why=f"all {len(table):,} are in the ranges that are left out, or have no {column}",
            fix="name shorter ranges",
        )
    rest = Table(table.origin, table.data.filter(pa.array(kept)))
    return Timed(rest, int((~kept).sum()), (int(since[kept].min()), int(since[kept].max())))


def _times(table: Table, column: str) -> pa.Array[Any]:
    """Nanoseconds since the epoch; a time without a zone is of UTC."""
    values = table.data.column(column).combine_chunks()
    kind = values.type
    try:
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            try:
                values = values.cast(pa.timestamp("ns", tz="UTC"))
            except pa.ArrowInvalid:
                values = values.cast(pa.timestamp("ns"))
        elif not (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
            raise pa.ArrowInvalid(f"it is {kind}")
        return values.cast(pa.timestamp("ns", tz=getattr(values.type, "tz", None)))
    except pa.ArrowException as error:
        raise BadInput(
            f"{table.origin}: time column {column!r} holds no times",
            why=str(error),
            fix="write times as 2025-12-24T00:00:00Z, or name another column",
        ) from error
