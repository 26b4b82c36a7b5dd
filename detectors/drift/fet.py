"""Drift of categorical features by Fisher's exact test."""

from __future__ import annotations

from collections.abc import Iterable

from detectors.drift.categorical import FisherExact
from detectors.drift.detector import UnivariateDrift
from detectors.drift.feature_test import FeatureTest
from detectors.drift.rates import with_signals
from govern.frame import Frame


class FETDrift(UnivariateDrift):
    """Fisher's exact test of every categorical feature, made for those with two categories.

    It needs no large numbers: where windows are small, categories rare, or both, `chi_squared` only approximates what
    this test counts. Of more than two categories each is tested against all others.

    Args:
        p_val: significance level, before correction.
        correction: over the tests: "bonferroni", "holm", "fdr" (Benjamini-Hochberg) or "none".
        signals: whether the rates of missing values and of unseen categories are tested, too.
        seed: recorded in verdicts; the test draws no random numbers.

    The tests are two-sided, as scipy's `fisher_exact` and alibi-detect's FETDrift with alternative="two-sided".

    References:
        Fisher (1935): The logic of inductive inference. J. R. Stat. Soc. 98, 39-82.
    """

    method = "fet"
    kinds = ("categorical",)

    def __init__(
        self, *, p_val: float = 0.05, correction: str = "bonferroni", signals: bool = True, seed: int = 0
    ) -> None:
        self.signals = signals
        super().__init__(p_val=p_val, correction=correction, seed=seed, own={"signals": signals})

    def tests_of(self, reference: Frame, position: int) -> Iterable[FeatureTest]:
        return with_signals(FisherExact.of(reference, position), reference, signals=self.signals)
