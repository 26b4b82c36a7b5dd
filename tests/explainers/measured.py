"""What an anchor is worth on rows that its search has not seen: one measure for every implementation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from explainers.predicate import Predicate
from govern.frame import Frame

#: The measured precision is then within 0.005 of the true one, 99 times of 100.
FRESH = 20_000


def fulfils(frame: Frame, row: Frame, predicates: Sequence[Predicate]) -> npt.NDArray[np.bool_]:
    """Which rows of the frame (n,) an anchor of `row` covers."""
    held = np.ones(len(frame), dtype=np.bool_)
    for one in predicates:
        held &= _fulfils_one(frame, row, one)
    return held


def _fulfils_one(frame: Frame, row: Frame, one: Predicate) -> npt.NDArray[np.bool_]:
    column = frame[one.feature]
    if one.category is not None:
        return np.asarray(column == row[one.feature][0])
    low, high = -np.inf if one.low is None else one.low, np.inf if one.high is None else one.high
    return np.asarray((column > low) & (column <= high))


def perturbed(background: Frame, row: Frame, predicates: Sequence[Predicate]) -> Frame:
    """Fresh rows of the D(z|A) of Ribeiro et al. 2018: whole background rows that get the anchored features."""
    rng = np.random.default_rng(99)
    rows = background.take(rng.integers(len(background), size=FRESH))
    columns = list(rows.columns)
    for one in predicates:
        j = rows.schema.index(one.feature)
        wrong = np.flatnonzero(~_fulfils_one(rows, row, one))
        column = columns[j].copy()
        pool = background.columns[j][_fulfils_one(background, row, one)]
        column[wrong] = row.columns[j][0] if pool.size == 0 else rng.choice(pool, size=len(wrong))
        columns[j] = column
    return Frame(schema=rows.schema, columns=tuple(columns))
