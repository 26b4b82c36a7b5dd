"""Drift of categorical features by Pearson's chi-squared test."""

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
from detectors.drift.battery import MIN_ROWS, ChiSquared, FeatureTest, from_arrays, judge, to_arrays
from detectors.drift.correction import require_correction
from govern.detection import WindowScores
from govern.frame import Frame
from govern.record import Kind
from govern.schema import FeatureSchema

STATE_VERSION: Final = 1


class ChiSquaredDrift:
    """The chi-squared test of every categorical feature; other features are not looked at.

    The table of a feature has two rows, the reference's counts and the window's, and a column for each known
    category that occurs, one for missing values and one for values that the schema does not list: a category
    that comes, goes or ceases to be filled in is drift, not an error.

    Args:
        p_val: significance level, before correction.
        correction: over the features: "bonferroni", "fdr" (Benjamini-Hochberg) or "none".
        seed: recorded in verdicts; the test draws no random numbers.

    The p-value is asymptotic. Where a category is expected less than about once in a window, its arrival weighs
    more than it should: prefer larger windows, or group rare categories.

    References:
        Pearson (1900): On the criterion that a given system of deviations ... Philos. Mag. 50, 157-175.
        Cochran (1954): Some methods for strengthening the common chi² tests. Biometrics 10, 417-451.
    """

    kind: Final[Kind] = "drift"
    method: Final = "chi_squared"
    min_instances: Final = MIN_ROWS
    needs_outputs: Final[tuple[str, ...]] = ()

    def __init__(self, *, p_val: float = 0.05, correction: str = "bonferroni", seed: int = 0) -> None:
        self.p_val = require_fraction("p_val", p_val, method=self.method)
        self.correction = require_correction(correction, method=self.method)
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
        """Count the categories of each categorical feature.

        Raises:
            BadInput: too few rows, or no categorical feature.
        """
        require_rows(reference, MIN_ROWS, method=self.method, what="reference")
        categorical = require_kinds(reference.schema, "categorical", method=self.method)
        tests = [ChiSquared.of(reference, position) for position in categorical]
        self._restore(
            Fitted.of(
                reference,
                method=self.method,
                state_version=STATE_VERSION,
                params={"p_val": self.p_val, "correction": self.correction, "seed": self.seed},
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
        self._tests = from_arrays(state)
