"""Outliers by a one-class support vector machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detectors.base import Array, require_at_least, require_fraction
from detectors.distances import gaussian_sums
from detectors.outlier.detector import OutlierDetector

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Boundary:
    """The surface that the machine drew around the reference.

    Attributes:
        vectors: (D, s) support vectors, by coordinate.
        weights: (s,) of them.
        gamma: () of the kernel exp(-gamma * squared distance).
        offset: () the weighted sum of kernels on the surface.
    """

    vectors: Floats
    weights: Floats
    gamma: Floats
    offset: Floats

    @classmethod
    def of(cls, points: Floats, nu: float) -> Boundary:
        from sklearn.svm import OneClassSVM  # half a second to import, which whoever only scores does without

        machine = OneClassSVM(kernel="rbf", gamma="scale", nu=nu).fit(points)
        # What gamma="scale" stands for, by scikit-learn's documentation.
        gamma = 1.0 / (points.shape[1] * points.var())
        vectors = np.ascontiguousarray(machine.support_vectors_.T)
        return cls(vectors, np.ravel(machine.dual_coef_).copy(), np.array(gamma), np.array(float(machine.offset_[0])))

    def scores(self, points: Floats) -> Floats:
        return float(self.offset) - gaussian_sums(points, self.vectors, self.weights, float(self.gamma))

    def parts(self, points: Floats) -> Floats:
        """The square of each coordinate's way to where the kernel's sum rises: the mean shift."""
        parts = np.empty_like(points)
        for row, point in enumerate(points):
            squares = np.square(self.vectors - point[:, None]).sum(axis=0)
            # Relative to the nearest, so that of a row far out not all of them vanish.
            weights = self.weights * np.exp(-self.gamma * (squares - squares.min()))
            parts[row] = np.square((self.vectors * weights).sum(axis=1) / weights.sum() - point)
        return parts


class OneClassSvmOutlier(OutlierDetector):
    """On which side of a smooth surface around the reference a row lies, and how far: above 0 it lies outside.

    For tables whose ordinary rows fill one region of any shape. One row costs as many distances as the machine has
    support vectors, a little more than `nu` times the rows it learned from. A feature's share is that of its
    coordinates in the square of the way to the surface's inside (the mean shift, along the gradient of the score).

    Args:
        contamination: the expected share of flagged rows while nothing changes, at most; of the threshold, which is
            set on held-out rows and need not be 0.
        nu: share of the reference that the surface may leave outside.
        max_reference: rows to learn from, at most: fitting takes more than the square of their number.
        seed: of the split of the reference, and of the draw of the rows to learn from.

    References:
        Schölkopf, Platt, Shawe-Taylor, Smola, Williamson (2001): Estimating the support of a high-dimensional
        distribution. Neural Computation 13, 1443-1471; fitted by scikit-learn;
        Comaniciu, Meer (2002): Mean shift: a robust approach toward feature space analysis. IEEE Trans. Pattern Anal.
        Mach. Intell. 24, 603-619 (the shares).
    """

    method = "one_class_svm"

    def __init__(
        self, *, contamination: float = 0.01, nu: float = 0.1, max_reference: int = 5_000, seed: int = 0
    ) -> None:
        self.nu = require_fraction("nu", nu, method=self.method)
        self.max_reference = require_at_least("max_reference", max_reference, 2, method=self.method)
        super().__init__(contamination=contamination, seed=seed, nu=self.nu, max_reference=self.max_reference)

    def _learn(self, points: Floats) -> Boundary:
        return Boundary.of(points[: self.max_reference], self.nu)

    def _read(self, arrays: Mapping[str, Array]) -> Boundary:
        return Boundary(**arrays)
