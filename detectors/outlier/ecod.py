"""Outliers by empirical cumulative distributions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detectors.base import Array, require_at_least
from detectors.outlier.detector import OutlierDetector
from detectors.outlier.tails import of_the_thin_side, skewness, surprises

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class StrongestTail:
    """Each coordinate by its more surprising tail.

    Attributes:
        values: (D, m), each coordinate in rising order.
        skewed: (D,) -1, 0 or 1.
    """

    values: Floats
    skewed: Floats

    def scores(self, points: Floats) -> Floats:
        return np.asarray(self.parts(points).sum(axis=1), dtype=np.float64)

    def parts(self, points: Floats) -> Floats:
        left, right = surprises(points, self.values)
        return np.asarray(np.maximum(np.maximum(left, right), of_the_thin_side(left, right, self.skewed)))


class EcodOutlier(OutlierDetector):
    """How far out in the tails of the reference a row's values lie, one by one, as if they were independent.

    Nothing to tune, no distances, and every share is plain to read: of a feature's value, minus the logarithm of the
    share of the reference that is as extreme. It does not see broken correlations. The score is the sum over the
    coordinates; a row alone scores as in pyod's ECOD, which would also count the other rows of its batch.

    Args:
        contamination: the expected share of flagged rows while nothing changes, at most.
        max_reference: rows to keep, at most.
        seed: of the split of the reference, and of the draw of the rows to keep.

    References:
        Li, Zhao, Hu, Botta, Ionescu, Chen (2022): ECOD: unsupervised outlier detection using empirical cumulative
        distribution functions. IEEE TKDE 35, 12181-12193; each coordinate's stronger side, as its authors' code.
    """

    method = "ecod"

    def __init__(self, *, contamination: float = 0.01, max_reference: int = 10_000, seed: int = 0) -> None:
        self.max_reference = require_at_least("max_reference", max_reference, 2, method=self.method)
        super().__init__(contamination=contamination, seed=seed, max_reference=self.max_reference)

    def _learn(self, points: Floats) -> StrongestTail:
        kept = points[: self.max_reference]
        return StrongestTail(np.sort(kept.T, axis=1), skewness(kept))

    def _read(self, arrays: Mapping[str, Array]) -> StrongestTail:
        return StrongestTail(**arrays)
