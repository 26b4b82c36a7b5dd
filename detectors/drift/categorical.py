"""Tests of categorical features on the counts of their categories."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Final, Self

import numpy as np

from detectors.base import Array
from detectors.drift.feature_test import Settings, Signal
from detectors.drift.fisher import fisher_p, odds_ratio
from detectors.drift.permutation import permutation_p
from detectors.drift.univariate import (
    CODE_OFFSET,
    UNTESTED,
    Counts,
    Floats,
    Outcome,
    category_counts,
    chi_squared,
)
from govern.frame import Frame
from govern.schema import Feature

#: From this many expected rows on, asymptotic p-values down to 1e-5 are less than a third too small.
DENSE: Final = 100.0


@dataclass(frozen=True, slots=True)
class ChiSquared:
    """Pearson's test of all counts; "missing" and "unseen" are two more categories.

    The chi-squared distribution is what the statistic tends to; with a category that is expected twice in a window,
    p-values far out are ten times too small. "guarded" looks no further where the asymptotic p-value is above the level
    or every category is expected at least `DENSE` times; else the p-value is the larger of that and an exact one, by
    permutation of the rows between window and reference. It is exact down to 1 / (draws + 1), which is below every
    threshold that a correction can give.
    """

    signal: ClassVar[Signal] = ""
    always_told: ClassVar[bool] = True
    statistic_name: ClassVar[str] = "chi2"
    effect_size_name: ClassVar[str] = "cramers_v"

    position: int
    counts: Counts

    @classmethod
    def of(cls, reference: Frame, position: int) -> Self:
        return cls(position, counts_of(reference, position))

    @classmethod
    def read(cls, position: int, state: Array, feature: Feature) -> Self:
        return cls(position, as_counts(state, len(feature.categories)))

    def run(self, window: Frame, how: Settings) -> Outcome:
        counts = counts_of(window, self.position)
        return self.judged(chi_squared(self.counts, counts), counts, how)

    def judged(self, found: Outcome, counts: Counts, how: Settings) -> Outcome:
        """What the asymptotic test of the window's counts found, with the p-value that `how.tail` asks for."""
        if how.tail == "asymptotic" or not found.n or (how.tail == "guarded" and found.p_value >= how.level):
            return found
        table = np.stack((self.counts, counts))[:, self.counts + counts > 0]
        if table.shape[1] < 2 or (how.tail == "guarded" and _least_expected(table) >= DENSE):
            return found
        exact = permuted_p(table, pearson, draws=how.draws, seed=(how.seed, self.position))
        if how.tail == "exact":
            return replace(found, p_value=exact)
        # Where no draw comes near, the alarm is sure; how sure, so that features can be ranked, only the limit can say.
        return found if exact <= 1 / (how.draws + 1) else replace(found, p_value=max(exact, found.p_value))

    def state(self) -> Array:
        return self.counts


@dataclass(frozen=True, slots=True)
class FisherExact:
    """Fisher's test of each category against all others, of which the surest counts; missing and unseen left out.

    With k > 2 categories the p-value is k times the smallest (Bonferroni): still never too small. Statistic (odds
    ratio) and effect size (difference of the shares) are those of the category with the smallest p-value.
    """

    signal: ClassVar[Signal] = ""
    always_told: ClassVar[bool] = True
    statistic_name: ClassVar[str] = "odds_ratio"
    effect_size_name: ClassVar[str] = "rate_difference"

    position: int
    counts: Counts

    @classmethod
    def of(cls, reference: Frame, position: int) -> Self:
        return cls(position, counts_of(reference, position))

    @classmethod
    def read(cls, position: int, state: Array, feature: Feature) -> Self:
        return cls(position, as_counts(state, len(feature.categories)))

    def run(self, window: Frame, how: Settings) -> Outcome:
        here, there = counts_of(window, self.position)[CODE_OFFSET:], self.counts[CODE_OFFSET:]
        n, m = int(here.sum()), int(there.sum())
        if n == 0 or m == 0:
            return UNTESTED
        pairs = list(zip(here.tolist(), there.tolist(), strict=True))
        # Of two categories the second is tested, as of 0 and 1: the first would say the same.
        tested = pairs[1:] if len(pairs) == 2 else pairs
        p_values = [fisher_p(seen, n, before, m) for seen, before in tested]
        surest = int(np.argmin(p_values))
        seen, before = tested[surest]
        p_value = min(1.0, len(tested) * p_values[surest])
        return Outcome(odds_ratio(seen, n, before, m), p_value, abs(seen / n - before / m), n)

    def state(self) -> Array:
        return self.counts


def counts_of(frame: Frame, position: int) -> Counts:
    """(2 + k,) int64: how often unseen, missing and each of k categories occur."""
    categories = frame.schema.features[position].categories
    return category_counts(frame.columns[position].astype(np.int32, copy=False), len(categories))


def as_counts(state: Array, n_categories: int) -> Counts:
    if state.dtype != np.int64 or len(state) != CODE_OFFSET + n_categories or (state < 0).any():
        raise ValueError(f"it holds no counts of {n_categories} categories")
    return state


def pearson(windows: Floats, totals: Floats, n: int) -> Floats:
    """(b,) float64: Pearson's statistic of (b, k) windows of n rows, each beside what (k,) `totals` leave."""
    expected = totals * (n / totals.sum())
    off = windows - expected
    # What the window has too many of, the reference has too few of.
    statistic: Floats = (off * off / expected).sum(axis=-1) / (1.0 - n / totals.sum())
    return statistic


def permuted_p(
    table: Counts, statistic: Callable[[Floats, Floats, int], Floats], *, draws: int, seed: tuple[int, ...]
) -> float:
    """The exact p-value of a statistic of a table of counts, by permuting rows between reference and window.

    Args:
        table: (2, k) int64, the reference's counts and the window's, k >= 2.
        statistic: (b, k) windows, (k,) totals, their rows -> (b,).
    """
    totals, n = table.sum(axis=0), int(table[1].sum())
    whole = totals.astype(np.float64)

    def draw(generator: np.random.Generator, count: int) -> Floats:
        windows = generator.multivariate_hypergeometric(totals, n, size=count, method="marginals")
        return statistic(windows.astype(np.float64), whole, n)

    observed = float(statistic(table[1:].astype(np.float64), whole, n)[0])
    return permutation_p(observed, draw, draws=draws, seed=seed)


def _least_expected(table: Counts) -> float:
    return float(table.sum(axis=0).min() * table.sum(axis=1).min() / table.sum())
