"""Outliers by local outlier factor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from detectors.base import Array, require_at_least
from detectors.distances import nearest
from detectors.outlier.detector import OutlierDetector

Floats = npt.NDArray[np.float64]

#: Added to a mean distance, so that k equal rows do not make an infinite density (scikit-learn's value).
_TINY: Final = 1e-10


@dataclass(frozen=True, slots=True)
class Densities:
    """Points that were kept, and how dense the reference is around each.

    Attributes:
        kept: (D, m), by coordinate.
        reach: (m,) distance of each to its own k-th neighbour.
        density: (m,) local reachability density of each.
        k: () int64.
    """

    kept: Floats
    reach: Floats
    density: Floats
    k: npt.NDArray[np.int64]

    @classmethod
    def of(cls, points: Floats, k: int) -> Densities:
        kept = np.ascontiguousarray(points.T)
        distances, where = nearest(points, kept, k, same=True)
        reach = np.ascontiguousarray(distances[:, -1])
        return cls(kept, reach, _density(distances, reach[where]), np.array(k, dtype=np.int64))

    def scores(self, points: Floats) -> Floats:
        distances, where = nearest(points, self.kept, int(self.k))
        own = _density(distances, self.reach[where])
        return np.asarray(self.density[where].mean(axis=1) / own, dtype=np.float64)

    def parts(self, points: Floats) -> Floats:
        """Of the mean distance to the neighbours what belongs to a coordinate."""
        distances, where = nearest(points, self.kept, int(self.k))
        parts = np.zeros_like(points)
        for distance, neighbour in zip(distances.T, where.T, strict=True):
            parts += np.square(points - self.kept.T[neighbour]) / (distance + _TINY)[:, None]
        return parts


def _density(distances: Floats, reach: Floats) -> Floats:
    return np.asarray(1.0 / (np.maximum(distances, reach).mean(axis=1) + _TINY), dtype=np.float64)


class LofOutlier(OutlierDetector):
    """How much thinner the reference is around a row than around the row's neighbours.

    For tables whose clusters differ in density: what is ordinary in a wide one is strange beside a narrow one. The
    score is the factor, 1 for a row in the midst of others. Not for tables of few distinct rows: where k rows are
    equal their density has no bound, and what is not equal to them gets a factor without meaning. A feature's share
    is that of its coordinates in the mean distance to the neighbours.

    Args:
        contamination: the expected share of flagged rows while nothing changes, at most.
        k: neighbours that count.
        max_reference: rows to keep, at most; fitting takes the square of their number.
        seed: of the split of the reference, and of the draw of the rows to keep.

    References:
        Breunig, Kriegel, Ng, Sander (2000): LOF: identifying density-based local outliers. SIGMOD, 93-104.
    """

    method = "lof"

    def __init__(self, *, contamination: float = 0.01, k: int = 20, max_reference: int = 2_000, seed: int = 0) -> None:
        self.k = require_at_least("k", k, 1, method=self.method)
        self.max_reference = require_at_least("max_reference", max_reference, self.k + 1, method=self.method)
        super().__init__(contamination=contamination, seed=seed, k=self.k, max_reference=self.max_reference)

    def _learn(self, points: Floats) -> Densities:
        kept = np.ascontiguousarray(points[: self.max_reference])
        return Densities.of(kept, min(self.k, len(kept) - 1))

    def _read(self, arrays: Mapping[str, Array]) -> Densities:
        return Densities(**arrays)
