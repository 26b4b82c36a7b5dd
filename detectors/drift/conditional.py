"""How far the distributions of rows given their contexts are apart, and how far by chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve
from scipy.linalg.lapack import dpstrf
from scipy.spatial.distance import cdist
from threadpoolctl import threadpool_limits

from detectors.distances import median_gamma
from detectors.drift.permutation import permutation_p

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

#: Of the window's rows, those whose contexts the embeddings are compared at: their rows are in no embedding.
HELD: Final = 0.25
#: A kernel is factored until no row's own kernel, which is 1, is further off: four digits of a statistic at the least.
_OFF: Final = 1e-8
#: Columns of the factor of the context's kernel, at most: each draw costs its square for every row. What one or two
#: numbers make is smooth enough for a few dozen; of wider contexts, the coarser part is taken.
_WIDEST: Final = 300
#: Inverse of the penalty of the logistic regression: what a propensity can follow must be what the embeddings can.
_PROPENSITY_C: Final = 10.0


@dataclass(frozen=True, slots=True)
class Pooled:
    """Reference and window together, the held-out rows left out.

    Attributes:
        labels: (N,) True of the window.
        phi: (N, r) whose products are the kernel of the contexts.
        held: (r, q) whose square is the mean of phi phi' over the held-out contexts.
        propensities: (N,) chance that a row with this context is of the window.
        kept: (n,) places in the window of the rows that are in no held-out context.
    """

    labels: Bools
    phi: Floats
    held: Floats
    propensities: Floats
    kept: npt.NDArray[np.int64]


class ConditionalDiscrepancy:
    """The mean, over held-out contexts of the window, of the squared distance between two conditional mean embeddings.

    With W_z(c) = (L_z + n_z lam I)^-1 l_z(c), for the kernel L of the contexts, the embedding of the rows of domain z
    given context c is the sum of their kernel functions with weights W_z(c). Labels are drawn anew as their propensity
    given the context says, so that each draw has as many rows of the window at each context as there were: a context
    that came more often is no evidence. Kernels are taken as products of factors (Cholesky with pivots), in which the
    inverse is as small as the contexts are smooth.

    Args:
        reference: (m, D).
        given: (D,) True of the coordinates that are the context; the others are the rows that are compared.
        lam: the regularisation, for each row.
        permutations: draws, at most.
        seed: of the held-out rows and of the draws.

    References:
        Cobb, Van Looveren (2022): Context-aware drift detection. ICML, PMLR 162, 4087-4111;
        Park, Shalit, Schölkopf, Muandet (2021): Conditional distributional treatment effect with kernel conditional
        mean embeddings and U-statistic regression. ICML, PMLR 139, 8401-8412;
        Rosenbaum (1984): Conditional permutation tests and the propensity score in observational studies. J. Am. Stat.
        Assoc. 79, 565-574.
    """

    def __init__(self, reference: Floats, *, given: Bools, lam: float, permutations: int, seed: int) -> None:
        self._given = given
        self._rows = reference[:, ~given]
        self._contexts = reference[:, given]
        self._lam = lam
        self._permutations = permutations
        self._seed = seed
        self._row_gamma = median_gamma(self._rows)
        self._context_gamma = median_gamma(self._contexts)

    def run(self, window: Floats) -> tuple[float, float]:
        """(n, D) -> the statistic and its p-value."""
        # On threads, products of this size wait for each other longer than they take, and differ in their last bits.
        with threadpool_limits(limits=1, user_api="blas"):
            pooled = self._pooled(window[:, self._given])
            psi = factor(np.vstack((self._rows, window[pooled.kept][:, ~self._given])), self._row_gamma)

            def distance(labels: Bools) -> float:
                return _squared(psi, self._weights(pooled, labels))

            def draw(generator: np.random.Generator, count: int) -> Floats:
                return np.array([distance(generator.random(len(psi)) < pooled.propensities) for _ in range(count)])

            observed = distance(pooled.labels)
            return observed, permutation_p(observed, draw, draws=self._permutations, seed=(self._seed, 1))

    def of_features(self, window: Floats, widths: npt.NDArray[np.int64], draws: int) -> tuple[Floats, Floats]:
        """The same statistic of each feature by itself.

        Args:
            window: (n, D).
            widths: (d,) coordinates of each feature that is compared.
            draws: labellings that the p-values rest on.

        Returns:
            (d,) statistics, and (d,) p-values of the largest of all features' standardised ones: the chance that one or
            more are below a is at most a, however many features there are.

        References:
            Westfall, Young (1993): Resampling-based multiple testing. Wiley (the largest statistic of all).
        """
        with threadpool_limits(limits=1, user_api="blas"):
            pooled = self._pooled(window[:, self._given])
            rows = np.vstack((self._rows, window[pooled.kept][:, ~self._given]))
            parts = np.split(rows, np.cumsum(widths)[:-1], axis=1)
            psis = [factor(part, median_gamma(part[: len(self._rows)])) for part in parts]
            generator = np.random.default_rng((self._seed, 2))
            found = np.empty((draws + 1, len(psis)))
            for draw in range(draws + 1):
                labels = generator.random(len(pooled.labels)) < pooled.propensities if draw else pooled.labels
                weights = self._weights(pooled, labels)
                found[draw] = [_squared(psi, weights) for psi in psis]
        spread = found.std(axis=0)
        standard = (found - found.mean(axis=0)) / np.where(spread > 0.0, spread, 1.0)
        largest = standard[1:].max(axis=1)
        return found[0], ((largest[:, None] >= standard[0]).sum(axis=0) + 1) / (draws + 1)

    def _pooled(self, contexts: Floats) -> Pooled:
        m, n = len(self._contexts), len(contexts)
        order = np.random.default_rng((self._seed, 0)).permutation(n)
        held, kept = np.split(order, [max(1, round(HELD * n))])
        kept.sort()
        phi = factor(np.vstack((self._contexts, contexts[kept], contexts[held])), self._context_gamma)[:, :_WIDEST]
        phi, at_held = np.split(phi, [m + len(kept)])
        labels = np.arange(len(phi)) >= m
        root = np.linalg.qr(at_held / np.sqrt(len(held))).R.T
        return Pooled(labels, phi, root, propensities(phi, labels), kept)

    def _weights(self, pooled: Pooled, labels: Bools) -> Floats:
        """(N, q): columns w whose w' K w add up to the statistic."""
        weights = np.empty((len(labels), pooled.held.shape[1]))
        for domain, sign in ((labels, 1.0), (~labels, -1.0)):
            phi = pooled.phi[domain]
            gram = phi.T @ phi
            gram[np.diag_indices_from(gram)] += self._lam * max(1, len(phi))
            weights[domain] = sign * (phi @ cho_solve(cho_factor(gram), pooled.held))
        return weights


def factor(points: Floats, gamma: float) -> Floats:
    """(N, D) -> (N, r), r <= N, with the kernel exp(-gamma * squared distance) of the points as its products.

    References:
        Harbrecht, Peters, Schneider (2012): On the low-rank approximation by the pivoted Cholesky decomposition. Appl.
        Numer. Math. 62, 428-440.
    """
    kernel = np.exp(-gamma * cdist(points, points, "sqeuclidean"))
    triangle, pivots, rank, _ = dpstrf(kernel, tol=_OFF, lower=1)
    factored = np.empty((len(points), rank))
    factored[pivots - 1] = np.tril(triangle)[:, :rank]
    return factored


def propensities(phi: Floats, labels: Bools) -> Floats:
    """(N,) chance of each row that its label is True, by logistic regression with the kernel phi phi'."""
    from sklearn.linear_model import LogisticRegression  # half a second to import

    regression = LogisticRegression(C=_PROPENSITY_C, solver="newton-cholesky").fit(phi, labels)
    chances: Floats = regression.predict_proba(phi)[:, 1]
    return chances


def _squared(psi: Floats, weights: Floats) -> float:
    return float(np.square(psi.T @ weights).sum())
