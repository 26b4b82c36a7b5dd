"""Cumulative sums of log-likelihood ratios of each feature's level: each row brings them up to date."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from detectors.compiled import compiled
from detectors.online.traces import Places, Traces
from detectors.online.tracker import Arrays, Floats

#: A share is not taken to fall below this part of what it was: each one seen would make it impossible.
_FLOOR: Final = 1e-3
#: What a share is taken for where the reference's is smaller. That no row of 20,000 was missing does not make the first
#: one that is a change; with this and `_MOST_RISE` no row alone says more than 3 nats.
_RAREST: Final = 1e-3
#: A share is not taken to rise to more than so many times what it was.
_MOST_RISE: Final = 20.0


def _follow_cusum(
    traces: Floats, weights: Floats, owners: Places, width: int, up: Floats, down: Floats, seen: Floats
) -> Floats:
    rows, count = traces.shape
    found = np.zeros((rows, width))
    for row in range(rows):
        for trace in range(count):
            value = traces[row, trace]
            if not np.isnan(value):
                up[trace] = max(0.0, up[trace] + weights[0, trace] * value + weights[1, trace])
                down[trace] = max(0.0, down[trace] + weights[2, trace] * value + weights[3, trace])
                seen[trace] += 1.0
            found[row, owners[trace]] = max(found[row, owners[trace]], up[trace], down[trace])
    return found


_cusum = compiled(_follow_cusum)


class Cusum:
    """How far the log-likelihood ratio of a level that rose, or fell, has risen above its lowest, in nats.

    A number's rank is normal, and rises by twice the slack, in standard deviations. A category's share p rises by as
    much in 2 arcsin(sqrt(p)), in which shares have one standard deviation (Cohen's h), or falls. By its likelihood a
    rare category counts for what it is: ranks and categories of all shares have one scale, and one threshold. One of
    less than 0.1 %, as what is never missing or unseen in the reference, counts as one of 0.1 %, and no share is taken
    to rise more than twentyfold, so that a single row is no alarm. A feature's statistic is the largest of its traces'.

    Args:
        reference: (n, d); NaN is a missing number, categories are codes.
        categories: of each feature, how many the schema lists; 0 for a number.
        slack: half of the shift, in standard deviations.

    References:
        Page (1954); Cohen (1988): Statistical power analysis for the behavioral sciences, chapter 6.
    """

    def __init__(self, reference: Floats, categories: Sequence[int], slack: float) -> None:
        self._traces = Traces(reference, categories)
        self._weights = np.empty((4, len(self._traces.owners)))
        share = np.clip(self._traces.shares, _RAREST, 1 - _RAREST)
        angles = 2 * np.arcsin(np.sqrt(share))
        for at, shift in ((0, 2 * slack), (2, -2 * slack)):
            turned = np.clip(angles + shift, 0.0, np.pi)
            other = np.clip(np.sin(turned / 2) ** 2, _FLOOR * share, 1 - _FLOOR * (1 - share))
            other = np.clip(other, 1 - _MOST_RISE * (1 - share), _MOST_RISE * share)
            missed = np.log((1 - other) / (1 - share))
            self._weights[at] = np.where(self._traces.binary, np.log(other / share) - missed, shift)
            self._weights[at + 1] = np.where(self._traces.binary, missed, -(shift**2) / 2)

    def prepare(self, rows: Floats) -> Floats:
        return self._traces.of(rows)

    def simulate(self, prepared: Floats) -> Floats:
        return self._follow(prepared, *self.begin())

    def begin(self) -> Arrays:
        return (np.zeros((3, len(self._traces.owners))),)

    def walk(self, known: Arrays, rows: Floats) -> tuple[Floats, Arrays]:
        sums = known[0].copy()
        return self._follow(self.prepare(rows), sums), (sums,)

    def values(self, known: Arrays, feature: int) -> int:
        """Of the feature, since the start."""
        return int(known[0][2, self._traces.owners.searchsorted(feature)])

    def _follow(self, prepared: Floats, sums: Floats) -> Floats:
        traces = self._traces
        return _cusum(prepared, self._weights, traces.owners, traces.width, sums[0], sums[1], sums[2])

    def accepts(self, known: Arrays, rows: int) -> bool:
        if len(known) != 1 or known[0].dtype != np.float64 or known[0].shape != self.begin()[0].shape:
            return False
        return bool((known[0] >= 0.0).all() and np.isfinite(known[0]).all())
