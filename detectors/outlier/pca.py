"""Outliers by the error of principal components."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detectors.base import Array, require_fraction
from detectors.distances import project
from detectors.outlier.detector import OutlierDetector

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Components:
    """The plane through the centre of the points that lies nearest to them.

    Attributes:
        centre: (D,).
        axes: (D, e), orthonormal columns, those of the largest variance first.
    """

    centre: Floats
    axes: Floats

    @classmethod
    def of(cls, points: Floats, explained: float) -> Components:
        """The fewest components that hold the share `explained` of the variance."""
        centre = points.mean(axis=0)
        variances, axes = np.linalg.eigh(np.cov(points, rowvar=False, bias=True).reshape(len(centre), len(centre)))
        held = np.cumsum(variances[::-1])
        count = int(np.searchsorted(held, explained * held[-1])) + 1
        return cls(centre, np.ascontiguousarray(axes[:, ::-1][:, :count]))

    def scores(self, points: Floats) -> Floats:
        return np.asarray(np.sqrt(self.parts(points).sum(axis=1)), dtype=np.float64)

    def parts(self, points: Floats) -> Floats:
        centred = points - self.centre
        rest = centred - project(project(centred, self.axes), np.ascontiguousarray(self.axes.T))
        return np.asarray(np.square(rest), dtype=np.float64)


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
