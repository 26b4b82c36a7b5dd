"""What the univariate drift detectors are, but for the tests that each feature gets."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import ClassVar, Final, Self

from detectors.base import Fitted, Param, Stored, require_fraction, require_kinds, require_rows
from detectors.drift.battery import from_arrays, judge, to_arrays
from detectors.drift.correction import require_correction
from detectors.drift.feature_test import MIN_ROWS, FeatureTest, Settings
from detectors.drift.univariate import Tail
from govern.detection import WindowScores
from govern.frame import Frame
from govern.record import Kind
from govern.schema import FeatureKind

#: Permutations that a small p-value rests on at least.
MIN_DRAWS: Final = 999


class UnivariateDrift(Stored):
    """Tests for each feature of some kinds, and one correction over all.

    Args:
        p_val: significance level, before correction.
        correction: over the tests: "bonferroni", "holm", "fdr" (Benjamini-Hochberg) or "none".
        seed: recorded in verdicts; tests that draw permutations draw them from it.
        tail, min_distance: see `Settings`.
        own: the other parameters of the class, as its constructor takes them.

    A feature without a value in the window has statistic and p-value NaN and does not drift.
    """

    kind: Final[Kind] = "drift"
    kinds: ClassVar[tuple[FeatureKind, ...]]
    min_instances = MIN_ROWS
    needs_outputs: Final[tuple[str, ...]] = ()

    def __init__(
        self,
        *,
        p_val: float,
        correction: str,
        seed: int,
        tail: Tail = "asymptotic",
        min_distance: float = 0.0,
        own: Mapping[str, Param] | None = None,
    ) -> None:
        self.p_val = require_fraction("p_val", p_val, method=self.method)
        self.correction = require_correction(correction, method=self.method)
        self.seed = seed
        self._own = dict(own or {})
        self._how = Settings(level=self.p_val, tail=tail, seed=seed, min_statistic=min_distance)
        self._tests: tuple[FeatureTest, ...] = ()

    @abstractmethod
    def tests_of(self, reference: Frame, position: int) -> Iterable[FeatureTest]:
        """The tests of a feature, which is of one of `kinds`, fitted.

        Raises:
            BadInput: it has too few values.
        """

    def fit(self, reference: Frame) -> Self:
        """Summarise each feature.

        Raises:
            BadInput: too few rows, no feature of these kinds, or one with too few values.
        """
        require_rows(reference, MIN_ROWS, method=self.method, what="reference")
        tests: list[FeatureTest] = []
        for position in require_kinds(reference.schema, *self.kinds, method=self.method):
            tests.extend(self.tests_of(reference, position))
        self._restore(
            Fitted.of(
                reference,
                method=self.method,
                state_version=self.state_version,
                params={
                    "p_val": self.p_val,
                    "correction": self.correction,
                    "seed": self.seed,
                    **self._own,
                },
                arrays=to_arrays(tests),
            )
        )
        return self

    def score(self, window: Frame) -> WindowScores:
        """Test each feature of the window against the reference.

        Raises:
            BadInput: fewer than `min_instances` rows, or columns that are not the reference's.
        """
        self._require_window(window)
        return judge(self._tests, window, self._how, self.correction)

    def _restore(self, state: Fitted) -> None:
        tests = from_arrays(state)
        self._state, self._tests = state, tests
        # A p-value can become small enough for an alarm of one test among all, with as many draws to spare.
        self._how = replace(self._how, draws=max(MIN_DRAWS, math.ceil(2 * len(tests) / self.p_val)))
