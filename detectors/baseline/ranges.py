"""Ranges of time whose rows are nobody's normal: holidays, incidents, tests of load."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import numpy as np
import numpy.typing as npt

from govern.errors import BadInput

Times = npt.NDArray[np.int64]

_NS: Final = 10**9


def read_ranges(text: str, *, method: str) -> tuple[tuple[int, int], ...]:
    """`2025-12-24T00:00:00Z/2025-12-27T00:00:00Z`, any number of them with commas between (ISO 8601 intervals).

    Returns:
        (first, end) of each in nanoseconds since the epoch; `first` belongs to the range, `end` does not.

    Raises:
        BadInput: one is no range of times with their zones, or ends before it begins.
    """
    found: list[tuple[int, int]] = []
    for one in filter(None, (part.strip() for part in text.split(","))):
        first, slash, end = one.partition("/")
        try:
            if not slash:
                raise ValueError("it has no `/` between its first time and its end")
            span = _nanoseconds(first), _nanoseconds(end)
            if span[0] >= span[1]:
                raise ValueError("it ends before it begins")
        except ValueError as error:
            raise BadInput(
                f"{method}: exclude names {one!r}",
                why=str(error),
                fix="write 2025-12-24T00:00:00Z/2025-12-27T00:00:00Z, with commas between ranges",
            ) from error
        found.append(span)
    return tuple(found)


def outside(times: Times, ranges: Sequence[tuple[int, int]]) -> npt.NDArray[np.bool_]:
    """(n,) whether each time is in none of the ranges."""
    kept = np.ones(len(times), dtype=bool)
    for first, end in ranges:
        kept &= (times < first) | (times >= end)
    return kept


def _nanoseconds(text: str) -> int:
    when = datetime.fromisoformat(text)
    if when.tzinfo is None:
        raise ValueError(f"{text} names no time zone")
    return int(when.replace(microsecond=0).timestamp()) * _NS + when.microsecond * 1000
