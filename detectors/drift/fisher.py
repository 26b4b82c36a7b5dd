"""Fisher's exact test of 2 x 2 tables."""

from __future__ import annotations

import math
from typing import Final, Literal

import numpy as np
from scipy.special import gammaln

Alternative = Literal["two-sided", "greater"]

#: Tables this much more probable than the one that is seen still count as no more probable, as in R and scipy.
_SLACK: Final = 1.0 + 1e-7


def fisher_p(seen: int, n: int, before: int, m: int, *, alternative: Alternative = "two-sided") -> float:
    """The probability of a table at least as extreme, given its margins, when both samples have one rate.

    Args:
        seen, n: in the window: rows that have the property, and all.
        before, m: the same in the reference.
        alternative: "two-sided": no more probable than the table that is seen; "greater": at least as many in the
            window.

    The test is exact: whatever the sizes, it alarms at most as often as it says.

    References:
        Fisher (1935): The logic of inductive inference. J. R. Stat. Soc. 98, 39-82.
    """
    having = seen + before
    lowest, highest = max(0, having - m), min(having, n)
    if lowest == highest:
        return 1.0
    k = np.arange(lowest, highest + 1, dtype=np.float64)
    logs = -(gammaln(k + 1) + gammaln(having - k + 1) + gammaln(n - k + 1) + gammaln(m - having + k + 1))
    weights = np.exp(logs - logs.max())
    tail = weights[seen - lowest :] if alternative == "greater" else weights[weights <= weights[seen - lowest] * _SLACK]
    return min(1.0, float(tail.sum() / weights.sum()))


def odds_ratio(seen: int, n: int, before: int, m: int) -> float:
    """The window's odds over the reference's: infinite or NaN where a margin is empty, as scipy's `fisher_exact`."""
    above, below = seen * (m - before), before * (n - seen)
    if below == 0:
        return math.inf if above else math.nan
    return above / below
