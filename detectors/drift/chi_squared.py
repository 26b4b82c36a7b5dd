"""Drift of categorical features by Pearson's chi-squared test."""

from __future__ import annotations

from collections.abc import Iterable

from detectors.drift.categorical import ChiSquared
from detectors.drift.detector import UnivariateDrift
from detectors.drift.feature_test import FeatureTest
from detectors.drift.rates import with_signals
from detectors.drift.univariate import require_tail
from govern.frame import Frame


class ChiSquaredDrift(UnivariateDrift):
    """The chi-squared test of every categorical feature; other features are not looked at.

    The table of a feature has two rows, the reference's counts and the window's, and a column for each known
    category that occurs, one for missing values and one for values that the schema does not list: a category
    that comes, goes or ceases to be filled in is drift, not an error.

    Args:
        p_val: significance level, before correction.
        correction: over the tests: "bonferroni", "holm", "fdr" (Benjamini-Hochberg) or "none".
        signals: whether the rates of missing values and of unseen categories are tested each by itself, too.
        tail: "asymptotic": the p-value of the chi-squared distribution, as alibi-detect has it, which is too small
            where categories are expected only a few times; "exact": by permutations; "guarded": the larger of the two
            where it matters (see `categorical.ChiSquared`).
        seed: of the permutations.

    References:
        Pearson (1900): On the criterion that a given system of deviations ... Philos. Mag. 50, 157-175.
        Cochran (1954): Some methods for strengthening the common chi² tests. Biometrics 10, 417-451.
    """

    method = "chi_squared"
    kinds = ("categorical",)

    def __init__(
        self,
        *,
        p_val: float = 0.05,
        correction: str = "bonferroni",
        signals: bool = True,
        tail: str = "guarded",
        seed: int = 0,
    ) -> None:
        self.tail = require_tail(tail, method=self.method)
        self.signals = signals
        super().__init__(
            p_val=p_val, correction=correction, seed=seed, tail=self.tail, own={"signals": signals, "tail": self.tail}
        )

    def tests_of(self, reference: Frame, position: int) -> Iterable[FeatureTest]:
        return with_signals(ChiSquared.of(reference, position), reference, signals=self.signals)
