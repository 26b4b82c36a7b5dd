"""Thresholds by which a stream without change alarms once in so many rows, whenever it began.

A statistic that is followed row by row is not one test: windows of neighbouring rows overlap, several windows and
features are watched, and at the start nothing has been survived yet. So no p-value is computed at all. The reference is
cut, at random and many times, into rows that stand for the stream and rows that it is compared with, and the same
statistic is followed as in production. A threshold is what a share of the streams exceeds, among those that have not
alarmed before: 1 / ERT for each row. So the time to a false alarm does not depend on how long there has been none: it
is memoryless.

References:
    Cobb, Van Looveren, Klaise (2022): Sequential multivariate change detection with calibrated and memoryless false
    detection rates. AISTATS, PMLR 151, 226-239.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from detectors.online.tracker import Tracker

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

#: Cuts of the reference. Streams of one cut share what that cut got wrong: with 32, first thresholds were a tenth off.
CUTS: Final = 128
#: A threshold rests on so many false alarms at least: the chance of one is right to a quarter, that of a run to
#: less, since thresholds err independently.
ALARMS: Final = 16
#: Streams at least, and in units of ERT: so the last threshold, of windows no longer young, rests on a hundred alarms.
STREAMS_MIN: Final = 2_000
STREAMS_PER_ERT: Final = 2
#: Paths that are kept of all streams, in units of those that alarm within the horizon: a threshold that is lower later
#: may be passed by some that come before it.
_KEPT: Final = 4
#: Rows that stand for the stream, in horizons: more would leave less to compare with.
_HELD_HORIZONS: Final = 4


def min_rows(horizon: int) -> int:
    """That a reference needs: half of it stands for a stream."""
    return 2 * horizon


def calibrate(
    without: Callable[[Rows], Tracker],
    reference: Floats,
    *,
    horizon: int,
    ert: int,
    seed: int,
    long_runs: bool = False,
) -> Floats:
    """(horizon,) float64: the threshold at each row after a start; later rows take the last. Infinite before any test.

    Args:
        without: a tracker against the reference without these rows of it.
        reference: (n, d) rows, at least `min_rows`.
        ert: expected run time, rows.
        long_runs: the statistic compares a stream with itself, so a row may come again in it: the horizon may exceed
            the reference. Of each block of rows only the highest statistic is kept, for there are many.
    """
    generator = np.random.default_rng((seed, 1))
    each = math.ceil(max(STREAMS_MIN, STREAMS_PER_ERT * ert) / CUTS)
    step = _block(CUTS * each, ert) if long_runs else 1
    starts = np.arange(0, horizon, step)
    kept = math.ceil(max(STREAMS_MIN, _KEPT * CUTS * each * horizon / ert))
    highest = _Highest(min(kept, CUTS * each), len(starts))
    held = min(_HELD_HORIZONS * horizon, len(reference) // 2)
    for _ in range(CUTS):
        apart = generator.permutation(len(reference))[:held]
        tracker = without(apart)
        prepared = tracker.prepare(reference[apart])
        for _ in range(each):
            rows = generator.integers(held, size=horizon) if long_runs else generator.permutation(held)[:horizon]
            path = np.fmax.reduce(tracker.simulate(prepared[rows]), axis=1)
            highest.add(path if step == 1 else np.fmax.reduceat(path, starts))
    return np.repeat(_thresholds(highest.paths(), CUTS * each, ert, step), step)[:horizon]


def _block(streams: int, ert: int) -> int:
    """Rows that share a threshold."""
    return max(1, math.ceil(ALARMS * ert / streams))


class _Highest:
    """Of many paths those that come highest: the others never alarm, and there may be millions.

    Args:
        count: how many.
    """

    def __init__(self, count: int, horizon: int) -> None:
        self._count = count
        self._paths = np.empty((2 * count, horizon))
        self._filled = 0

    def add(self, path: Floats) -> None:
        if self._filled == len(self._paths):
            self._paths[: self._count] = self.paths()
            self._filled = self._count
        self._paths[self._filled] = path
        self._filled += 1

    def paths(self) -> Floats:
        filled = self._paths[: self._filled]
        if self._filled <= self._count:
            return filled
        return filled[np.argsort(-np.fmax.reduce(filled, axis=1), kind="stable")[: self._count]]


def _thresholds(paths: Floats, streams: int, ert: int, step: int) -> Floats:
    """Of the highest (k, columns) among so many streams, `step` rows a column: one for each block of rows, as short as
    `ALARMS` allow; the last block is long.
    """
    horizon = paths.shape[1]
    limits = np.full(horizon, np.inf)
    tested = ~np.isnan(paths).all(axis=0)
    if not tested.any():
        return limits
    start = int(np.argmax(tested))
    # From two thirds on every window is one without memory of the start: those rows share one threshold.
    steady = max(start, 2 * horizon // 3)
    length = math.ceil(_block(streams, ert) / step)
    left = streams
    while start < horizon:
        stop = min(start + length, steady) if start < steady else horizon
        largest = np.fmax.reduce(paths[:, start:stop], axis=1)
        # Where values are missing, some streams have nothing to say yet, and come last: they count as the largest, for
        # a threshold by the few that say something would be too low for a stream in which nothing is missing.
        highest = np.sort(largest)
        share = -math.expm1((stop - start) * step * math.log1p(-1 / ert))
        # The k-th largest: at most k streams of those left lie above it, fewer where the statistic is discrete.
        above = min(len(highest) - 1, math.floor(share * left))
        limit = highest[len(highest) - 1 - above]
        limits[start:stop] = np.inf if np.isnan(limit) else limit
        alarming = largest > limits[start]
        paths, left = paths[~alarming], left - int(np.count_nonzero(alarming))
        start = stop
    return limits
