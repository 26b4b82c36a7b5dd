"""Outliers by the distance to the nearest neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detectors.base import Array, require_at_least
from detectors.distances import nearest
from detectors.outlier.detector import OutlierDetector

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Points that were kept.

    Attributes:
        kept: (D, m), by coordinate.
        k: () int64.
    """

    kept: Floats
    k: npt.NDArray[np.int64]

    def scores(self, points: Floats) -> Floats:
        return np.ascontiguousarray(nearest(points, self.kept, int(self.k))[0][:, -1])

    def parts(self, points: Floats) -> Floats:
        _, where = nearest(points, self.kept, int(self.k))
        return np.asarray(np.square(points - self.kept.T[where[:, -1]]), dtype=np.float64)


class KnnOutlier(OutlierDetector):
    """How far a row's k-th nearest neighbour in the reference is.

    For tables with several clusters, of any shape. One row costs as many distances as rows are kept: some 2,000 tell
    nearly as much as all (Sugiyama, Borgwardt). A feature's share is that of its coordinates in the squared distance.

    Args:
        contamination: the expected share of flagged rows while nothing changes, at most.
        k: the neighbour that counts.
        max_reference: rows to keep, at most.
        seed: of the split of the reference, and of the draw of the rows to keep.

    References:
        Ramaswamy, Rastogi, Shim (2000): Efficient algorithms for mining outliers from large data sets. SIGMOD,
        427-438;
        Sugiyama, Borgwardt (2013): Rapid distance-based outlier detection via sampling. NeurIPS 26.
    """

    method = "knn"

    def __init__(self, *, contamination: float = 0.01, k: int = 10, max_reference: int = 2_000, seed: int = 0) -> None:
        self.k = require_at_least("k", k, 1, method=self.method)
        self.max_reference = require_at_least("max_reference", max_reference, self.k, method=self.method)
        super().__init__(contamination=contamination, seed=seed, k=self.k, max_reference=self.max_reference)

    def _learn(self, points: Floats) -> Neighbours:
        kept = points[: self.max_reference]
        return Neighbours(np.ascontiguousarray(kept.T), np.array(min(self.k, len(kept)), dtype=np.int64))

    def _read(self, arrays: Mapping[str, Array]) -> Neighbours:
        return Neighbours(**arrays)
