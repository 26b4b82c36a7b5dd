"""Drift of numeric features by the two-sample Cramér-von Mises test."""

from __future__ import annotations

from collections.abc import Iterable

from detectors.drift.detector import UnivariateDrift
from detectors.drift.feature_test import FeatureTest
from detectors.drift.numeric import CramerVonMises
from detectors.drift.rates import with_signals
from govern.frame import Frame


class CVMDrift(UnivariateDrift):
    """The Cramér-von Mises test of every numeric feature; other features are not looked at.

    Where `ks` looks at the one place where two distributions differ most, this one adds up differences everywhere: it
    finds a small shift of the whole, or a change of spread, in fewer rows. A window of m rows costs O(m log n).

    Args:
        p_val: significance level, before correction.
        correction: over the tests: "bonferroni", "holm", "fdr" (Benjamini-Hochberg) or "none".
        signals: whether the rate at which each feature is missing is tested, too.
        seed: recorded in verdicts; the test draws no random numbers.

    Statistics and p-values are those of scipy's `cramervonmises_2samp`, so of alibi-detect's CVMDrift, where no two
    values are equal. With ties (whole numbers, ages) those two alarm at small windows whatever they hold; this one gets
    conservative. Missing values are left out.

    References:
        Anderson (1962): On the distribution of the two-sample Cramér-von Mises criterion. Ann. Math. Stat. 33,
        1148-1159.
    """

    method = "cvm"
    kinds = ("numeric",)

    def __init__(
        self, *, p_val: float = 0.05, correction: str = "bonferroni", signals: bool = True, seed: int = 0
    ) -> None:
        self.signals = signals
        super().__init__(p_val=p_val, correction=correction, seed=seed, own={"signals": signals})

    def tests_of(self, reference: Frame, position: int) -> Iterable[FeatureTest]:
        return with_signals(CramerVonMises.of(reference, position), reference, signals=self.signals)
