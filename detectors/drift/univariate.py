"""Two-sample tests of one feature: pure functions of a summary of the reference and the window's column."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy.special import chdtrc

from detectors.drift.kolmogorov import survival
from govern.errors import BadInput

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Tail = Literal["guarded", "asymptotic", "exact"]

#: Codes run from UNSEEN (-2) over MISSING (-1) to the last category: adding this makes them indices of counts.
CODE_OFFSET: Final = 2


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one test found.

    Attributes:
        statistic: of the test.
        p_value: NaN, like the statistic, when the window has no value to test.
        effect_size: how far the samples are apart, where the p-value says how surely they are. Equal
            shifts give equal effect sizes as long as window and reference keep their proportion. In [0, 1] but for
            distances without a bound.
        n: values of the window that were tested.
    """

    statistic: float
    p_value: float
    effect_size: float
    n: int


UNTESTED: Final = Outcome(math.nan, math.nan, math.nan, 0)


#: Up to this many values of the smaller sample the asymptotic p-value of Kolmogorov and Smirnov is up to a third too
#: small; the exact one takes about 1 ms there.
GUARDED_VALUES: Final = 50


def require_tail(name: str, *, method: str) -> Tail:
    """The way to compute a p-value.

    Raises:
        BadInput: there is none of that name.
    """
    for known in get_args(Tail):
        if name == known:
            return known  # type: ignore[no-any-return]
    raise BadInput(
        f"{method}: tail is {name!r}",
        why=f"known are {', '.join(map(repr, get_args(Tail)))}",
        fix="name one of them",
    )


def kolmogorov_smirnov(reference: Floats, window: Floats, *, tail: Tail = "asymptotic", level: float = 1.0) -> Outcome:
    """The two-sample Kolmogorov-Smirnov test, two-sided.

    Args:
        reference: (n,) float64, sorted, without NaN.
        window: (m,) float64 in any order; NaN is left out.
        tail: "asymptotic": the one-sample distribution at the effective size nm/(n+m), as scipy's
            `ks_2samp(method="asymp")` and alibi-detect's KSDrift take it; "exact": scipy's exact path count
            (slow; where it is out of numeric reach, scipy's asymptotic value); "guarded": the asymptotic one, unless it
            is below `level` and one sample has at most `GUARDED_VALUES` values: then the larger of the two.
        level: above it, nobody cares how large a guarded p-value is.

    Returns:
        statistic D = max |F_reference - F_window|, which is the effect size too.

    References:
        Hodges (1958): The significance probability of the Smirnov two-sample test. Ark. Mat. 3, 469-486.
    """
    values = np.sort(window[~np.isnan(window)])
    n, m = len(reference), len(values)
    if m == 0:
        return UNTESTED
    # The window's distribution function is flat between its values, so the largest distances lie at them: on
    # arrival (from the right) where it is above the reference, just before (from the left) where it is below.
    first = np.concatenate(([0], np.flatnonzero(values[1:] != values[:-1]) + 1))
    distinct, last = values[first], np.append(first[1:], m)
    under = reference.searchsorted(distinct, side="left")
    tied = reference[np.minimum(under, n - 1)] == distinct
    upto = reference.searchsorted(distinct, side="right") if tied.any() else under
    d = max(float((under / n - first / m).max()), float((last / m - upto / n).max()))
    p_value = 0.0 if tail == "exact" else survival(d, max(1, round(n * m / (n + m))))
    return Outcome(d, guarded(reference, values, p_value, tail, level), d, m)


def guarded(reference: Floats, values: Floats, p_value: float, tail: Tail, level: float) -> float:
    """The p-value of Kolmogorov and Smirnov that `tail` asks for, given the asymptotic one (0 for "exact")."""
    few = min(len(reference), len(values)) <= GUARDED_VALUES
    if tail == "asymptotic" or (tail == "guarded" and not (few and p_value < level)):
        return p_value
    from scipy.stats import ks_2samp  # half a second to import, which few windows need

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return max(p_value, float(ks_2samp(reference, values, method="exact").pvalue))


def category_counts(codes: npt.NDArray[np.int32], n_categories: int) -> Counts:
    """How often each code occurs: (2 + n_categories,) int64 for unseen, missing, then the categories in order."""
    return np.bincount(codes + CODE_OFFSET, minlength=CODE_OFFSET + n_categories).astype(np.int64)


def chi_squared(reference: Counts, window: Counts) -> Outcome:
    """Pearson's chi-squared test that two samples have the same distribution over categories.

    Args:
        reference, window: (k,) int64 counts. Categories that occur in neither are left out of the table.

    Returns:
        statistic as scipy's `chi2_contingency` computes it, with Yates's continuity correction when there are two
        categories; effect size Cramér's V, here sqrt(chi² / N), chi² without the correction.

    References:
        Pearson (1900), Philos. Mag. 50, 157-175; Yates (1934), J. R. Stat. Soc. Suppl. 1, 217-235;
        Cramér (1946): Mathematical Methods of Statistics, p. 282.
    """
    return chi_squareds(reference, window, np.zeros(1, dtype=np.int64))[0]


def chi_squareds(reference: Counts, window: Counts, starts: Counts) -> list[Outcome]:
    """`chi_squared` of many tables, one after the other in (k,) counts, each from its (t,) start on."""
    owner = np.zeros(len(reference), dtype=np.int64)
    owner[starts[1:]] = 1
    owner = np.cumsum(owner)
    before, n = np.add.reduceat(reference, starts), np.add.reduceat(window, starts)
    both = reference + window
    occurs = both > 0
    total = np.maximum(before + n, 1)
    # Where there is no row or no reference, every expected count is 0 on that side: nothing is tested there.
    of_window = both * (n / total)[owner]
    of_reference = both - of_window
    off = np.abs(window - of_window)
    weight = np.zeros(len(both))
    tested = (of_window > 0) & (of_reference > 0)
    weight[tested] = 1 / of_window[tested] + 1 / of_reference[tested]
    plain = np.add.reduceat(off * off * weight, starts)
    freedom = np.add.reduceat(occurs.astype(np.int64), starts) - 1
    less = np.where((freedom == 1)[owner], np.maximum(off - 0.5, 0.0), off)
    statistic = np.add.reduceat(less * less * weight, starts)
    p_value = np.where(freedom > 0, chdtrc(np.maximum(freedom, 1), statistic), 1.0)
    effect = np.sqrt(plain / total)
    found = zip(statistic.tolist(), p_value.tolist(), effect.tolist(), n.tolist(), strict=True)
    return [Outcome(*one) if one[3] else UNTESTED for one in found]
