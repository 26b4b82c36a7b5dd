"""Outliers by Mahalanobis distance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detectors.base import Array
from detectors.distances import project
from detectors.outlier.detector import OutlierDetector

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Whitening:
    """The centre of the points, and the symmetric root of their inverse covariance.

    Attributes:
        centre: (D,).
        root: (D, D), symmetric; centred points times it are uncorrelated and of variance 1.
    """

    centre: Floats
    root: Floats

    @classmethod
    def of(cls, points: Floats) -> Whitening:
        centre = points.mean(axis=0)
        variances, axes = np.linalg.eigh(np.cov(points, rowvar=False, bias=True).reshape(len(centre), len(centre)))
        # Of a direction in which n points do not vary, nothing tells a variance below 1/n from zero.
        root = (axes / np.sqrt(np.maximum(variances, 1.0 / len(points)))) @ axes.T
        return cls(centre, root)

    def scores(self, points: Floats) -> Floats:
        return np.asarray(np.sqrt(self.parts(points).sum(axis=1)), dtype=np.float64)

    def parts(self, points: Floats) -> Floats:
        return np.asarray(np.square(project(points - self.centre, self.root)), dtype=np.float64)


class MahalanobisOutlier(OutlierDetector):
    """How far a row lies from the centre, in standard deviations along the directions in which rows vary together.

    The first choice for tables of correlated numbers with one centre: a row is found that breaks a correlation,
    although each of its values is ordinary. The score is the distance, not its square; a feature's share is that of
    its whitened coordinates in the square.

    Args:
        contamination: the expected share of flagged rows while nothing changes, at most.
        seed: of the split of the reference into a part to learn from and a part to set the threshold on.

    References:
        Mahalanobis (1936): On the generalised distance in statistics. Proc. Nat. Inst. Sci. India 2, 49-55;
        Garthwaite, Koch (2016): Evaluating the contributions of individual variables to a quadratic form.
        Austral. N. Z. J. Statist. 58, 99-119 (the shares).
    """

    method = "mahalanobis"

    def __init__(self, *, contamination: float = 0.01, seed: int = 0) -> None:
        super().__init__(contamination=contamination, seed=seed)

    def _learn(self, points: Floats) -> Whitening:
        return Whitening.of(points)

    def _read(self, arrays: Mapping[str, Array]) -> Whitening:
        return Whitening(**arrays)
