"""How well a classifier tells the rows of a window from those of a reference, and how well by chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve
from scipy.stats import rankdata
from threadpoolctl import threadpool_limits

from detectors.drift.permutation import permutation_p

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

#: Each row is judged by a classifier that learned from the other four fifths.
FOLDS: Final = 5
#: Random cosines of each width, and the widths in units of the median pair's: one is coarse, one as the data, one fine.
_COSINES: Final = 100
_WIDTHS: Final = (0.25, 1.0, 4.0)
#: What is farther out in a coordinate counts as this many standard deviations: one wild row must not be the classifier.
_FARTHEST: Final = 10.0
#: Shrinks coefficients, in squares of standardised features for each of them: about a tenth of what distinguishes a
#: row of the window is expected to be learnt.
_RIDGE: Final = 10.0
#: Decimals of a score that count: rows that are equal tie, whatever the order of their sums.
_DECIMALS: Final = 9


@dataclass(frozen=True, slots=True)
class Fold:
    """The rows that one classifier judges.

    Attributes:
        rows: (r,) int64 places among all rows.
        phi: (r, f) float64 their features.
        inverse: (f, f) float64 of the ridge regression on all other rows.
    """

    rows: npt.NDArray[np.int64]
    phi: Floats
    inverse: Floats


class Separation:
    """Least-squares classifiers on the coordinates and random cosines of them, each judging rows that it never saw.

    What a regression learns is linear in the labels, so that learning anew for random labels costs a product: the
    null distribution is of classifiers that were trained, each of them, on labels that mean nothing.

    Args:
        reference: (m, D), in random order.
        gamma: of the middle one of the kernels exp(-gamma * squared distance) that the cosines stand for.
        permutations: draws, at most.
        seed: of cosines and draws.

    References:
        Rahimi, Recht (2007): Random features for large-scale kernel machines. NeurIPS 20.
    """

    def __init__(self, reference: Floats, *, gamma: float, permutations: int, seed: int) -> None:
        generator = np.random.default_rng((seed, 1))
        width = reference.shape[1]
        self._reference = reference
        self._permutations = permutations
        self._seed = seed
        self._frequencies = np.concatenate(
            [generator.normal(0.0, np.sqrt(2 * gamma * one), size=(width, _COSINES)) for one in _WIDTHS], axis=1
        )
        self._phases = generator.uniform(0.0, 2 * np.pi, size=self._frequencies.shape[1])

    def run(self, window: Floats) -> tuple[float, float]:
        """(n, D) -> the mean area under the ROC curve over the folds, and its p-value."""
        # On threads, products of this size wait for each other longer than they take, and differ in their last bits.
        with threadpool_limits(limits=1, user_api="blas"):
            return self._run(window)

    def _run(self, window: Floats) -> tuple[float, float]:
        folds, labels, _ = self._folds(window)

        def draw(generator: np.random.Generator, count: int) -> Floats:
            return areas(folds, [fold.phi for fold in folds], relabelled(folds, labels, generator, count))

        observed = float(areas(folds, [fold.phi for fold in folds], labels[:, None])[0])
        return observed, permutation_p(observed, draw, draws=self._permutations, seed=(self._seed,))

    def importances(self, window: Floats, widths: npt.NDArray[np.int64], draws: int) -> tuple[Floats, Floats]:
        """What the classifiers lose when one feature's values are shuffled among the rows that they judge.

        Args:
            widths: (d,) of the coordinates of each feature.
            draws: labellings that the p-values rest on.

        Returns:
            (d,) area lost, and (d,) p-values of the largest loss of any feature under random labels: the chance that
            one or more are below a is at most a, however many features there are.

        References:
            Breiman (2001): Random forests. Machine Learning 45, 5-32 (importance by permutation);
            Westfall, Young (1993): Resampling-based multiple testing. Wiley (the largest statistic of all).
        """
        with threadpool_limits(limits=1, user_api="blas"):
            return self._importances(window, widths, draws)

    def _importances(self, window: Floats, widths: npt.NDArray[np.int64], draws: int) -> tuple[Floats, Floats]:
        folds, labels, scale = self._folds(window)
        generator = np.random.default_rng((self._seed, 2))
        tried = np.column_stack((labels, relabelled(folds, labels, generator, draws)))
        whole = areas(folds, [fold.phi for fold in folds], tried)
        pooled = np.vstack((self._reference, window))
        lost, start = np.empty((len(widths), draws + 1)), 0
        for feature, width in enumerate(widths.tolist()):
            phis = []
            for fold in folds:
                points = pooled[fold.rows]
                points[:, start : start + width] = generator.permutation(points[:, start : start + width])
                phis.append((self._features(points) - scale[0]) / scale[1])
            lost[feature] = whole - areas(folds, phis, tried)
            start += width
        largest = lost[:, 1:].max(axis=0)
        as_large = (largest[None, :] >= lost[:, :1] - 10.0**-_DECIMALS).sum(axis=1)
        return lost[:, 0], (as_large + 1) / (draws + 1)

    def _folds(self, window: Floats) -> tuple[list[Fold], Bools, tuple[Floats, Floats]]:
        """The folds, the labels (True: of the window), and the mean and spread of each feature over all rows."""
        m, n = len(self._reference), len(window)
        phi = self._features(np.vstack((self._reference, window)))
        centre, spread = phi.mean(axis=0), phi.std(axis=0)
        spread[spread < 10.0**-_DECIMALS] = 1.0
        phi = (phi - centre) / spread
        labels = np.arange(m + n) >= m
        fold_of = np.concatenate((np.arange(m) % FOLDS, np.arange(n) % FOLDS))
        gram = phi.T @ phi
        gram[np.diag_indices_from(gram)] += _RIDGE * phi.shape[1]
        folds = []
        for number in range(FOLDS):
            rows = np.flatnonzero(fold_of == number)
            own = phi[rows]
            factor = cho_factor(gram - own.T @ own, lower=True)
            folds.append(Fold(rows, own, cho_solve(factor, np.eye(phi.shape[1]))))
        return folds, labels, (centre, spread)

    def _features(self, points: Floats) -> Floats:
        near = np.clip(points, -_FARTHEST, _FARTHEST)
        return np.hstack((near, np.cos(near @ self._frequencies + self._phases)))


def relabelled(folds: list[Fold], labels: Bools, generator: np.random.Generator, count: int) -> Bools:
    """(N, count) labels drawn anew within each fold, which keeps its numbers of both."""
    drawn = np.repeat(labels[:, None], count, axis=1)
    for fold in folds:
        drawn[fold.rows] = generator.permuted(drawn[fold.rows], axis=0)
    return drawn


def areas(folds: list[Fold], judged: list[Floats], labels: Bools) -> Floats:
    """(k,) mean areas under the ROC curve, of classifiers trained on each column of (N, k) labels.

    Args:
        judged: of each fold the (r, f) features that its rows are judged by.
    """
    targets = labels - labels[:, :1].mean()
    parts = [fold.phi.T @ targets[fold.rows] for fold in folds]
    total = np.sum(parts, axis=0)
    found = np.zeros(labels.shape[1])
    for fold, phi, part in zip(folds, judged, parts, strict=True):
        scores = np.round(phi @ (fold.inverse @ (total - part)), _DECIMALS)
        own = labels[fold.rows]
        n = int(own[:, 0].sum())
        ranks = np.where(own, rankdata(scores, axis=0), 0.0).sum(axis=0)
        found += (ranks - n * (n + 1) / 2) / (n * (len(own) - n))
    return np.asarray(found / len(folds))
