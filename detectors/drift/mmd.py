"""Drift of whole rows by maximum mean discrepancy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from detectors.base import require_at_least
from detectors.compiled import compiled
from detectors.distances import gaussian, median_gamma
from detectors.drift.joint import JointDrift
from detectors.drift.permutation import permutation_p

Floats = npt.NDArray[np.float64]
Kernel = npt.NDArray[np.float32]


class Discrepancy:
    """The unbiased squared discrepancy of a window, and its distribution when labels are drawn anew.

    The kernel of the reference with itself is computed once. A draw chooses which n of all rows are "the window"; what
    it costs are the kernels among those n, not among all.

    Args:
        reference: (m, D).
        gamma: of the kernel exp(-gamma * squared distance).
        permutations: draws, at most.
        seed: of the draws.
    """

    def __init__(self, reference: Floats, *, gamma: float, permutations: int, seed: int) -> None:
        self._reference = np.ascontiguousarray(reference.T)
        self._gamma = gamma
        self._permutations = permutations
        self._seed = seed
        self._within = gaussian(reference, self._reference, gamma)
        np.fill_diagonal(self._within, 0.0)
        self._row_sums = self._within.sum(axis=1, dtype=np.float64)

    def run(self, window: Floats) -> tuple[float, float]:
        m, n = len(self._within), len(window)
        across = gaussian(window, self._reference, self._gamma)
        among = gaussian(window, np.ascontiguousarray(window.T), self._gamma)
        np.fill_diagonal(among, 0.0)
        row_sums = np.concatenate(
            (
                self._row_sums + across.sum(axis=0, dtype=np.float64),
                across.sum(axis=1, dtype=np.float64) + among.sum(axis=1, dtype=np.float64),
            )
        )
        total = row_sums.sum()

        def discrepancies(chosen: npt.NDArray[np.int64]) -> Floats:
            """Of (k, n) rows that are called the window, in rising order."""
            inside = _sums(chosen, self._within, across, among)
            touching = row_sums[chosen].sum(axis=1)
            between = touching - inside
            rest = total - 2.0 * between - inside
            return np.asarray(rest / (m * (m - 1)) + inside / (n * (n - 1)) - 2.0 * between / (m * n))

        def draw(generator: np.random.Generator, count: int) -> Floats:
            chosen = np.array([generator.permutation(m + n)[:n] for _ in range(count)])
            return discrepancies(np.sort(chosen, axis=1))

        observed = float(discrepancies(np.arange(m, m + n)[None])[0])
        return observed, permutation_p(observed, draw, draws=self._permutations, seed=(self._seed,))


def _subset_sums(chosen: npt.NDArray[np.int64], within: Kernel, across: Kernel, among: Kernel) -> Floats:
    """Of each (ascending) choice among reference and window rows, the sum of the kernels among the chosen."""
    m = len(within)
    out = np.zeros(len(chosen))
    for draw in range(len(chosen)):
        rows = chosen[draw]
        split = np.searchsorted(rows, m)
        total = 0.0
        for place in range(split):
            of_row = within[rows[place]]
            part = 0.0
            for other in range(place):
                part += of_row[rows[other]]
            total += part
        for place in range(split, len(rows)):
            to_reference, to_window = across[rows[place] - m], among[rows[place] - m]
            part = 0.0
            for other in range(split):
                part += to_reference[rows[other]]
            for other in range(split, place):
                part += to_window[rows[other] - m]
            total += part
        out[draw] = 2.0 * total
    return out


_sums = compiled(_subset_sums)


class MMDDrift(JointDrift):
    """The kernel two-sample test: whether any smooth function has another mean in the window than in the reference.

    Finds what no feature shows alone, such as two that no longer go together. The kernel is Gaussian, its width the
    median distance of the reference. The statistic is alibi-detect's for the same points and width; the p-value is the
    exact one of a permutation test that stops as soon as nothing could become an alarm any more.

    Args:
        p_val: significance level.
        permutations: that the p-value rests on, at most; the smallest is 1 / (permutations + 1).
        max_reference: rows of the reference to keep, at most: their kernel takes 4 bytes times their square.
        seed: of the rows kept and of the permutations.

    References:
        Gretton, Borgwardt, Rasch, Schölkopf, Smola (2012): A kernel two-sample test. J. Mach. Learn. Res. 13, 723-773.
    """

    method = "mmd"

    def __init__(
        self, *, p_val: float = 0.05, permutations: int = 999, max_reference: int = 2_000, seed: int = 0
    ) -> None:
        self.permutations = require_at_least("permutations", permutations, 19, method=self.method)
        super().__init__(p_val=p_val, max_reference=max_reference, seed=seed, permutations=permutations)

    def _against(self, reference: Floats) -> Discrepancy:
        return Discrepancy(reference, gamma=median_gamma(reference), permutations=self.permutations, seed=self.seed)
