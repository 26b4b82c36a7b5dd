"""Drift of numeric features by the two-sample Kolmogorov-Smirnov test."""

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
    FeatureTest,
    KolmogorovSmirnov,
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


class KSDrift:
    """The Kolmogorov-Smirnov test of every numeric feature; other features are not looked at.

    The reference is kept sorted, so that a window of m rows costs O(m log n) for each feature.

    Args:
        p_val: significance level, before correction.
        correction: over the features: "bonferroni", "fdr" (Benjamini-Hochberg) or "none".
        tail: how the p-value is computed, "asymptotic" or "exact" (see `univariate.kolmogorov_smirnov`).
        seed: recorded in verdicts; the test draws no random numbers.

    Missing values are left out, and `n` of each feature says how many values were tested; `tabular` tests their
    rate as well. A feature without a value in the window has statistic and p-value NaN and does not drift.
    Ties (whole numbers, ages) make the test conservative: it alarms less often than `p_val`.

    References:
        Massey (1951): The Kolmogorov-Smirnov test for goodness of fit. J. Am. Stat. Assoc. 46, 68-78.
    """

    kind: Final[Kind] = "drift"
    method: Final = "ks"
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
        """Keep the sorted values of each numeric feature.

        Raises:
            BadInput: too few rows, no numeric feature, or one with too few values.
        """
        require_rows(reference, MIN_ROWS, method=self.method, what="reference")
        numeric = require_kinds(reference.schema, "numeric", method=self.method)
        tests = [KolmogorovSmirnov.of(reference, position, self.tail) for position in numeric]
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
