"""Drift of whole rows by least-squares density difference."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from detectors.base import require_at_least
from detectors.distances import gaussian, median_gamma, project
from detectors.drift.joint import JointDrift
from detectors.drift.permutation import permutation_p

Floats = npt.NDArray[np.float64]

#: Kernels that the difference of densities is a sum of, and the most of the reference that they may take.
CENTRES: Final = 100
_LARGEST_SHARE: Final = 0.25
#: Keeps the weights of kernels that nearly coincide from growing against each other; a kernel with itself is 1.
RIDGE: Final = 0.01


class DensityFeatures:
    """Coordinates of points in which squared distances of means are differences of densities, up to a constant.

    The difference is modelled as a sum of Gaussians. For coefficients fitted by ridge regression, the integral of its
    square is a quadratic form of the difference of mean kernels.

    Args:
        centres: (c, D) of the Gaussians, used for nothing else.
        gamma: of the kernel exp(-gamma * squared distance).
        ridge: of the regression.
    """

    def __init__(self, centres: Floats, *, gamma: float, ridge: float = RIDGE) -> None:
        self._centres = np.ascontiguousarray(centres.T)
        self._gamma = gamma
        # Two Gaussians' product integrates to one of half their exponent; the constant before it is left out.
        overlap = gaussian(centres, self._centres, gamma / 2, dtype=np.float64)
        sizes, axes = np.linalg.eigh((overlap + overlap.T) / 2)
        # 2 g'(H + r)^-1 g - g'(H + r)^-1 H (H + r)^-1 g, by eigenvector: (s + 2r) / (s + r)^2.
        weights = (np.maximum(sizes, 0.0) + 2 * ridge) / np.square(np.maximum(sizes, 0.0) + ridge)
        self._axes = np.ascontiguousarray(axes * np.sqrt(weights))

    def of(self, points: Floats) -> Floats:
        """(n, D) -> (n, c)."""
        return project(gaussian(points, self._centres, self._gamma, dtype=np.float64), self._axes)


def centres_of(reference: Floats) -> int:
    """How many of its first rows become centres."""
    return min(CENTRES, int(_LARGEST_SHARE * len(reference)))


class DensityDifference:
    """The integral of the squared difference of two densities (`DensityFeatures`), and its distribution under new
    labels, of which a draw costs n additions.

    Args:
        reference: (m, D); its first rows become centres.
        gamma: of the kernel exp(-gamma * squared distance).
        permutations: draws, at most.
        seed: of the draws.
        ridge: of the regression.
    """

    def __init__(self, reference: Floats, *, gamma: float, permutations: int, seed: int, ridge: float = RIDGE) -> None:
        centres = centres_of(reference)
        self._features = DensityFeatures(reference[:centres], gamma=gamma, ridge=ridge)
        self._permutations = permutations
        self._seed = seed
        self._known = self._features.of(reference[centres:])

    def run(self, window: Floats) -> tuple[float, float]:
        n = len(window)
        pooled = np.concatenate((self._known, self._features.of(window)))
        total = pooled.sum(axis=0)
        m = len(pooled) - n

        def difference(chosen: npt.NDArray[np.int64]) -> float:
            inside = pooled[chosen].sum(axis=0)
            return float(np.square((total - inside) / m - inside / n).sum())

        def draw(generator: np.random.Generator, count: int) -> Floats:
            return np.array([difference(generator.permutation(m + n)[:n]) for _ in range(count)])

        observed = difference(np.arange(m, m + n))
        return observed, permutation_p(observed, draw, draws=self._permutations, seed=(self._seed,))


class LSDDDrift(JointDrift):
    """Whether the densities of window and reference differ, estimated as one function instead of two.

    Sees what `mmd` sees, but weighs a difference by its density rather than by its smoothness, and costs less: each
    permutation is a sum of n short rows. The statistic is a squared distance of densities up to a constant, so it
    compares windows of one detector and nothing else.

    Args:
        p_val: significance level.
        permutations: that the p-value rests on, at most; the smallest is 1 / (permutations + 1).
        max_reference: rows of the reference to keep, at most.
        seed: of the rows kept and of the permutations.

    References:
        Sugiyama, Kanamori, Suzuki, du Plessis, Liu, Takeuchi (2013): Density-difference estimation. Neural
        Computation 25, 2734-2775;
        Bu, Alippi, Zhao (2018): A pdf-free change detection test based on density difference estimation. IEEE TNNLS
        29, 324-334.
    """

    method = "lsdd"

    def __init__(
        self, *, p_val: float = 0.05, permutations: int = 999, max_reference: int = 10_000, seed: int = 0
    ) -> None:
        self.permutations = require_at_least("permutations", permutations, 19, method=self.method)
        super().__init__(p_val=p_val, max_reference=max_reference, seed=seed, permutations=permutations)

    def _against(self, reference: Floats) -> DensityDifference:
        return DensityDifference(
            reference, gamma=median_gamma(reference), permutations=self.permutations, seed=self.seed
        )
