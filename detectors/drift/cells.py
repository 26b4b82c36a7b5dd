"""Tests by a distance between the shares of cells, whose null distribution is that of permuted rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, Self

import numpy as np

from detectors.base import Array
from detectors.drift.categorical import as_counts, counts_of, permuted_p
from detectors.drift.distances import HALF, hellinger, jensen_shannon, l_infinity, psi
from detectors.drift.feature_test import Settings, Signal
from detectors.drift.numeric import numbers, values_of
from detectors.drift.univariate import CODE_OFFSET, UNTESTED, Counts, Floats, Outcome
from govern.frame import Frame
from govern.schema import Feature

#: Bins of a numeric feature, with equal shares of the reference: ten, as is usual for the population stability index.
BINS: Final = 10
#: Share of the reference's values that set the bins' edges and are not counted, and how many suffice.
_EDGES_SHARE: Final = 0.2
_EDGES_MOST: Final = 1000
#: Sets which values these are.
_EDGES_SEED: Final = 20_201


@dataclass(frozen=True, slots=True)
class CellDistance:
    """A distance between reference and window, over cells that neither of them has chosen.

    Attributes:
        edges: (k - 1,) float64, sorted, where the bins of a numeric feature meet (an edge belongs to the bin above
            it); empty for a categorical one. They are quantiles of values that `counts` leaves out: so every value that
            is counted, of reference and window, is equally free to fall into any bin, and permuting them is exact.
        counts: (k,) int64, the reference's.
    """

    signal: ClassVar[Signal] = ""
    always_told: ClassVar[bool] = True
    statistic_name: ClassVar[str]
    effect_size_name: ClassVar[str]
    distance: ClassVar[staticmethod[[Floats, Floats], Floats]]
    #: Added to counts before they are turned to shares.
    smoothing: ClassVar[float] = 0.0

    position: int
    edges: Floats
    counts: Counts

    @classmethod
    def of(cls, reference: Frame, position: int) -> Self:
        if reference.schema.features[position].kind == "categorical":
            return cls(position, np.empty(0), counts_of(reference, position)[CODE_OFFSET:])
        values = values_of(reference, position)
        shuffled = np.random.default_rng((_EDGES_SEED, position)).permutation(values)
        setting = min(_EDGES_MOST, max(1, int(_EDGES_SHARE * len(values))))
        inner = np.arange(1, BINS) / BINS
        edges = np.unique(np.quantile(shuffled[:setting], inner, method="inverted_cdf"))
        return cls(position, edges, _binned(shuffled[setting:], edges))

    @classmethod
    def read(cls, position: int, state: Array, feature: Feature) -> Self:
        if feature.kind == "categorical":
            counts = as_counts(np.concatenate((np.zeros(CODE_OFFSET, np.int64), state)), len(feature.categories))
            return cls(position, np.empty(0), counts[CODE_OFFSET:])
        edges, counts = state[: len(state) // 2], state[len(state) // 2 :]
        if (
            state.dtype != np.float64
            or len(edges) + 1 != len(counts)
            or (counts < 0).any()
            or (np.diff(edges) <= 0).any()
        ):
            raise ValueError("it holds no bins")
        return cls(position, edges, counts.astype(np.int64))

    def run(self, window: Frame, how: Settings) -> Outcome:
        if len(self.edges):
            column = numbers(window, self.position)
            counts = _binned(column[~np.isnan(column)], self.edges)
        else:
            counts = counts_of(window, self.position)[CODE_OFFSET:]
        table = np.stack((self.counts, counts))[:, self.counts + counts > 0]
        n = int(table[1].sum())
        if n == 0 or not self.counts.any():
            return UNTESTED
        if table.shape[1] < 2:
            return Outcome(0.0, 1.0, 0.0, n)
        found = float(self._between(table[1:].astype(np.float64), table.sum(axis=0).astype(np.float64), n)[0])
        p_value = permuted_p(table, self._between, draws=how.draws, seed=(how.seed, self.position))
        return Outcome(found, p_value, found, n)

    def state(self) -> Array:
        return np.concatenate((self.edges, self.counts)) if len(self.edges) else self.counts

    def _between(self, windows: Floats, totals: Floats, n: int) -> Floats:
        """(b,) float64: the distance of (b, k) windows of n rows from what each leaves of (k,) `totals`."""
        added = self.smoothing
        p = (windows + added) / (n + added * len(totals))
        q = (totals - windows + added) / (totals.sum() - n + added * len(totals))
        return type(self).distance(p, q)


class PopulationStability(CellDistance):
    statistic_name = "psi"
    effect_size_name = "psi"
    distance = staticmethod(psi)
    smoothing = HALF


class JensenShannon(CellDistance):
    statistic_name = "jensen_shannon"
    effect_size_name = "jensen_shannon"
    distance = staticmethod(jensen_shannon)


class Hellinger(CellDistance):
    statistic_name = "hellinger"
    effect_size_name = "hellinger"
    distance = staticmethod(hellinger)


class LInfinity(CellDistance):
    statistic_name = "l_infinity"
    effect_size_name = "l_infinity"
    distance = staticmethod(l_infinity)


def _binned(values: Floats, edges: Floats) -> Counts:
    return np.bincount(edges.searchsorted(values, side="right"), minlength=len(edges) + 1).astype(np.int64)
