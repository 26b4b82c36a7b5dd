"""Outliers by an empirical copula."""

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
class BothTails:
    """Each coordinate by the mean of its two tails, or by the one to which it is skewed.

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
        return np.asarray(np.maximum((left + right) / 2, of_the_thin_side(left, right, self.skewed)))


class CopodOutlier(OutlierDetector):
    """How improbable a row's values are under the empirical copula of the reference: `ecod`'s elder sister.

    Where a coordinate is skewed only its long tail is strange, however far out the other one is. The score is the
    sum over the coordinates; a row alone scores as in pyod's COPOD, which would also count the other rows of its batch.

    Args:
        contamination: the expected share of flagged rows while nothing changes, at most.
        max_reference: rows to keep, at most.
        seed: of the split of the reference, and of the draw of the rows to keep.

    References:
        Li, Zhao, Botta, Ionescu, Hu (2020): COPOD: copula-based outlier detection. ICDM, 1118-1123.
    """

    method = "copod"

    def __init__(self, *, contamination: float = 0.01, max_reference: int = 10_000, seed: int = 0) -> None:
        self.max_reference = require_at_least("max_reference", max_reference, 2, method=self.method)
        super().__init__(contamination=contamination, seed=seed, max_reference=self.max_reference)

    def _learn(self, points: Floats) -> BothTails:
        kept = points[: self.max_reference]
        return BothTails(np.sort(kept.T, axis=1), skewness(kept))

    def _read(self, arrays: Mapping[str, Array]) -> BothTails:
        return BothTails(**arrays)
