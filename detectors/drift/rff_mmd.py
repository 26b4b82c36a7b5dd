"""Drift of whole rows by maximum mean discrepancy, its kernel taken by random features: for large windows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from detectors.base import require_at_least
from detectors.compiled import compiled
from detectors.drift.joint import JointDrift
from detectors.drift.permutation import permutation_p
from detectors.kernels import Radial, require_kernel

Floats = npt.NDArray[np.float64]


class FeatureDiscrepancy:
    """The unbiased squared discrepancy of a window's random features, and its distribution when labels are drawn anew.

    The features of the reference are computed once. What is between rows follows from the sum of features of each side,
    so a draw costs one sum over the n rows that it calls the window.

    Args:
        reference: (m, D).
        kernel: that the features stand for.
        frequencies: of the features.
        permutations: draws, at most.
        seed: of the frequencies and of the draws.
    """

    def __init__(self, reference: Floats, *, kernel: Radial, frequencies: int, permutations: int, seed: int) -> None:
        self._features = kernel.features(reference.shape[1], seed=seed, frequencies=frequencies)
        self._placed = self._features.of(reference)
        self._permutations = permutations
        self._seed = seed

    def run(self, window: Floats) -> tuple[float, float]:
        m, n = len(self._placed), len(window)
        placed = np.concatenate((self._placed, self._features.of(window)))
        total = placed.sum(axis=0)

        def discrepancies(chosen: npt.NDArray[np.int64]) -> Floats:
            """Of (k, n) rows that are called the window, in rising order."""
            inside = _sums(chosen, placed)
            outside = total - inside
            # A row with itself is a product of 1, and no pair.
            among = (np.square(inside).sum(axis=1) - n) / (n * (n - 1))
            rest = (np.square(outside).sum(axis=1) - m) / (m * (m - 1))
            return np.asarray(rest + among - 2.0 * (inside * outside).sum(axis=1) / (m * n))

        def draw(generator: np.random.Generator, count: int) -> Floats:
            chosen = np.array([generator.permutation(m + n)[:n] for _ in range(count)])
            return discrepancies(np.sort(chosen, axis=1))

        observed = float(discrepancies(np.arange(m, m + n)[None])[0])
        return observed, permutation_p(observed, draw, draws=self._permutations, seed=(self._seed,))


def _row_sums(chosen: npt.NDArray[np.int64], placed: Floats) -> Floats:
    """Of each choice of rows, their sum: (k, n) of (m + n, F) -> (k, F)."""
    out = np.zeros((len(chosen), placed.shape[1]))
    for draw in range(len(chosen)):
        for place in range(chosen.shape[1]):
            row = placed[chosen[draw, place]]
            for at in range(placed.shape[1]):
                out[draw, at] += row[at]
    return out


_sums = compiled(_row_sums)


class RandomFeatureMMDDrift(JointDrift):
    """The kernel two-sample test of `mmd` by random Fourier features: memory and time grow with the rows alone.

    The frequencies are drawn from the seed before any window is seen, so the permutation test is as exact as
    that of `mmd`: they cost power, never false alarms. The statistic is that of `mmd` up to the error of the features.

    Args:
        p_val: significance level.
        kernel: one of `kernels.BUILT_IN`, its width the median distance of the reference.
        permutations: that the p-value rests on, at most; the smallest is 1 / (permutations + 1).
        frequencies: the kernel of two rows is right to 1 / sqrt(frequencies); 16 bytes of each for a reference row.
        max_reference: rows of the reference to keep, at most.
        seed: of the rows kept, of the frequencies and of the permutations.

    References:
        Rahimi, Recht (2007): Random features for large-scale kernel machines. NeurIPS 20;
        Zhao, Meng (2015): FastMMD: ensemble of circular discrepancy for efficient two-sample test. Neural Comput. 27,
        1345-1372; Gretton et al. (2012): A kernel two-sample test. J. Mach. Learn. Res. 13, 723-773.
    """

    method = "rff_mmd"

    def __init__(
        self,
        *,
        p_val: float = 0.05,
        kernel: str = "gaussian",
        permutations: int = 999,
        frequencies: int = 256,
        max_reference: int = 10_000,
        seed: int = 0,
    ) -> None:
        self.kernel = require_kernel(kernel, method=self.method, own=False)
        self.permutations = require_at_least("permutations", permutations, 19, method=self.method)
        self.frequencies = require_at_least("frequencies", frequencies, 16, method=self.method)
        super().__init__(
            p_val=p_val,
            max_reference=max_reference,
            seed=seed,
            permutations=permutations,
            frequencies=frequencies,
            kernel=kernel,
        )

    def _against(self, reference: Floats) -> FeatureDiscrepancy:
        return FeatureDiscrepancy(
            reference,
            kernel=Radial.of(self.kernel, reference),
            frequencies=self.frequencies,
            permutations=self.permutations,
            seed=self.seed,
        )
