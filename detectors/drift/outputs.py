"""What the detectors of a model's outputs share: columns made of an output, each tested by itself."""

from __future__ import annotations

from abc import abstractmethod
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from detectors.base import SUM_TOLERANCE, Fitted, Param, Stored, require_output, require_rows
from detectors.drift.feature_test import MIN_ROWS
from detectors.drift.tabular import TabularDrift
from govern.detection import WindowScores
from govern.errors import BadInput
from govern.frame import MISSING, UNSEEN, Frame
from govern.record import Kind
from govern.schema import FORMAT_VERSION, Feature, FeatureSchema

Floats = npt.NDArray[np.float64]

#: The only array of the state.
_VALUES: Final = "values"


class OutputDrift(Stored):
    """A `TabularDrift` whose table is made of one output of the model; the model's inputs are not looked at.

    Args:
        output: name of the model's output tensor, (n, k).
        p_val: significance level, before correction.
        correction: over the columns: "bonferroni", "holm", "fdr" (Benjamini-Hochberg) or "none".
        numeric: the test of numbers, "ks" or "cvm".
        seed: of the permutations of chi-squared.
        own: further parameters of the class, as its constructor takes them.
    """

    kind: Final[Kind] = "drift"
    min_instances = MIN_ROWS

    def __init__(self, *, output: str, p_val: float, correction: str, numeric: str, seed: int, **own: Param) -> None:
        self.output = output
        self.seed = seed
        self._tests = TabularDrift(p_val=p_val, correction=correction, numeric=numeric, seed=seed)
        self._params: dict[str, Param] = {
            "output": output,
            "p_val": p_val,
            "correction": correction,
            "numeric": numeric,
            "seed": seed,
            **own,
        }

    @abstractmethod
    def _columns(self, values: Floats) -> dict[str, Floats]:
        """What is tested of (n, k) values: name -> (n,).

        Raises:
            BadInput: they are not what the method is for.
        """

    def _learn(self, values: Floats) -> Floats:
        """See, before any columns are made, the reference's (m, k) values.

        Returns:
            the classes that they are, rising; none where they are numbers.
        """
        return np.empty(0)

    @property
    def needs_outputs(self) -> tuple[str, ...]:
        return (self.output,)

    def fit(self, reference: Frame) -> Self:
        """Keep the output of the reference.

        Raises:
            BadInput: too few rows, no such output, or one that is not what the method is for.
        """
        require_rows(reference, MIN_ROWS, method=self.method, what="reference")
        self._restore(
            Fitted.of(
                reference,
                method=self.method,
                state_version=self.state_version,
                params=self._params,
                arrays={_VALUES: output_of(reference, self.output, method=self.method)},
            )
        )
        return self

    def score(self, window: Frame) -> WindowScores:
        """Test the output of the window against the reference's.

        Raises:
            BadInput: fewer than `min_instances` rows, columns that are not the reference's, or no such output.
        """
        self._require_window(window)
        values = output_of(window, self.output, method=self.method)
        if values.shape[1] != self._width:
            raise BadInput(
                f"{self.method}: output {self.output!r} has {values.shape[1]} values a row",
                why=f"in the reference it had {self._width}",
                fix="fit the detector for this revision of the model",
            )
        return self._tests.score(self._table(values))

    def _restore(self, state: Fitted) -> None:
        arrays = state.arrays()
        if set(arrays) != {_VALUES} or arrays[_VALUES].ndim != 2 or arrays[_VALUES].dtype != np.float64:
            raise state.damaged(f"its arrays are {sorted(arrays)}, not the values of an output")
        values = arrays[_VALUES]
        self._width = values.shape[1]
        self._known = self._learn(values)
        classes = tuple(f"{one:g}" for one in self._known)
        features = tuple(
            Feature(name=name, kind="categorical", datatype="BYTES", categories=classes, nullable=True)
            if classes
            else Feature(name=name, kind="numeric", nullable=True)
            for name in self._columns(values)
        )
        self._outputs = FeatureSchema(format_version=FORMAT_VERSION, model=state.schema.model, features=features)
        self._tests.fit(self._table(values))
        self._state = state

    def _table(self, values: Floats) -> Frame:
        columns = tuple(self._columns(values).values())
        if len(self._known):
            return Frame(self._outputs, tuple(_codes(column, self._known) for column in columns))
        return Frame(self._outputs, columns)


def output_of(frame: Frame, output: str, *, method: str) -> Floats:
    """The (n, k) values of an output; infinite ones are NaN, missing.

    Raises:
        BadInput: the frame has none of that name.
    """
    values = np.array(require_output(frame, output, method=method), dtype=np.float64)
    values[np.isinf(values)] = np.nan
    return values


def are_probabilities(values: Floats) -> bool:
    """Whether each of the (n, k) rows is probabilities of k classes, or of the second of two; NaN is no hindrance."""
    known = values[~np.isnan(values).any(axis=1)]
    within = bool(((known >= 0.0) & (known <= 1.0 + SUM_TOLERANCE)).all())
    return within and (values.shape[1] == 1 or bool((np.abs(known.sum(axis=1) - 1.0) <= SUM_TOLERANCE).all()))


def _codes(column: Floats, classes: Floats) -> npt.NDArray[np.int32]:
    place = np.minimum(classes.searchsorted(column), len(classes) - 1)
    codes = np.where(classes[place] == column, place, UNSEEN)
    return np.where(np.isnan(column), MISSING, codes).astype(np.int32)
