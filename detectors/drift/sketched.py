"""Drift of wide tables, from counts instead of rows."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from detectors.base import Fitted, fitted, require_at_least
from detectors.drift.battery import verdict
from detectors.drift.binned import BINS, BinnedKolmogorovSmirnov, outcomes_of
from detectors.drift.categorical import ChiSquared
from detectors.drift.detector import UnivariateDrift
from detectors.drift.feature_test import FeatureTest
from detectors.drift.rates import MissingRate, UnseenRate, with_signals
from detectors.drift.sketch import Cells, Sketch
from detectors.drift.univariate import Counts, Outcome, chi_squareds, require_tail
from govern.detection import WindowScores
from govern.errors import BadInput
from govern.frame import Frame

#: The fewest bins whose edges say more than whether the median moved.
_MIN_BINS = 8


class SketchedDrift(UnivariateDrift):
    """`tabular`, of which nothing but counts is known: for many features, and for periods whose rows nobody keeps.

    Numeric features are cut into bins at quantiles of the reference. A window is gone through once and becomes a
    `Sketch`, the counts of bins and categories, of which Kolmogorov's and Smirnov's test, Pearson's and the rates of
    missing and unseen values are computed. Sketches of parts, whether hours or machines, add up to that of the whole:
    `sketch` makes them, `Sketch.merge` adds them, `score_sketch` judges what they add up to.

    The distance is taken where bins meet, so it is at most that of `ks` and the p-value at least: no more false alarms.
    Where a feature has few distinct values (less than half as many as `bins`), both are the same.

    Args:
        p_val: significance level, before correction.
        correction: over all tests: "bonferroni", "holm", "fdr" (Benjamini-Hochberg) or "none".
        bins: of a numeric feature, at most. A count of one takes 8 bytes.
        signals: whether missing values and unseen categories are tested by themselves.
        tail: of the p-values, as `tabular` has it: "guarded", "asymptotic" or "exact".
        seed: of the permutations of chi-squared.

    The effect size of a number is the population stability index over ten groups of bins, each about a tenth of the
    reference.

    References:
        Massey (1951): The Kolmogorov-Smirnov test for goodness of fit. J. Am. Stat. Assoc. 46, 68-78; Noether (1963):
        Note on the Kolmogorov statistic in the discrete case. Metrika 7, 115-116 (why coarser values make it
        conservative); and those of `detectors.drift.tabular`.
    """

    method = "sketched"
    kinds = ("numeric", "categorical")

    def __init__(
        self,
        *,
        p_val: float = 0.05,
        correction: str = "bonferroni",
        bins: int = BINS,
        signals: bool = True,
        tail: str = "guarded",
        seed: int = 0,
    ) -> None:
        self.bins = require_at_least("bins", bins, _MIN_BINS, method=self.method)
        self.signals = signals
        self.tail = require_tail(tail, method=self.method)
        super().__init__(
            p_val=p_val,
            correction=correction,
            seed=seed,
            tail=self.tail,
            own={"bins": self.bins, "signals": signals, "tail": self.tail},
        )

    def tests_of(self, reference: Frame, position: int) -> Iterable[FeatureTest]:
        test: FeatureTest = (
            BinnedKolmogorovSmirnov.of(reference, position, bins=self.bins)
            if reference.schema.features[position].kind == "numeric"
            else ChiSquared.of(reference, position)
        )
        return with_signals(test, reference, signals=self.signals)

    @property
    def cells(self) -> Cells:
        """What its sketches count in."""
        fitted(self._state, self.method)
        return self._cells

    def sketch(self, rows: Frame) -> Sketch:
        """Counts of rows, however few.

        Raises:
            BadInput: columns that are not the reference's.
        """
        return self.cells.empty().update(rows)

    def score(self, window: Frame) -> WindowScores:
        self._require_window(window)
        return self.score_sketch(self.sketch(window))

    def score_sketch(self, sketch: Sketch) -> WindowScores:
        """Test each feature of the rows that were counted against the reference.

        Raises:
            BadInput: fewer than `min_instances` rows, or a sketch in other cells.
        """
        if sketch.cells is not self.cells:
            sketch = self.cells.empty().merge(sketch)
        if sketch.rows < self.min_instances:
            raise BadInput(
                f"{self.method}: the sketch counts {sketch.rows} rows",
                why=f"at least {self.min_instances} are needed",
                fix="merge sketches of more rows",
            )
        return verdict(self._tests, self._outcomes(sketch), self.schema, self._how, self.correction)

    def _outcomes(self, sketch: Sketch) -> list[Outcome]:
        def counts(test: FeatureTest) -> Counts:
            return sketch.counts[self._cells.places[test.position]]

        found: dict[int, Outcome] = {}
        numeric = [(place, test) for place, test in enumerate(self._tests) if isinstance(test, BinnedKolmogorovSmirnov)]
        if numeric:
            window = np.concatenate([counts(test)[1:] for _, test in numeric])
            outcomes = outcomes_of([test for _, test in numeric], window, self._how)
            found.update(zip((place for place, _ in numeric), outcomes, strict=True))
        categorical = [(place, test) for place, test in enumerate(self._tests) if isinstance(test, ChiSquared)]
        if categorical:
            here = [counts(test) for _, test in categorical]
            starts = np.concatenate(([0], np.cumsum([len(one) for one in here])[:-1]))
            reference = np.concatenate([test.counts for _, test in categorical])
            outcomes = chi_squareds(reference, np.concatenate(here), starts)
            for (place, chi_squared), outcome, one in zip(categorical, outcomes, here, strict=True):
                found[place] = chi_squared.judged(outcome, one, self._how)
        for place, test in enumerate(self._tests):
            if isinstance(test, MissingRate):
                missing = counts(test)[0 if test.position in self._cells.edges else 1]
                found[place] = test.told(int(missing), sketch.rows)
            elif isinstance(test, UnseenRate):
                found[place] = test.told(int(counts(test)[0]), sketch.rows)
        return [found[place] for place in range(len(self._tests))]

    def _restore(self, state: Fitted) -> None:
        super()._restore(state)
        known = (BinnedKolmogorovSmirnov, ChiSquared, MissingRate, UnseenRate)
        if not all(isinstance(test, known) for test in self._tests):
            raise state.damaged("it holds a test that takes rows, not counts")
        edges = {test.position: test.edges for test in self._tests if isinstance(test, BinnedKolmogorovSmirnov)}
        self._cells = Cells(state.schema, edges)
        # The counting is compiled here, so that the first window does not wait for it.
        for guide in list(self._cells.guides.values())[:1]:
            guide.count(np.empty(0), np.zeros(2 + len(guide.edges), dtype=np.int64), np.array([np.inf, -np.inf]))
