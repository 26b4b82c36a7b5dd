"""Drift of mixed tables: each feature by the test of its kind."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from detectors.drift.categorical import ChiSquared, FisherExact
from detectors.drift.detector import UnivariateDrift
from detectors.drift.feature_test import FeatureTest
from detectors.drift.numeric import CramerVonMises, KolmogorovSmirnov
from detectors.drift.rates import with_signals
from detectors.drift.univariate import require_tail
from govern.errors import BadInput
from govern.frame import Frame

#: Names of the tests that a kind of feature may get, as their own detectors are named.
NUMERIC: Final[dict[str, type[FeatureTest]]] = {"ks": KolmogorovSmirnov, "cvm": CramerVonMises}
CATEGORICAL: Final[dict[str, type[FeatureTest]]] = {"chi_squared": ChiSquared, "fet": FisherExact}


class TabularDrift(UnivariateDrift):
    """A test for numeric features, a test for categorical ones, and one correction over all.

    Missing values and unseen categories are signals of their own: besides its values, each feature is tested for the
    rate at which it is missing and, when it is categorical, at which the schema does not list it. Their results carry
    `signal`. The correction counts every test, whatever the window holds.

    Args:
        p_val: significance level, before correction.
        correction: over all tests: "bonferroni", "holm", "fdr" (Benjamini-Hochberg) or "none".
        numeric: the test of numeric features, "ks" or "cvm".
        categorical: the test of categorical features, "chi_squared" or "fet".
        signals: whether missing values and unseen categories are tested by themselves.
        tail: of the Kolmogorov-Smirnov and chi-squared p-values: "guarded", "asymptotic" or "exact".
        seed: of the permutations of chi-squared.

    With tail="asymptotic" and signals=False, this is alibi-detect's TabularDrift: same statistics, p-values, verdict.

    References:
        those of `detectors.drift.ks`, `cvm`, `chi_squared` and `fet`;
        Rabanser, Günnemann, Lipton (2019): Failing loudly: an empirical study of methods for detecting dataset
        shift. NeurIPS 32 (univariate tests with Bonferroni correction are hard to beat).
    """

    method = "tabular"
    kinds = ("numeric", "categorical")

    def __init__(
        self,
        *,
        p_val: float = 0.05,
        correction: str = "bonferroni",
        numeric: str = "ks",
        categorical: str = "chi_squared",
        signals: bool = True,
        tail: str = "guarded",
        seed: int = 0,
    ) -> None:
        self.tail = require_tail(tail, method=self.method)
        self._of_kind = {
            "numeric": _chosen("numeric", numeric, NUMERIC),
            "categorical": _chosen("categorical", categorical, CATEGORICAL),
        }
        self.signals = signals
        super().__init__(
            p_val=p_val,
            correction=correction,
            seed=seed,
            tail=self.tail,
            own={"signals": signals, "numeric": numeric, "categorical": categorical, "tail": self.tail},
        )

    def tests_of(self, reference: Frame, position: int) -> Iterable[FeatureTest]:
        test = self._of_kind[reference.schema.features[position].kind]
        return with_signals(test.of(reference, position), reference, signals=self.signals)


def _chosen(name: str, value: str, tests: dict[str, type[FeatureTest]]) -> type[FeatureTest]:
    if value not in tests:
        raise BadInput(
            f"tabular: {name} is {value!r}", why=f"known are {', '.join(map(repr, tests))}", fix="name one of them"
        )
    return tests[value]
