"""The two-sample Cramér-von Mises test against a sorted reference: no pooled ranking, so O(m log n) a window."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import erfc, gammaln, kve

from detectors.drift.univariate import UNTESTED, Outcome

Floats = npt.NDArray[np.float64]
Keys = npt.NDArray[np.int64]

#: Up to this many values in both samples the p-value is exact, as scipy's `method="auto"` and alibi-detect have it.
EXACT_MAX: Final = 20
#: Terms of the limit's series; up to `_FAR` the next one is below 1e-18.
_TERMS: Final = 12
#: Beyond it, where p is 5e-10, what the series leaves of 1 is rounding; the first term of the tail is right to 1 %.
_FAR: Final = 4.0
#: Below it the limit's distribution function is 0 to 1e-13, and its series overflows.
_LEAST: Final = 0.003
#: Terms beyond it are below 1e-34.
_NOTHING: Final = 40.0

_K: Final = np.arange(_TERMS)
_ODD: Final = 4 * _K + 1.0
_WEIGHTS: Final = np.exp(gammaln(_K + 0.5) - gammaln(_K + 1.0)) * np.sqrt(_ODD) / math.pi**1.5


@dataclass(frozen=True, slots=True)
class Sorted:
    """A reference, once for all windows.

    Attributes:
        values: (n,) float64, sorted, without NaN.
        tied: whether a value comes more than once.
        keys: (n,) int64, `in_order` of the values.
        shares, squares: (n + 1,) float64, sums over the first values of the distribution function at each, half of its
            own jump counted, and of that function's square.
    """

    values: Floats
    tied: bool
    keys: Keys
    shares: Floats
    squares: Floats

    @classmethod
    def of(cls, values: Floats) -> Sorted:
        first = np.flatnonzero(_firsts(values))
        height = np.diff(first, append=len(values))
        share = np.repeat((first + height / 2) / len(values), height)
        sums = (np.append(0.0, np.cumsum(share)), np.append(0.0, np.cumsum(share**2)))
        return cls(values, len(first) < len(values), in_order(values), *sums)


def in_order(values: Floats) -> Keys:
    """int64 numbers of the same shape, in the same order and equal where the values are; no NaN.

    numpy looks them up a sixth faster, as it need not ask of each whether it is NaN.
    """
    bits = (values + 0.0).view(np.int64)  # the sum makes 0.0 of -0.0
    # Of negative numbers, a larger magnitude is a larger number, but for the sign's bit.
    return bits ^ ((bits >> 63) & np.iinfo(np.int64).max)


def cramer_von_mises(reference: Sorted, window: Floats) -> Outcome:
    """The two-sample Cramér-von Mises test.

    Args:
        window: (m,) float64 in any order; NaN is left out.

    Returns:
        where no two values are equal, statistic and p-value of scipy's `cramervonmises_2samp`: exact where both samples
        have at most `EXACT_MAX` values, else from the limit, moved and stretched to the statistic's mean and variance
        at these sizes. Effect size: the root of the mean squared distance of the distribution functions, in [0, 1].

    Ties: at a value that comes more than once, the distribution functions count half of their jump, as they do on
    average when ties are broken by chance. That is never more than breaking them would give on average, so ties make
    the test conservative. The midranks that scipy takes do not: with whole numbers, a window much smaller than the
    reference is an alarm whatever it holds.

    References:
        Anderson (1962): On the distribution of the two-sample Cramér-von Mises criterion. Ann. Math. Stat. 33,
        1148-1159. Conover (1999): Practical Nonparametric Statistics, 3rd ed., p. 368.
    """
    values = np.sort(window[~np.isnan(window)])
    n, m = len(reference.values), len(values)
    if m == 0:
        return UNTESTED
    first = np.flatnonzero(_firsts(values))
    distinct, height = values[first], np.diff(first, append=m)
    under = reference.values.searchsorted(distinct, side="left")
    upto = reference.values.searchsorted(distinct, side="right")
    # The reference's values between two of the window's: there the window's function is constant.
    below = np.append(first, m) / m
    starts, ends = np.append(0, upto), np.append(under, n)
    between = reference.squares[ends] - reference.squares[starts]
    between -= 2 * below * (reference.shares[ends] - reference.shares[starts]) - below**2 * (ends - starts)
    at = (upto - under + height) * ((under + upto) / (2 * n) - (first + height / 2) / m) ** 2
    squared = n * m / (n + m) ** 2 * (float(between.sum()) + float(at.sum()))
    # Half jumps take a quarter of each jump's square away: without ties, 1 / (4 (n + m)) in all.
    return outcomes_of([reference], values[None], np.array([squared + 1 / (4 * (n + m))]))[0]


def outcomes_of(references: Sequence[Sorted], rows: Floats, statistic: Floats) -> list[Outcome]:
    """Of (k,) statistics; `rows` are (k, m), the window's values, sorted."""
    m = rows.shape[1]
    n = np.array([len(one.values) for one in references], dtype=np.float64)
    pairs, total = n * m, n + m
    mean = (1 + 1 / total) / 6
    variance = (total + 1) * (4 * pairs * total - 3 * (n**2 + m**2) - 2 * pairs) / (45 * total**2 * 4 * pairs)
    p_value = survivals(1 / 6 + (statistic - mean) / np.sqrt(45 * variance))
    for i in np.flatnonzero(np.maximum(n, m) <= EXACT_MAX).tolist() if m > 1 else ():
        values = np.concatenate((references[i].values, rows[i]))
        if len(np.unique(values)) == len(values):
            from scipy.stats import cramervonmises_2samp  # half a second to import, which few windows need

            p_value[i] = cramervonmises_2samp(references[i].values, rows[i], method="exact").pvalue
    distance = np.sqrt(np.clip(statistic * total / pairs, 0.0, 1.0))
    return [Outcome(*one, m) for one in zip(statistic.tolist(), p_value.tolist(), distance.tolist(), strict=True)]


def survivals(x: Floats) -> Floats:
    """(k,) P(W > x) of the statistic's limit.

    References:
        Csörgő, Faraway (1996): The exact and asymptotic distributions of Cramér-von Mises statistics. J. R. Stat.
        Soc. B 58, 221-234, eq. 1.3. Zolotarev (1961): Concerning a certain probability problem. Theory Probab. Appl.
        6, 201-204 (the tail).
    """
    near = np.clip(x, _LEAST, _FAR)
    q = _ODD**2 / (16 * near[:, None])
    counting = q < _NOTHING
    terms = np.zeros(q.shape)
    terms[counting] = np.exp(-2 * q[counting]) * kve(0.25, q[counting])
    body = 1.0 - (terms * _WEIGHTS).sum(axis=1) / np.sqrt(near)
    tail = math.sqrt(2.0) * erfc(math.pi * np.sqrt(np.maximum(x, _FAR) / 2))
    found: Floats = np.where(x > _FAR, tail, np.where(x < _LEAST, 1.0, np.maximum(body, 0.0)))
    return found


def _firsts(values: Floats) -> npt.NDArray[np.bool_]:
    """Where a value differs from the one before it."""
    return np.append(True, values[1:] != values[:-1])
