"""Outliers by isolation forest."""

from __future__ import annotations

import dataclasses
from typing import Final, Self

import numpy as np

from detectors.base import (
    Array,
    Fitted,
    Stored,
    fitted,
    require_at_least,
    require_fraction,
    require_kinds,
    require_rows,
)
from detectors.coding import of_each_row
from detectors.outlier.held_out import rows_needed, split, threshold_at
from detectors.outlier.impute import Imputer
from detectors.outlier.trees import Forest
from govern.detection import InstanceScores
from govern.frame import Frame
from govern.record import Kind

#: Rows that a reference must have: fewer give trees without depth, and no quantile to speak of.
MIN_REFERENCE_ROWS: Final = 50


class IsolationForestOutlier(Stored):
    """How few random cuts it takes to isolate a row from the others: the fewer, the stranger.

    scikit-learn grows the forest; what is stored and scored is its trees as flat arrays (no pickle), walked by
    compiled code that agrees with scikit-learn's `score_samples` to 1e-12.

    Args:
        contamination: the expected share of flagged rows while nothing changes, at most: the threshold is set on
            held-out rows (`detectors.outlier.held_out`), which no tree was grown from.
        n_estimators: trees.
        max_samples: rows that each tree is grown from, at most those that were not held out.
        seed: of the forest, and of the split of the reference.

    The score is in (0, 1]. Numeric and categorical features are used, a category as its code and an unseen one as
    -2; other features are not looked at. A missing value counts as ordinary: it takes the reference's median, or its
    most frequent category, so that it neither raises nor hides an alarm by itself. A feature's share is that of its
    cuts in what the row's paths are shorter than the mean ones (`Forest.parts`).

    References:
        Liu, Ting, Zhou (2008): Isolation forest. ICDM, 413-422.
    """

    kind: Final[Kind] = "outlier"
    method = "isolation_forest"
    #: 2: nodes that are no leaves have mean lengths.
    state_version = 2
    tells_shares = True
    min_instances = 1
    needs_outputs: Final[tuple[str, ...]] = ()

    def __init__(
        self, *, contamination: float = 0.01, n_estimators: int = 100, max_samples: int = 256, seed: int = 0
    ) -> None:
        self.contamination = require_fraction("contamination", contamination, method=self.method)
        self.n_estimators = require_at_least("n_estimators", n_estimators, 1, method=self.method)
        self.max_samples = require_at_least("max_samples", max_samples, 2, method=self.method)
        self.seed = seed

    @property
    def threshold(self) -> float:
        """A row with a score above it is flagged."""
        return fitted(self._state, self.method).number("threshold")

    def fit(self, reference: Frame) -> Self:
        """Grow the forest from one part of the reference, and set the threshold by the scores of the other.

        Raises:
            BadInput: too few rows for this contamination, no numeric or categorical feature, or one without any value.
        """
        from sklearn.ensemble import IsolationForest  # half a second to import, which whoever only scores does without

        needed = max(MIN_REFERENCE_ROWS, rows_needed(self.contamination))
        require_rows(reference, needed, method=self.method, what="reference")
        columns = require_kinds(reference.schema, "numeric", "categorical", method=self.method)
        learned, held_out = (reference.take(rows) for rows in split(len(reference), self.seed))
        imputer = Imputer.of(learned, columns)
        rows = imputer.rows(learned)
        grown = IsolationForest(
            n_estimators=self.n_estimators, max_samples=min(self.max_samples, len(rows)), random_state=self.seed
        ).fit(rows)
        forest = Forest.of(grown)
        threshold = threshold_at(forest.scores(imputer.rows(held_out)), self.contamination)
        self._restore(
            Fitted.of(
                reference,
                method=self.method,
                state_version=self.state_version,
                params={
                    "contamination": self.contamination,
                    "n_estimators": self.n_estimators,
                    "max_samples": self.max_samples,
                    "seed": self.seed,
                },
                arrays=_to_arrays(imputer, forest),
                extra={"threshold": threshold, "normaliser": forest.normaliser},
            )
        )
        return self

    def score(self, window: Frame) -> InstanceScores:
        """Score each row by itself: the same row has the same score in every window.

        Raises:
            BadInput: no rows, or columns that are not the reference's.
        """
        self._require_window(window)
        rows = self._imputer.rows(window)
        scores = self._forest.scores(rows)
        flagged = scores > self.threshold
        # A feature whose cuts make the paths longer than the mean ones does not make the row strange.
        parts = np.maximum(self._forest.parts(rows[flagged]), 0.0)
        shares = np.zeros((len(rows), len(window.schema.features)))
        # A flagged row's paths need not be shorter than the mean ones where half the reference may be flagged.
        shares[np.ix_(flagged, self._imputer.columns)] = of_each_row(parts)
        return InstanceScores(scores, flagged, self.threshold, shares)

    def _restore(self, state: Fitted) -> None:
        self._imputer, self._forest = _from_arrays(state)
        self._state = state


def _to_arrays(imputer: Imputer, forest: Forest) -> dict[str, Array]:
    trees = {
        field.name: getattr(forest, field.name) for field in dataclasses.fields(forest) if field.name != "normaliser"
    }
    return {"columns": imputer.columns, "fills": imputer.fills, **trees}


def _from_arrays(state: Fitted) -> tuple[Imputer, Forest]:
    arrays = state.arrays()
    try:
        imputer = Imputer(columns=arrays.pop("columns"), fills=arrays.pop("fills"))
        forest = Forest(**arrays, normaliser=state.number("normaliser"))
        # The tree walks are compiled here, so that the first window does not wait for them.
        one = np.zeros((1, len(state.schema.features)))
        forest.scores(one), forest.parts(one)
        return imputer, forest
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise state.damaged(str(error)) from error
