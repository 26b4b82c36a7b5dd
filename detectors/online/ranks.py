"""Windows of numbers beside a sorted reference: what a row costs grows with the windows, and with log n only.

A value's place in the reference is found once. A window is kept sorted; its statistic is a sum (or a maximum) over its
own values, since sums over the reference's values between two of them are differences of running sums.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from detectors.compiled import compiled
from detectors.drift.cramer_von_mises import Sorted
from detectors.drift.feature_test import MIN_ROWS
from detectors.online.tracker import Floats, Windowed
from govern.errors import BadInput

Counts = npt.NDArray[np.int64]


def _cramer_von_mises(
    values: Floats, under: Counts, upto: Counts, m: int, n: int, shares: Floats, squares: Floats
) -> float:
    total = 0.0
    first, last = 0, 0
    # Division is what such a loop would spend its time on.
    step, half_step, half_jump = 1 / m, 0.5 / m, 0.5 / n
    while first < m:
        stop = first + 1
        while stop < m and values[stop] == values[first]:
            stop += 1
        below = first * step
        low, high = under[first], upto[first]
        total += squares[low] - squares[last] - 2 * below * (shares[low] - shares[last]) + below * below * (low - last)
        off = (low + high) * half_jump - (first + stop) * half_step
        total += (high - low + stop - first) * off * off
        first, last = stop, high
    total += squares[n] - squares[last] - 2 * (shares[n] - shares[last]) + (n - last)
    pairs, both = float(n) * m, float(n + m)
    statistic = pairs / both**2 * total + 1 / (4 * both)
    mean = (1 + 1 / both) / 6
    variance = (both + 1) * (4 * pairs * both - 3 * (float(n) * n + m * m) - 2 * pairs) / (45 * both**2 * 4 * pairs)
    return float((statistic - mean) / math.sqrt(variance))


def _kolmogorov_smirnov(values: Floats, under: Counts, upto: Counts, m: int, n: int) -> float:
    largest = 0.0
    first = 0
    step, jump = 1 / m, 1 / n
    while first < m:
        stop = first + 1
        while stop < m and values[stop] == values[first]:
            stop += 1
        largest = max(largest, abs(under[first] * jump - first * step), abs(upto[first] * jump - stop * step))
        first = stop
    return largest * math.sqrt(float(n) * m / (n + m))


_cvm = compiled(_cramer_von_mises)
_ks = compiled(_kolmogorov_smirnov)


def _follow_windows(
    prepared: Floats, before: int, sizes: Counts, starts: Counts, shares: Floats, squares: Floats, supremum: bool
) -> Floats:
    """The larger of the windows' statistics: (rows - before, features)."""
    rows, features = len(prepared), prepared.shape[1] // 3
    found = np.full((rows - before, features), np.nan)
    for feature in range(features):
        n = starts[feature + 1] - starts[feature] - 1
        share = shares[starts[feature] : starts[feature + 1]]
        square = squares[starts[feature] : starts[feature + 1]]
        for size in sizes:
            values = np.empty(size + 1)
            under = np.empty(size + 1, dtype=np.int64)
            upto = np.empty(size + 1, dtype=np.int64)
            m = 0
            for row in range(rows):
                value = prepared[row, 3 * feature]
                if not np.isnan(value):
                    place = m
                    while place > 0 and values[place - 1] > value:
                        values[place] = values[place - 1]
                        under[place] = under[place - 1]
                        upto[place] = upto[place - 1]
                        place -= 1
                    values[place] = value
                    under[place] = int(prepared[row, 3 * feature + 1])
                    upto[place] = int(prepared[row, 3 * feature + 2])
                    m += 1
                if row >= size and not np.isnan(prepared[row - size, 3 * feature]):
                    gone = prepared[row - size, 3 * feature]
                    place = np.searchsorted(values[:m], gone)
                    for other in range(place, m - 1):
                        values[other] = values[other + 1]
                        under[other] = under[other + 1]
                        upto[other] = upto[other + 1]
                    m -= 1
                # Of a window that is half missing, the rest says too little.
                if row < before or row + 1 < size or 2 * m < size:
                    continue
                if supremum:
                    statistic = _ks(values, under, upto, m, n)
                else:
                    statistic = _cvm(values, under, upto, m, n, share, square)
                if not found[row - before, feature] >= statistic:
                    found[row - before, feature] = statistic
    return found


_follow = compiled(_follow_windows)


class RankWindows(Windowed):
    """Windows of each of d numeric features; the statistic of a feature is the largest of its windows'.

    Statistics of different sizes and features have one scale. Ties count half, as in `cramer_von_mises`. A missing
    value has its place in the window and counts for nothing; a window that is half missing is not tested.

    Args:
        reference: (n, d), NaN is missing.
        sizes: of the windows, rows.
        supremum: the largest distance (Kolmogorov-Smirnov, times the root of nm / (n + m)) instead of the sum of
            squared distances (Cramér-von Mises, in standard deviations from its mean at these sizes).

    Raises:
        BadInput: a feature has fewer than `MIN_ROWS` values.
    """

    def __init__(self, reference: Floats, sizes: Sequence[int], *, supremum: bool) -> None:
        super().__init__(sizes, reference.shape[1])
        self._supremum = supremum
        self._sorted = [sorted_of(column) for column in reference.T]
        self._starts = np.append(0, np.cumsum([len(one.shares) for one in self._sorted]))
        self._shares = np.concatenate([one.shares for one in self._sorted])
        self._squares = np.concatenate([one.squares for one in self._sorted])

    def prepare(self, rows: Floats) -> Floats:
        """(n, 3 d): each value, and how many of the reference are below it and up to it."""
        prepared = np.empty((len(rows), 3 * self._width))
        for feature, reference in enumerate(self._sorted):
            column = rows[:, feature]
            prepared[:, 3 * feature] = column
            prepared[:, 3 * feature + 1] = reference.values.searchsorted(column, side="left")
            prepared[:, 3 * feature + 2] = reference.values.searchsorted(column, side="right")
        return prepared

    def _statistics(self, prepared: Floats, before: int) -> Floats:
        return _follow(prepared, before, self.sizes, self._starts, self._shares, self._squares, self._supremum)


def sorted_of(column: Floats) -> Sorted:
    values = np.sort(column[~np.isnan(column)])
    if len(values) < MIN_ROWS:
        raise BadInput(
            f"a feature has {len(values)} values in a part of the reference",
            why=f"at least {MIN_ROWS} are needed",
            fix="give a larger reference, or leave the feature out of the schema",
        )
    return Sorted.of(values)
