"""The two-sample Cramér-von Mises test against a sorted reference: no pooled ranking, so O(m log n) a window."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import erfc, gammaln, kve

from detectors.drift.univariate import UNTESTED, Outcome

Floats = npt.NDArray[np.float64]

#: Up to this many values in both samples the p-value is exact, as scipy's `method="auto"` and alibi-detect have it.
EXACT_MAX: Final = 20
#: Terms of the limit's series; up to `_FAR` the next one is below 1e-18.
_TERMS: Final = 12
#: Beyond it, where p is 5e-10, what the series leaves of 1 is rounding; the first term of the tail is right to 1 %.
_FAR: Final = 4.0
#: Below it the limit's distribution function is 0 to 1e-13, and its series overflows.
_LEAST: Final = 0.003

_K: Final = np.arange(_TERMS)
_ODD: Final = 4 * _K + 1.0
_WEIGHTS: Final = np.exp(gammaln(_K + 0.5) - gammaln(_K + 1.0)) * np.sqrt(_ODD) / math.pi**1.5


@dataclass(frozen=True, slots=True)
class Sorted:
    """A reference, once for all windows.

    Attributes:
        values: (n,) float64, sorted, without NaN.
        ties: the sum of (g³ - g) / 12 over its groups of g equal values, which midranks add.
    """

    values: Floats
    ties: float

    @classmethod
    def of(cls, values: Floats) -> Sorted:
        return cls(values, _ties(np.diff(np.flatnonzero(_firsts(values)), append=len(values))))


def cramer_von_mises(reference: Sorted, window: Floats) -> Outcome:
    """The two-sample Cramér-von Mises test.

    Args:
        window: (m,) float64 in any order; NaN is left out.

    Returns:
        statistic and p-value of scipy's `cramervonmises_2samp`: exact where both samples have at most `EXACT_MAX`
        values, else from the limit, moved and stretched to the statistic's mean and variance at these sizes; ties by
        midranks. Effect size: the root of the mean squared distance of the distribution functions, in [0, 1].

    References:
        Anderson (1962): On the distribution of the two-sample Cramér-von Mises criterion. Ann. Math. Stat. 33,
        1148-1159. Conover (1999): Practical Nonparametric Statistics, 3rd ed., p. 368.
    """
    values = np.sort(window[~np.isnan(window)])
    n, m = len(reference.values), len(values)
    if m == 0:
        return UNTESTED
    first = np.flatnonzero(_firsts(values))
    distinct = values[first]
    height = np.diff(first, append=m)
    under = reference.values.searchsorted(distinct, side="left")
    tied = reference.values[np.minimum(under, n - 1)] == distinct
    upto = reference.values.searchsorted(distinct, side="right") if tied.any() else under
    # A value's midrank less its place in its own sample is the number of the other sample's values below it, those
    # equal to it counted half. For the reference that is constant between the window's values: m + 1 strips, not n.
    strips = np.diff(upto, append=n)
    strips[:-1] -= (upto - under)[1:]
    below = np.append(first[1:], m).astype(np.float64)
    of_reference = float((strips * below**2).sum() + ((upto - under) * (first + height / 2) ** 2).sum())
    of_window = float((height * ((under + upto) / 2) ** 2).sum())
    u = n * (of_reference + reference.ties) + m * (of_window + _ties(height))
    pairs, total = float(n) * m, n + m
    statistic = u / (pairs * total) - (4 * pairs - 1) / (6 * total)
    if max(n, m) <= EXACT_MAX and m > 1:
        from scipy.stats import cramervonmises_2samp  # half a second to import, which few windows need

        p_value = float(cramervonmises_2samp(reference.values, values, method="exact").pvalue)
    else:
        mean = (1 + 1 / total) / 6
        variance = (total + 1) * (4 * pairs * total - 3 * (float(n) ** 2 + float(m) ** 2) - 2 * pairs)
        variance /= 45 * float(total) ** 2 * 4 * pairs
        p_value = survival(1 / 6 + (statistic - mean) / math.sqrt(45 * variance))
    squared = max(0.0, statistic) * total / pairs
    return Outcome(statistic, p_value, min(1.0, math.sqrt(squared)), m)


def survival(x: float) -> float:
    """P(W > x) of the statistic's limit.

    References:
        Csörgő, Faraway (1996): The exact and asymptotic distributions of Cramér-von Mises statistics. J. R. Stat.
        Soc. B 58, 221-234, eq. 1.3. Zolotarev (1961): Concerning a certain probability problem. Theory Probab. Appl.
        6, 201-204 (the tail).
    """
    if x < _LEAST:
        return 1.0
    if x > _FAR:
        return float(math.sqrt(2.0) * erfc(math.pi * math.sqrt(x / 2)))
    q = _ODD**2 / (16 * x)
    terms = _WEIGHTS * np.exp(-2 * q) * kve(0.25, q)
    return max(0.0, 1.0 - float(terms.sum()) / math.sqrt(x))


def _firsts(values: Floats) -> npt.NDArray[np.bool_]:
    """Where a value differs from the one before it."""
    return np.append(True, values[1:] != values[:-1])


def _ties(groups: npt.NDArray[np.intp]) -> float:
    sizes = groups.astype(np.float64)
    return float((sizes**3 - sizes).sum() / 12)
