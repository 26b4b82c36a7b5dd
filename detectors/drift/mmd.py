"""Drift of whole rows by maximum mean discrepancy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from detectors.base import Array, require_at_least
from detectors.compiled import compiled
from detectors.drift.joint import JointDrift
from detectors.drift.permutation import permutation_p
from detectors.kernels import Kernel, Matrix, Radial, require_kernel
from detectors.own_kernel import is_own, recognised, stored_of

Floats = npt.NDArray[np.float64]


class Discrepancy:
    """The unbiased squared discrepancy of a window, and its distribution when labels are drawn anew.

    The kernel of the reference with itself is computed once. A draw chooses which n of all rows are "the window"; what
    it costs are the kernels among those n, not among all.

    Args:
        reference: (m, D).
        kernel: of two points.
        permutations: draws, at most.
        seed: of the draws.
    """

    def __init__(self, reference: Floats, *, kernel: Kernel, permutations: int, seed: int) -> None:
        self._kernel = kernel
        self._beside = kernel.beside(reference)
        self._permutations = permutations
        self._seed = seed
        self._within = self._beside(reference)
        np.fill_diagonal(self._within, 0.0)
        self._row_sums = self._within.sum(axis=1, dtype=np.float64)

    def run(self, window: Floats) -> tuple[float, float]:
        m, n = len(self._within), len(window)
        across = self._beside(window)
        among = self._kernel.beside(window)(window)
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


def _subset_sums(chosen: npt.NDArray[np.int64], within: Matrix, across: Matrix, among: Matrix) -> Floats:
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

    Finds what no feature shows alone, such as two that no longer go together. The statistic is alibi-detect's for the
    same points and kernel; the p-value is the exact one of a permutation test that stops as soon as nothing could
    become an alarm any more.

    Args:
        p_val: significance level.
        kernel: one of `kernels.BUILT_IN`, its width the median distance of the reference; or a function of the user's
            as "package.module:function": k(x (n, D) float64, y (m, D) float64) -> (n, m) float64, of rows as `Coding`
            has them. It is checked when it is fitted, and recognised by some of its values when it is loaded.
        permutations: that the p-value rests on, at most; the smallest is 1 / (permutations + 1).
        max_reference: rows of the reference to keep, at most: their kernel takes 4 bytes times their square, one of
            the user's 8.
        seed: of the rows kept and of the permutations.

    Raises:
        BadInput: `kernel` names none; at `fit`: the user's is none.
        ConfigError: at `fit` and `load`: the user's function is not there.
        ArtifactError: at `load`: it is there, but another one.

    References:
        Gretton, Borgwardt, Rasch, Schölkopf, Smola (2012): A kernel two-sample test. J. Mach. Learn. Res. 13, 723-773.
    """

    method = "mmd"
    stored_beside = ("kernel",)

    def __init__(
        self,
        *,
        p_val: float = 0.05,
        kernel: str = "gaussian",
        permutations: int = 999,
        max_reference: int = 2_000,
        seed: int = 0,
    ) -> None:
        self.kernel = require_kernel(kernel, method=self.method, own=True)
        self.permutations = require_at_least("permutations", permutations, 19, method=self.method)
        super().__init__(p_val=p_val, max_reference=max_reference, seed=seed, permutations=permutations, kernel=kernel)

    def _beside(self, reference: Floats) -> Mapping[str, Array]:
        return stored_of(self.kernel, reference, method=self.method)

    def _against(self, reference: Floats) -> Discrepancy:
        kernel: Kernel
        if is_own(self.kernel):
            kernel = recognised(self.kernel, reference, self._stored, method=self.method)
        else:
            kernel = Radial.of(self.kernel, reference)
        return Discrepancy(reference, kernel=kernel, permutations=self.permutations, seed=self.seed)
