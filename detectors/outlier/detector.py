"""What the outlier detectors on coded tables share: coding, held-out threshold, artifact, shares of features."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Final, Protocol, Self

import numpy as np
import numpy.typing as npt

from detectors.base import Array, Fitted, Param, Stored, fitted, require_fraction, require_kinds, require_rows
from detectors.coding import Coding
from detectors.outlier.held_out import rows_needed, split, threshold_at
from govern.detection import InstanceScores
from govern.frame import Frame
from govern.record import Kind

Floats = npt.NDArray[np.float64]

#: Below it no method here has anything to learn from, whatever the contamination.
MIN_REFERENCE_ROWS: Final = 50
#: Before the names of the coding's arrays, which a model's fields may share.
_CODING: Final = "coding."


class Model(Protocol):
    """What a method learned: a frozen dataclass whose fields are arrays, and nothing else.

    A point's score depends on that point alone, to the last bit: sums run in one order, however many points come.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def scores(self, points: Floats) -> Floats:
        """(n, D) -> (n,) finite, higher is stranger."""
        ...

    def parts(self, points: Floats) -> Floats:
        """(n, D) >= 0: what each coordinate adds to the score."""
        ...


class OutlierDetector(Stored):
    """A method on the numeric and categorical features of a table, as points (`Coding`); others are not looked at.

    Of the reference, a seeded 70 % is learned from and the rest sets the threshold, so that fresh rows are flagged
    at the contamination or below.

    Args:
        contamination: the expected share of flagged rows while nothing changes, at most.
        seed: of the split of the reference, and of what is random in the method.
        params: the method's own, as the manifest holds them.
    """

    kind: Final[Kind] = "outlier"
    min_instances = 1
    needs_outputs: Final[tuple[str, ...]] = ()
    tells_shares = True

    def __init__(self, *, contamination: float, seed: int, **params: Param) -> None:
        self.contamination = require_fraction("contamination", contamination, method=self.method)
        self.seed = seed
        self._params: Mapping[str, Param] = {"contamination": self.contamination, "seed": seed, **params}

    @abstractmethod
    def _learn(self, points: Floats) -> Model:
        """The model of (n, D) points, which come in random order."""

    @abstractmethod
    def _read(self, arrays: Mapping[str, Array]) -> Model:
        """The model whose fields these are."""

    @property
    def threshold(self) -> float:
        """A row with a score above it is flagged."""
        return fitted(self._state, self.method).number("threshold")

    def fit(self, reference: Frame) -> Self:
        """Learn from one part of the reference, and set the threshold by the scores of the other.

        Raises:
            BadInput: too few rows for this contamination, no numeric or categorical feature, or one without values.
        """
        needed = max(MIN_REFERENCE_ROWS, rows_needed(self.contamination))
        require_rows(reference, needed, method=self.method, what="reference")
        columns = require_kinds(reference.schema, "numeric", "categorical", method=self.method)
        learned, held_out = (reference.take(rows) for rows in split(len(reference), self.seed))
        coding = Coding.of(learned, columns)
        model = self._learn(coding.points(learned))
        threshold = threshold_at(model.scores(coding.points(held_out)), self.contamination)
        self._restore(
            Fitted.of(
                reference,
                method=self.method,
                state_version=self.state_version,
                params=self._params,
                arrays={**_fields(coding, _CODING), **_fields(model)},
                extra={"threshold": threshold, "held_out_rows": len(held_out)},
            )
        )
        return self

    def score(self, window: Frame) -> InstanceScores:
        """Score each row by itself: the same row has the same score in every window.

        Raises:
            BadInput: no rows, or columns that are not the reference's.
        """
        return self._scored(self._points(window), self._model)

    def _points(self, window: Frame) -> Floats:
        """
        Raises:
            BadInput: as `score`.
        """
        self._require_window(window)
        return self._coding.points(window)

    def _scored(self, points: Floats, model: Model) -> InstanceScores:
        scores = model.scores(points)
        flagged = scores > self._threshold
        return InstanceScores(scores, flagged, self._threshold, self._shares(points, flagged, model))

    def _shares(self, points: Floats, flagged: npt.NDArray[np.bool_], model: Model) -> Floats:
        """Of flagged rows only: what nobody is told of need not be computed."""
        width = len(self.schema.features)
        shares = np.zeros((len(points), width))
        shares[flagged] = self._coding.shares(model.parts(points[flagged]), width)
        return shares

    def _restore(self, state: Fitted) -> None:
        arrays = state.arrays()
        try:
            self._coding = Coding(**{name: arrays.pop(_CODING + name) for name in _fields_of(Coding)})
            self._model = self._read(arrays)
        except (KeyError, TypeError) as error:
            raise state.damaged(str(error)) from error
        self._threshold = state.number("threshold")
        self._state = state
        # What is compiled at its first call is compiled here, so that the first window does not wait for it.
        one = np.zeros((1, len(self._coding.centres)))
        self._model.scores(one)
        self._model.parts(one)


def _fields_of(value: Coding | Model | type[Coding]) -> list[str]:
    return [field.name for field in dataclasses.fields(value)]


def _fields(value: Coding | Model, prefix: str = "") -> dict[str, Array]:
    return {prefix + name: getattr(value, name) for name in _fields_of(value)}
