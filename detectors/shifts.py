"""Changes of known size, made to rows that have none: what the power of a detector is measured with."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import numpy as np
import numpy.typing as npt

from govern.frame import Frame

Unit = Literal["sigma", "share"]
Floats = npt.NDArray[np.float64]

#: Of a reference that are drawn from, evenly by rank: more show no other distribution in a window.
MOST_VALUES: Final = 10_000
#: Of t in exp(t z): with more, all rows have the largest value.
_MOST_TILT: Final = 100.0
#: Of its interval: as exact as a mean of any window can show.
_HALVINGS: Final = 50


class Shift(Protocol):
    """A change of one feature or output.

    Attributes:
        name: whose.
        unit: of the amount: standard deviations of the reference, or the share of the rows that change.
    """

    @property
    def name(self) -> str: ...
    @property
    def unit(self) -> Unit: ...
    def move(self, rows: Frame, amount: float, generator: np.random.Generator) -> Frame:
        """The rows, changed by the amount; they themselves stay as they are."""
        ...


class LevelShift:
    """Numbers rise, or fall, on average by the amount.

    Windows are moved within the reference's values, so that nothing is found by being new: values are drawn by weights
    exp(t x) that give the mean wanted, and given to the rows in the order of what they had. Of normal numbers that is a
    shift. The mean cannot leave the values' range; it stays at its end. Single rows are moved by the amount itself, out
    of all that was seen.

    Args:
        position: of the feature in the schema, or -1: it is the output `name` of one column.
        present: (n,) finite values of the reference, not all the same.
        within: the reference's values.
    """

    unit: Unit = "sigma"

    def __init__(self, name: str, position: int, present: Floats, *, within: bool = True) -> None:
        self.name = name
        self._position = position
        self._sigma = float(present.std())
        self._within = within
        ranked = np.sort(present)[np.linspace(0, len(present) - 1, min(len(present), MOST_VALUES)).astype(np.int64)]
        self._values, counts = np.unique(ranked, return_counts=True)
        self._z = (self._values - present.mean()) / self._sigma
        self._share = counts / len(ranked)
        self._tilted: dict[float, Floats] = {}

    def move(self, rows: Frame, amount: float, generator: np.random.Generator) -> Frame:
        by = amount * (1.0 if generator.random() < 0.5 else -1.0)
        told = rows.outputs[self.name][:, 0] if self._position < 0 else rows.columns[self._position]
        column = told.astype(np.float64)
        moved = self._redrawn(column, by, generator) if self._within else column + by * self._sigma
        if self._position < 0:
            return dataclasses.replace(rows, outputs={**rows.outputs, self.name: moved[:, None]})
        return _with_column(rows, self._position, moved)

    def _redrawn(self, column: Floats, by: float, generator: np.random.Generator) -> Floats:
        if by not in self._tilted:
            self._tilted[by] = np.cumsum(_tilted(self._z, self._share, by))
        moved = column.copy()
        there = np.flatnonzero(np.isfinite(moved))
        places = self._tilted[by].searchsorted(np.sort(generator.random(len(there))))
        # Ties in an order of chance: those who had the same are to be alike.
        order = np.lexsort((generator.random(len(there)), moved[there]))
        moved[there[order]] = self._values[np.minimum(places, len(self._values) - 1)]
        return moved


@dataclass(frozen=True, slots=True)
class CategoryShift:
    """Rows change to one category, drawn among those of the reference but the most frequent, from all others.

    The amount is the total variation distance by which the window's distribution moves, as long as rows are left.

    Attributes:
        codes: (k,) int32 of the categories to draw from.
    """

    name: str
    position: int
    codes: npt.NDArray[np.int32]
    unit: Unit = "share"

    def move(self, rows: Frame, amount: float, generator: np.random.Generator) -> Frame:
        target = generator.choice(self.codes)
        column = rows.columns[self.position].copy()
        others = generator.permutation(np.flatnonzero(column != target))
        column[others[: round(amount * len(rows))]] = target
        unseen = {name: values for name, values in rows.unseen.items() if name != self.name}
        return dataclasses.replace(_with_column(rows, self.position, column), unseen=unseen)


@dataclass(frozen=True, slots=True)
class AnswerShift:
    """Rows are answered as rows of one class of the reference are, drawn among all but the most frequent.

    Attributes:
        answers: of each class that has rows: (n, k) values of the output.
    """

    name: str
    answers: tuple[npt.NDArray[np.float64], ...]
    unit: Unit = "share"

    def move(self, rows: Frame, amount: float, generator: np.random.Generator) -> Frame:
        values = self.answers[generator.integers(len(self.answers))]
        told = rows.outputs[self.name].copy()
        chosen = generator.permutation(len(rows))[: round(amount * len(rows))]
        told[chosen] = values[generator.integers(len(values), size=len(chosen))]
        return dataclasses.replace(rows, outputs={**rows.outputs, self.name: told})


def of_features(reference: Frame, *, within: bool = True) -> list[Shift]:
    """One for each numeric and categorical feature that has more than one value; `within` as `LevelShift` takes it."""
    found: list[Shift] = []
    for position, feature in enumerate(reference.schema.features):
        column = reference.columns[position]
        if feature.kind == "numeric":
            level = _level(feature.name, position, column.astype(np.float64), within=within)
            found.extend([level] if level else [])
        elif feature.kind == "categorical":
            known = column.astype(np.int32)
            codes, counts = np.unique(known[known >= 0], return_counts=True)
            if len(codes) > 1:
                found.append(CategoryShift(feature.name, position, np.delete(codes, counts.argmax())))
    return found


def of_outputs(reference: Frame, names: tuple[str, ...]) -> list[Shift]:
    """One for each of these outputs: by level where it is one column, by class where it has several."""
    found: list[Shift] = []
    for name in names:
        values = reference.outputs[name]
        if values.shape[1] == 1:
            level = _level(name, -1, values[:, 0])
            found.extend([level] if level else [])
            continue
        classes, counts = np.unique(np.nan_to_num(values, nan=-np.inf).argmax(axis=1), return_counts=True)
        if len(classes) > 1:
            of_class = np.nan_to_num(values, nan=-np.inf).argmax(axis=1)
            rest = np.delete(classes, counts.argmax())
            found.append(AnswerShift(name, tuple(values[of_class == one] for one in rest)))
    return found


def _level(name: str, position: int, column: Floats, *, within: bool = True) -> LevelShift | None:
    present = column[np.isfinite(column)]
    return LevelShift(name, position, present, within=within) if len(present) and present.std() > 0.0 else None


def _tilted(z: Floats, share: Floats, mean: float) -> Floats:
    """The (k,) shares that are proportional to share * exp(t z) and give z this mean, which is 0 without t."""

    def tilt(t: float) -> Floats:
        power = t * z
        weights = share * np.exp(power - power.max())
        return np.asarray(weights / weights.sum())

    low, high = -_MOST_TILT, _MOST_TILT
    for _ in range(_HALVINGS):
        t = (low + high) / 2
        low, high = (t, high) if float(tilt(t) @ z) < mean else (low, t)
    return tilt((low + high) / 2)


def _with_column(rows: Frame, position: int, column: npt.NDArray[np.generic]) -> Frame:
    columns = (*rows.columns[:position], column, *rows.columns[position + 1 :])
    return dataclasses.replace(rows, columns=columns)
