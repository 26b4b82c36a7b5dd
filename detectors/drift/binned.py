"""The Kolmogorov-Smirnov test of numbers that were counted in bins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Self

import numpy as np
import numpy.typing as npt

from detectors.base import Array
from detectors.drift.distances import HALF, psi
from detectors.drift.feature_test import MIN_ROWS, Settings, Signal
from detectors.drift.kolmogorov import survivals
from detectors.drift.numeric import numbers, sorted_values
from detectors.drift.univariate import GUARDED_VALUES, UNTESTED, Counts, Floats, Outcome, guarded
from govern.frame import Frame
from govern.schema import Feature

#: Bins of a numeric feature: finer ones cost memory; of coarser ones, the distance between the edges is missed.
BINS: Final = 256
#: The effect size is that of reports: over ten groups of bins, which would be deciles if they could be cut anywhere.
_GROUPS: Final = 10
#: Of a float32, all but its sign. Its leading bits are the exponent and seven of the mantissa: 128 cells an octave.
SIZE: Final = 0x7FFFFFFF
DROPPED: Final = 16
#: Leading bits of an infinite float32.
_INFINITE: Final = 0x7F80
#: 32 octaves; a table of 16 KiB stays in the processor's cache.
_MOST_CELLS: Final = 32 * 128


def cut(values: Floats, bins: int) -> Floats:
    """Where to cut numbers into bins: (k,) float64, rising, k < bins. An edge belongs to the bin above it.

    Edges are quantiles of the values. A value that more than one bin's share of them equals has a bin of its own; where
    there are less than half as many distinct values as bins, each has.

    Args:
        values: (n,) float64, sorted, without NaN.
    """
    distinct = values[np.append(True, values[1:] != values[:-1])]
    if 2 * len(distinct) < bins:
        return np.union1d(distinct, next_to(distinct, np.inf))
    ranks = -(-np.arange(1, bins) * len(values) // bins) - 1
    quantiles = values[ranks]
    often = quantiles[1:][quantiles[1:] == quantiles[:-1]]
    return np.union1d(quantiles, next_to(often, np.inf))


def next_to(numbers: Floats, towards: float) -> Floats:
    """The next float of each, which past the largest is infinite."""
    with np.errstate(over="ignore"):
        found: Floats = np.nextafter(numbers, towards)
    return found


@dataclass(frozen=True, slots=True)
class Guide:
    """A table that says nearly which bin a number falls into, so that few edges need be compared with it.

    The leading bits of a float are the logarithm of its size, by which the distance from the middle edge is looked up:
    so a cell of the table holds about one edge at most, also where tails are heavy.

    Attributes:
        edges: (k,) float64, as `cut` gives them.
        centre: the middle edge.
        base, reach: leading bits of the smallest and the largest distance that are told apart.
        before: (2 reach + 2,) uint16, how many edges are in the cells before each.
    """

    edges: Floats
    centre: float
    base: int
    reach: int
    before: npt.NDArray[np.uint16]

    @classmethod
    def of(cls, edges: Floats) -> Self:
        finite = edges[np.isfinite(edges)]
        centre = float(finite[len(finite) // 2]) if len(finite) else 0.0
        with np.errstate(over="ignore"):
            bits = (edges - centre).astype(np.float32).view(np.int32)
        sizes = (bits & SIZE) >> DROPPED
        apart = sizes[(sizes > 0) & (sizes < _INFINITE)]
        largest = int(apart.max(initial=1))
        base = max(int(apart.min(initial=largest)), largest - _MOST_CELLS + 1)
        reach = largest - base + 1
        cells = np.clip(sizes - base + 1, 0, reach)
        cells = np.where(bits < 0, reach - cells, reach + cells)
        return cls(edges, centre, base, reach, np.searchsorted(cells, np.arange(2 * reach + 2)).astype(np.uint16))

    def count(self, column: Floats, counts: Counts, ends: Floats) -> None:
        """Add (n,) numbers to (2 + k,) int64 counts, those that are missing first; widen (2,) ends to hold them."""
        from detectors.drift.counting import count  # numba, which the other tests of a battery do without

        # A copy can be written to: for what cannot, all would be compiled once more, while a window waits.
        count(
            np.array(column, dtype=np.float64),
            self.edges,
            self.centre,
            self.base,
            self.reach,
            self.before,
            counts,
            ends,
        )


@dataclass(frozen=True, slots=True)
class BinnedKolmogorovSmirnov:
    """Of the largest distance between the distribution functions where two bins meet.

    That is never more than the distance anywhere, of which it takes the p-value: so it is never too small, whichever
    bins they are, also with the reference's own quantiles. What it may miss of the distance is less than the share of a
    bin, unless the window's values crowd between two edges.

    Attributes:
        edges: (k,) float64, as `cut` gives them.
        counts: (1 + k,) int64, the reference's.
    """

    signal: ClassVar[Signal] = ""
    always_told: ClassVar[bool] = True
    statistic_name: ClassVar[str] = "ks"
    effect_size_name: ClassVar[str] = "psi"

    position: int
    edges: Floats
    counts: Counts

    @classmethod
    def of(cls, reference: Frame, position: int, *, bins: int = BINS) -> Self:
        values = sorted_values(reference, position)
        edges = cut(values, bins)
        return cls(position, edges, np.diff(values.searchsorted(edges), prepend=0, append=len(values)))

    @classmethod
    def read(cls, position: int, state: Array, feature: Feature) -> Self:
        edges, counts = state[: len(state) // 2], state[len(state) // 2 :]
        if feature.kind != "numeric" or len(edges) + 1 != len(counts) or not (counts >= 0).all():
            raise ValueError("it holds no counts of bins")
        if state.dtype != np.float64 or counts.sum() < MIN_ROWS or (np.diff(edges) <= 0).any():
            raise ValueError("it holds no bins")
        return cls(position, edges, counts.astype(np.int64))

    def run(self, window: Frame, how: Settings) -> Outcome:
        counts = np.zeros(1 + len(self.counts), dtype=np.int64)
        Guide.of(self.edges).count(numbers(window, self.position), counts, np.array([np.inf, -np.inf]))
        return outcomes_of([self], counts[1:], how)[0]

    def state(self) -> Array:
        return np.concatenate((self.edges, self.counts))


def outcomes_of(tests: Sequence[BinnedKolmogorovSmirnov], window: Counts, how: Settings) -> list[Outcome]:
    """What the tests find of a window's counts, those of each test's bins one after the other."""
    sizes = np.array([len(test.counts) for test in tests])
    starts = np.concatenate(([0], np.cumsum(sizes)[:-1]))
    reference = np.concatenate([test.counts for test in tests])
    n, m = np.add.reduceat(reference, starts), np.add.reduceat(window, starts)
    below, of_reference = _below(reference, starts, sizes)
    _, of_window = _below(window, starts, sizes)
    apart = np.abs(of_reference / np.repeat(n, sizes) - of_window / np.repeat(np.maximum(m, 1), sizes))
    distance = np.maximum.reduceat(apart, starts)
    p_values = survivals(distance, np.maximum(1, np.rint(n * m / (n + m))).astype(np.int64))
    tenth = np.minimum(below * _GROUPS // np.repeat(n, sizes), _GROUPS - 1)
    effect = _stability(np.repeat(np.arange(len(tests)) * _GROUPS, sizes) + tenth, reference, window)
    found = []
    for i, (test, start) in enumerate(zip(tests, starts.tolist(), strict=True)):
        if not m[i]:
            found.append(UNTESTED)
            continue
        p_value = float(p_values[i])
        if how.tail == "exact" or min(n[i], m[i]) <= GUARDED_VALUES:
            places = np.arange(len(test.counts), dtype=np.float64)
            here = window[start : start + len(test.counts)]
            p_value = 0.0 if how.tail == "exact" else p_value
            p_value = guarded(np.repeat(places, test.counts), np.repeat(places, here), p_value, how.tail, how.level)
        found.append(Outcome(float(distance[i]), p_value, float(effect[i]), int(m[i])))
    return found


def _below(counts: Counts, starts: Counts, sizes: Counts) -> tuple[Counts, Counts]:
    """How many values are in the bins before each of its feature, and with its own."""
    upto = np.cumsum(counts)
    upto -= np.repeat(upto[starts] - counts[starts], sizes)
    return upto - counts, upto


def _stability(groups: Counts, reference: Counts, window: Counts) -> Floats:
    """The population stability index of each feature over its groups of bins."""
    length = (int(groups[-1]) // _GROUPS + 1) * _GROUPS
    some = np.bincount(groups, minlength=length).reshape(-1, _GROUPS) > 0

    def shares(counts: Counts) -> Floats:
        grouped = np.bincount(groups, counts, length).reshape(-1, _GROUPS)
        all_of = grouped.sum(axis=1, keepdims=True) + HALF * some.sum(axis=1, keepdims=True)
        return np.where(some, (grouped + HALF) / all_of, 1.0)

    return psi(shares(window), shares(reference))
