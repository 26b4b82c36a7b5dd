"""Drift of numeric features by the two-sample Kolmogorov-Smirnov test."""

from __future__ import annotations

from collections.abc import Iterable

from detectors.drift.detector import UnivariateDrift
from detectors.drift.feature_test import FeatureTest
from detectors.drift.numeric import KolmogorovSmirnov
from detectors.drift.rates import with_signals
from detectors.drift.univariate import require_tail
from govern.frame import Frame


class KSDrift(UnivariateDrift):
    """The Kolmogorov-Smirnov test of every numeric feature; other features are not looked at.

    The reference is kept sorted, so that a window of m rows costs O(m log n) for each feature.

    Args:
        p_val: significance level, before correction.
        correction: over the tests: "bonferroni", "holm", "fdr" (Benjamini-Hochberg) or "none".
        signals: whether the rate at which each feature is missing is tested, too.
        tail: how the p-value is computed, "guarded", "asymptotic" (as alibi-detect does) or "exact" (see
            `univariate.kolmogorov_smirnov`).
        seed: recorded in verdicts; the test draws no random numbers.

    Missing values are left out, and `n` of each feature says how many values were tested. A feature without a value in
    the window has statistic and p-value NaN and does not drift. Ties (whole numbers, ages) make the test conservative:
    it alarms less often than `p_val`.

    References:
        Massey (1951): The Kolmogorov-Smirnov test for goodness of fit. J. Am. Stat. Assoc. 46, 68-78.
    """

    method = "ks"
    kinds = ("numeric",)

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
        return with_signals(KolmogorovSmirnov.of(reference, position), reference, signals=self.signals)
