"""Outliers by a mixture of Gaussians."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp, softmax

from detectors.base import Array, require_at_least
from detectors.distances import project
from detectors.outlier.detector import OutlierDetector

Floats = npt.NDArray[np.float64]

#: Added to each variance, in squared standard deviations: the indicators of a category add up to a constant, and
#: without it a component would be certain of that to the last bit.
REGULARISATION: Final = 0.01


@dataclass(frozen=True, slots=True)
class Mixture:
    """c Gaussians.

    Attributes:
        centres: (c, D).
        roots: (c, D, D) Cholesky factors of the inverse covariances.
        log_weights: (c,) log of each one's weight, and of the constant of its density.
    """

    centres: Floats
    roots: Floats
    log_weights: Floats

    @classmethod
    def of(cls, points: Floats, components: int, seed: int) -> Mixture:
        # Half a second to import, which whoever only scores does without.
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture

        mixture = GaussianMixture(components, reg_covar=REGULARISATION, random_state=seed)
        with warnings.catch_warnings():
            # A mixture that was still improving is a density like any other; its threshold is set on held-out rows.
            warnings.simplefilter("ignore", ConvergenceWarning)
            mixture.fit(points)
        roots = np.ascontiguousarray(mixture.precisions_cholesky_)
        scale = np.log(np.diagonal(roots, axis1=1, axis2=2)).sum(axis=1) - points.shape[1] / 2 * np.log(2 * np.pi)
        return cls(mixture.means_, roots, np.log(mixture.weights_) + scale)

    def scores(self, points: Floats) -> Floats:
        return np.asarray(-logsumexp(self._log_densities(points), axis=0), dtype=np.float64)

    def parts(self, points: Floats) -> Floats:
        """Of each squared Mahalanobis distance what is a coordinate's, weighted by how likely a row is of each."""
        parts = np.zeros_like(points)
        likely = softmax(self._log_densities(points), axis=0)
        for centre, root, weights in zip(self.centres, self.roots, likely, strict=True):
            offsets = points - centre
            parts += weights[:, None] * offsets * project(project(offsets, root), np.ascontiguousarray(root.T))
        return np.maximum(parts, 0.0)

    def _log_densities(self, points: Floats) -> Floats:
        """(n, D) -> (c, n), each with its weight."""
        squares = [
            np.square(project(points - centre, root)).sum(axis=1)
            for centre, root in zip(self.centres, self.roots, strict=True)
        ]
        return np.asarray(self.log_weights[:, None] - np.array(squares) / 2, dtype=np.float64)


class GmmOutlier(OutlierDetector):
    """How improbable a row is under a mixture of Gaussians: minus the logarithm of its density.

    For tables of a few known groups, each with correlations of its own. A component has D² parameters for D
    coordinates, so it wants a reference of many times D rows. A feature's share is that of its coordinates in the
    squared Mahalanobis distances to the components, weighted by how likely the row is of each.

    Args:
        contamination: the expected share of flagged rows while nothing changes, at most.
        components: Gaussians.
        seed: of the split of the reference, and of the mixture's first guess.

    References:
        McLachlan, Peel (2000): Finite mixture models. Wiley; fitted by scikit-learn.
    """

    method = "gmm"

    def __init__(self, *, contamination: float = 0.01, components: int = 3, seed: int = 0) -> None:
        self.components = require_at_least("components", components, 1, method=self.method)
        super().__init__(contamination=contamination, seed=seed, components=self.components)

    def _learn(self, points: Floats) -> Mixture:
        return Mixture.of(points, self.components, self.seed)

    def _read(self, arrays: Mapping[str, Array]) -> Mixture:
        return Mixture(**arrays)
