"""Drift of numeric features by the two-sample Cramér-von Mises test."""

from __future__ import annotations

from detectors.drift.detector import UnivariateDrift
from detectors.drift.feature_test import FeatureTest
from detectors.drift.numeric import CramerVonMises
from govern.schema import Feature


class CVMDrift(UnivariateDrift):
    """The Cramér-von Mises test of every numeric feature; other features are not looked at.

    Where `ks` looks at the one place where two distributions differ most, this one adds up differences everywhere: it
    finds a small shift of the whole, or a change of spread, in fewer rows. A window of m rows costs O(m log n).

    Args:
        p_val: significance level, before correction.
        correction: over the tests: "bonferroni", "holm", "fdr" (Benjamini-Hochberg) or "none".
        signals: whether the rate at which each feature is missing is tested, too.
        seed: recorded in verdicts; the test draws no random numbers.

    Statistics and p-values are those of scipy's `cramervonmises_2samp`, so of alibi-detect's CVMDrift. Missing values
    are left out; ties make the test conservative.

    References:
        Anderson (1962): On the distribution of the two-sample Cramér-von Mises criterion. Ann. Math. Stat. 33,
        1148-1159.
    """

    method = "cvm"
    kinds = ("numeric",)

    def __init__(
        self, *, p_val: float = 0.05, correction: str = "bonferroni", signals: bool = True, seed: int = 0
    ) -> None:
        super().__init__(p_val=p_val, correction=correction, signals=signals, seed=seed)

    def test_of(self, feature: Feature) -> type[FeatureTest]:
        return CramerVonMises
