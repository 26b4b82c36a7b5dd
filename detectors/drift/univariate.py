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
    if tail == "exact" or (tail == "guarded" and p_value < level and min(n, m) <= GUARDED_VALUES):
        from scipy.stats import ks_2samp  # half a second to import, which few windows need

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            p_value = max(p_value, float(ks_2samp(reference, values, method="exact").pvalue))
    return Outcome(d, p_value, d, m)


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
    table = np.stack((reference, window)).astype(np.float64)
    table = table[:, table.sum(axis=0) > 0]
    n = int(window.sum())
    if n == 0:
        return UNTESTED
    total = table.sum()
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / total
    off = np.abs(table - expected)
    plain = float((off * off / expected).sum())
    freedom = table.shape[1] - 1
    if freedom == 0:
        return Outcome(0.0, 1.0, 0.0, n)
    statistic = plain
    if freedom == 1:
        off -= np.minimum(0.5, off)
        statistic = float((off * off / expected).sum())
    return Outcome(statistic, float(chdtrc(freedom, statistic)), math.sqrt(plain / total), n)
