"""Neighbourhood: the conditions that hold for a row, and rows that share them.

Ribeiro, Singh and Guestrin, "Anchors: High-Precision Model-Agnostic Explanations", AAAI 2018: predicates on table data
are equality of a category and membership in quartile bins of a number; the perturbation distribution D(z|A) takes
whole rows of the data and gives them the anchored features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from explainers.fitted import from_matrix
from explainers.predicate import Predicate
from govern.frame import Frame
from govern.schema import FeatureSchema

#: Where numbers are cut: the quartiles of the background, as in the paper.
_QUANTILES: Final = (0.25, 0.5, 0.75)
#: The code of a missing number, below every bin.
_MISSING_CODE: Final = -1

Matrix = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

#: (feature position, lowest code, highest code): the value's code lies between the two, both included.
Condition = tuple[int, int, int]
#: Conditions on distinct features, in their order.
Rule = tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Grid:
    """How values become small integers: a category its code, a number its quartile bin (0, 1, ...; -1 missing).

    Attributes:
        cuts: for each feature the ascending upper bounds (inclusive) of all bins but the last; None = categorical.
    """

    schema: FeatureSchema
    cuts: tuple[Matrix | None, ...]

    @classmethod
    def of(cls, background: Frame) -> Grid:
        cuts: list[Matrix | None] = []
        for feature, column in zip(background.schema.features, background.matrix().T, strict=True):
            present = column[~np.isnan(column)]
            if feature.kind == "categorical":
                cuts.append(None)
            elif present.size == 0:
                cuts.append(np.empty(0))
            else:
                points = np.unique(np.quantile(present, _QUANTILES, method="lower"))
                cuts.append(points[points < present.max()])
        return cls(background.schema, tuple(cuts))

    def codes(self, matrix: Matrix) -> Codes:
        """(n, d) values as `Frame.matrix` gives them -> (n, d) codes."""
        codes = np.empty(matrix.shape, dtype=np.int64)
        for j, cuts in enumerate(self.cuts):
            column = matrix[:, j]
            missing = np.isnan(column)
            binned = np.where(missing, _MISSING_CODE, column) if cuts is None else np.searchsorted(cuts, column)
            codes[:, j] = np.where(missing, _MISSING_CODE, binned)
        return codes

    def conditions(self, codes: Codes) -> list[Condition]:
        """What may be said of a row with these (d,) codes: its category, each cut above it, each cut below it."""
        found: list[Condition] = []
        for j, cuts in enumerate(self.cuts):
            code = int(codes[j])
            if cuts is None or code == _MISSING_CODE:
                found.append((j, code, code))
                continue
            found.extend((j, 0, above) for above in range(code, len(cuts)))
            found.extend((j, below, len(cuts)) for below in range(1, code + 1))
        return found

    def predicates(self, rule: Rule, row: Frame) -> tuple[Predicate, ...]:
        """The rule in the features' own terms."""
        values = row.row(0)
        told: list[Predicate] = []
        for j, low, high in rule:
            feature, cuts = self.schema.features[j], self.cuts[j]
            value = values[feature.name]
            if value is None:
                told.append(Predicate(feature.name, missing=True))
            elif cuts is None:
                told.append(Predicate(feature.name, category=str(value)))
            else:
                told.append(
                    Predicate(
                        feature.name,
                        low=float(cuts[low - 1]) if low > 0 else None,
                        high=float(cuts[high]) if high < len(cuts) else None,
                    )
                )
        return tuple(told)


def tighten(rule: Rule, condition: Condition) -> Rule | None:
    """The rule with one more condition; None when the condition follows from the rule already."""
    j, low, high = condition
    present = next((one for one in rule if one[0] == j), None)
    if present is not None:
        low, high = max(low, present[1]), min(high, present[2])
        if (j, low, high) == present:
            return None
    return tuple(sorted((*(one for one in rule if one[0] != j), (j, low, high))))


class Neighbourhood:
    """D(z|A) around one row: background rows drawn with replacement, made to fulfil the rule A.

    A drawn row keeps its own value of an anchored feature where that value fulfils the condition. Otherwise it takes
    the row's category, or for a number a value drawn from the background's values within the condition's bins (the
    row's own where the background has none).
    """

    def __init__(self, background: Frame, grid: Grid, row: Frame) -> None:
        self.grid = grid
        self._row_frame = row
        self._row = row.matrix()[0]
        self._rows = background.matrix()
        self._codes = grid.codes(self._rows)

    @property
    def conditions(self) -> list[Condition]:
        """The row's conditions that some row of the background does not fulfil: the others say nothing."""
        codes = self.grid.codes(self._row[None, :])[0]
        return [one for one in self.grid.conditions(codes) if not self._fulfils(one).all()]

    def coverage(self, rule: Rule) -> float:
        """The share of background rows that fulfil the rule."""
        held = np.ones(len(self._rows), dtype=np.bool_)
        for condition in rule:
            held &= self._fulfils(condition)
        return float(held.mean())

    def draw(self, rule: Rule, n: int, rng: np.random.Generator) -> Matrix:
        """n rows of D(z|rule), (n, d)."""
        picked = rng.integers(len(self._rows), size=n)
        rows = self._rows[picked]
        for j, low, high in rule:
            codes = self._codes[picked, j]
            wrong = np.flatnonzero((codes < low) | (codes > high))
            pool = self._pool(j, low, high)
            rows[wrong, j] = pool[rng.integers(len(pool), size=len(wrong))]
        return rows

    def frame(self, rows: Matrix) -> Frame:
        return from_matrix(rows, self._row_frame)

    def _pool(self, j: int, low: int, high: int) -> Matrix:
        own: Matrix = self._row[j : j + 1]
        if self.grid.cuts[j] is None:
            return own
        values: Matrix = self._rows[self._fulfils((j, low, high)), j]
        return values if values.size else own

    def _fulfils(self, condition: Condition) -> npt.NDArray[np.bool_]:
        j, low, high = condition
        return (self._codes[:, j] >= low) & (self._codes[:, j] <= high)
