"""Distances between two distributions over the same cells: the categories of a feature, or the bins of its numbers.

Each takes (b, k) shares p and q, each row of which sums to 1, and gives (b,) distances.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

#: Added to every count before a logarithm, so that an empty cell has one: the estimate of Krichevsky and Trofimov.
HALF: Final = 0.5


def psi(p: Floats, q: Floats) -> Floats:
    """The population stability index, sum (p - q) ln(p / q): both directions of the Kullback-Leibler divergence.

    References:
        Siddiqi (2006): Credit Risk Scorecards, p. 136. Jeffreys (1946), Proc. R. Soc. A 186, 453-461.
        Yurdakul, Naranjo (2020): Statistical properties of the population stability index. J. Risk Model Valid. 14
        (its null distribution, and why 0.1 and 0.25 mean something else at every sample size).
    """
    distance: Floats = ((p - q) * np.log(p / q)).sum(axis=-1)
    return distance


def jensen_shannon(p: Floats, q: Floats) -> Floats:
    """The Jensen-Shannon distance with logarithms to base 2, in [0, 1].

    References:
        Lin (1991): Divergence measures based on the Shannon entropy. IEEE Trans. Inf. Theory 37, 145-151.
        Endres, Schindelin (2003), ibid. 49, 1858-1860 (its root is a metric).
    """
    middle = (p + q) / 2
    divergence = (_relative(p, middle) + _relative(q, middle)) / 2
    distance: Floats = np.sqrt(np.clip(divergence / np.log(2.0), 0.0, 1.0))
    return distance


def hellinger(p: Floats, q: Floats) -> Floats:
    """The Hellinger distance, in [0, 1].

    References:
        Hellinger (1909), J. Reine Angew. Math. 136, 210-271.
    """
    distance: Floats = np.sqrt(np.clip(1.0 - np.sqrt(p * q).sum(axis=-1), 0.0, 1.0))
    return distance


def l_infinity(p: Floats, q: Floats) -> Floats:
    """The largest difference of the shares of one cell, in [0, 1]."""
    distance: Floats = np.abs(p - q).max(axis=-1)
    return distance


def _relative(p: Floats, q: Floats) -> Floats:
    """sum p ln(p / q), 0 where p is 0."""
    ratio = np.divide(p, q, out=np.ones_like(p), where=p > 0.0)
    divergence: Floats = (p * np.log(ratio)).sum(axis=-1)
    return divergence
