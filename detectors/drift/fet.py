"""Drift of categorical features by Fisher's exact test."""

from __future__ import annotations

from detectors.drift.categorical import FisherExact
from detectors.drift.detector import UnivariateDrift
from detectors.drift.feature_test import FeatureTest
from govern.schema import Feature


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
        super().__init__(p_val=p_val, correction=correction, signals=signals, seed=seed)

    def test_of(self, feature: Feature) -> type[FeatureTest]:
        return FisherExact
