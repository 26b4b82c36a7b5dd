"""Drift of mixed tables: each feature by the test of its kind."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Self

from detectors.base import (
    Fitted,
    fitted,
    require_fraction,
    require_kinds,
    require_rows,
    require_schema,
)
from detectors.drift.battery import (
    MIN_ROWS,
    ChiSquared,
    FeatureTest,
    KolmogorovSmirnov,
    MissingRate,
    from_arrays,
    judge,
    require_tail,
    to_arrays,
)
from detectors.drift.correction import require_correction
from govern.detection import WindowScores
from govern.frame import Frame
from govern.record import Kind
from govern.schema import FeatureSchema

STATE_VERSION: Final = 1


class TabularDrift:
    """Kolmogorov-Smirnov for numeric features, chi-squared for categorical ones, one correction over all.

    Missing values are a signal of their own. A categorical feature has them as a column of its table. A numeric
    feature that the schema calls `nullable` gets a second test, of the rate at which it is missing, whose result
    is named `<feature>:missing`. The correction counts every test, whatever the window holds.

    Args:
        p_val: significance level, before correction.
        correction: over all tests: "bonferroni", "fdr" (Benjamini-Hochberg) or "none".
        tail: of the Kolmogorov-Smirnov p-value, "asymptotic" or "exact".
        seed: recorded in verdicts; the tests draw no random numbers.

    Without nullable features, this is alibi-detect's TabularDrift: same statistics, p-values and verdict.

    References:
        those of `detectors.drift.ks` and `detectors.drift.chi_squared`;
        Rabanser, Günnemann, Lipton (2019): Failing loudly: an empirical study of methods for detecting dataset
        shift. NeurIPS 32 (univariate tests with Bonferroni correction are hard to beat).
    """

    kind: Final[Kind] = "drift"
    method: Final = "tabular"
    min_instances: Final = MIN_ROWS
    needs_outputs: Final[tuple[str, ...]] = ()

    def __init__(
        self, *, p_val: float = 0.05, correction: str = "bonferroni", tail: str = "asymptotic", seed: int = 0
    ) -> None:
        self.p_val = require_fraction("p_val", p_val, method=self.method)
        self.correction = require_correction(correction, method=self.method)
        self.tail = require_tail(tail, method=self.method)
        self.seed = seed
        self._state: Fitted | None = None
        self._tests: tuple[FeatureTest, ...] = ()

    @property
    def schema(self) -> FeatureSchema:
        return fitted(self._state, self.method).schema

    @property
    def digest(self) -> str:
        return fitted(self._state, self.method).digest

    @property
    def reference_digest(self) -> str:
        return fitted(self._state, self.method).reference_digest

    def fit(self, reference: Frame) -> Self:
        """Summarise each numeric and categorical feature.

        Raises:
            BadInput: too few rows, no feature of either kind, or a numeric one with too few values.
        """
        require_rows(reference, MIN_ROWS, method=self.method, what="reference")
        schema = reference.schema
        judged = require_kinds(schema, "numeric", "categorical", method=self.method)
        tests: list[FeatureTest] = []
        for position in judged:
            if schema.features[position].kind == "categorical":
                tests.append(ChiSquared.of(reference, position))
                continue
            tests.append(KolmogorovSmirnov.of(reference, position, self.tail))
            if schema.features[position].nullable:
                tests.append(MissingRate.of(reference, position))
        self._restore(
            Fitted.of(
                reference,
                method=self.method,
                state_version=STATE_VERSION,
                params={"p_val": self.p_val, "correction": self.correction, "tail": self.tail, "seed": self.seed},
                arrays=to_arrays(tests),
            )
        )
        return self

    def score(self, window: Frame) -> WindowScores:
        """Test each feature of the window against the reference.

        Raises:
            BadInput: fewer than `min_instances` rows, or columns that are not the reference's.
        """
        state = fitted(self._state, self.method)
        require_schema(window, state.schema, method=self.method)
        require_rows(window, self.min_instances, method=self.method, what="window")
        return judge(self._tests, window, p_val=self.p_val, correction=self.correction)

    def save(self, path: Path) -> None:
        fitted(self._state, self.method).write(path)

    @classmethod
    def load(cls, path: Path) -> Self:
        state = Fitted.read(path, method=cls.method, state_version=STATE_VERSION)
        detector = state.construct(cls)
        detector._restore(state)
        return detector

    def _restore(self, state: Fitted) -> None:
        self._state = state
        self._tests = from_arrays(state, tail=self.tail)
