"""Outliers by the error of principal components."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from detectors.base import Array, require_fraction
from detectors.components import Components
from detectors.outlier.detector import OutlierDetector

Floats = npt.NDArray[np.float64]


class PcaOutlier(OutlierDetector):
    """How far a row lies from the plane of the principal components: what the usual patterns cannot reconstruct.

    For wide tables whose columns repeat each other. A row far out *within* the plane is not strange to it: that is
    what `mahalanobis` sees. The score is the distance; a feature's share is that of its coordinates in the square.

    Args:
        contamination: the expected share of flagged rows while nothing changes, at most.
        explained: share of the variance that the kept components hold.
        seed: of the split of the reference into a part to learn from and a part to set the threshold on.

    References:
        Jackson, Mudholkar (1979): Control procedures for residuals associated with principal component analysis.
        Technometrics 21, 341-349.
    """

    method = "pca"

    def __init__(self, *, contamination: float = 0.01, explained: float = 0.8, seed: int = 0) -> None:
        self.explained = require_fraction("explained", explained, method=self.method)
        super().__init__(contamination=contamination, seed=seed, explained=self.explained)

    def _learn(self, points: Floats) -> Components:
        return Components.of(points, self.explained)

    def _read(self, arrays: Mapping[str, Array]) -> Components:
        return Components(**arrays)
