"""Statistics of a feature's level that need no window: each row brings sums up to date."""

from __future__ import annotations

from typing import Final

import numpy as np

from detectors.compiled import compiled
from detectors.online.ranks import sorted_of
from detectors.online.tracker import Arrays, Floats

#: What makes a rank's standard deviation 1: that of a uniform number is 1 / sqrt(12).
_UNIT: Final = np.sqrt(12.0)


class Ranks:
    """Numbers as places in the reference: from -sqrt(3) to sqrt(3), with mean 0 and variance 1 there (ties: less).

    So one wild value counts as the largest, and all features have one scale and known bounds.

    Args:
        reference: (n, d), NaN is missing.

    Raises:
        BadInput: a feature has too few values.
    """

    def __init__(self, reference: Floats) -> None:
        self._sorted = [sorted_of(column).values for column in reference.T]

    def of(self, rows: Floats) -> Floats:
        """(n, d) -> (n, d); what is missing stays NaN."""
        found = np.full(rows.shape, np.nan)
        for feature, values in enumerate(self._sorted):
            there = ~np.isnan(rows[:, feature])
            column = rows[there, feature]
            places = values.searchsorted(column, side="left") + values.searchsorted(column, side="right")
            found[there, feature] = (places / (2 * len(values)) - 0.5) * _UNIT
        return found


def _follow_cusum(ranks: Floats, slack: float, up: Floats, down: Floats, seen: Floats) -> Floats:
    rows, features = ranks.shape
    found = np.empty((rows, features))
    for row in range(rows):
        for feature in range(features):
            rank = ranks[row, feature]
            if not np.isnan(rank):
                up[feature] = max(0.0, up[feature] + rank - slack)
                down[feature] = max(0.0, down[feature] - rank - slack)
                seen[feature] += 1.0
            found[row, feature] = max(up[feature], down[feature])
    return found


_cusum = compiled(_follow_cusum)


class Cusum:
    """How far the sum of what each row's rank exceeds `slack` by has risen above its lowest, or the same downwards.

    Args:
        reference: (n, d), NaN is missing.
        slack: in standard deviations of the ranks.
    """

    def __init__(self, reference: Floats, slack: float) -> None:
        self._ranks = Ranks(reference)
        self._slack = slack
        self._width = reference.shape[1]

    def prepare(self, rows: Floats) -> Floats:
        return self._ranks.of(rows)

    def simulate(self, prepared: Floats) -> Floats:
        return self._follow(prepared, *self.begin())

    def begin(self) -> Arrays:
        return (np.zeros((3, self._width)),)

    def walk(self, known: Arrays, rows: Floats) -> tuple[Floats, Arrays]:
        sums = known[0].copy()
        return self._follow(self.prepare(rows), sums), (sums,)

    def _follow(self, prepared: Floats, sums: Floats) -> Floats:
        return _cusum(prepared, self._slack, sums[0], sums[1], sums[2])

    def accepts(self, known: Arrays, rows: int) -> bool:
        if len(known) != 1 or known[0].dtype != np.float64 or known[0].shape != (3, self._width):
            return False
        return bool((known[0] >= 0.0).all() and np.isfinite(known[0]).all())
