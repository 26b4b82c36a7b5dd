"""What online detectors share that follow one number a row among the model's outputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Final

import numpy as np

from detectors.base import Param, require_output
from detectors.online.detector import OnlineDrift
from detectors.online.tracker import Arrays, Floats
from govern.detection import WindowScores
from govern.errors import BadInput
from govern.frame import Frame
from govern.record import FeatureResult
from govern.schema import FeatureSchema

#: Rows of a reference at least: half of them say how often the model errs in a simulated run.
_LEAST_ROWS: Final = 600
#: Rows of such a run; later ones take the last threshold. With 300 instead, `ddm` ran four times as long as asked for
#: without change, and found changes later; with 3,000 it was no better.
SETTLED: Final = 1_500


class ErrorTracker(ABC):
    """A tracker of one number a row that compares the stream with itself: it remembers `width` numbers, 0 at a start.

    The first of them is how many values were seen.
    """

    width: ClassVar[int]

    @abstractmethod
    def follow(self, errors: Floats, known: Floats) -> Floats:
        """The statistic at each of (n,) values, (n,); brings the (width,) numbers up to date."""

    @abstractmethod
    def possible(self, known: list[float]) -> bool:
        """Whether `follow` can go on from there, where the number of values seen is possible."""

    def prepare(self, rows: Floats) -> Floats:
        return rows

    def simulate(self, prepared: Floats) -> Floats:
        return self.follow(prepared[:, 0], np.zeros(self.width))[:, None]

    def begin(self) -> Arrays:
        return (np.zeros(self.width),)

    def walk(self, known: Arrays, rows: Floats) -> tuple[Floats, Arrays]:
        after = known[0].copy()
        return self.follow(self.prepare(rows)[:, 0], after)[:, None], (after,)

    def accepts(self, known: Arrays, rows: int) -> bool:
        if len(known) != 1 or known[0].dtype != np.float64 or known[0].shape != (self.width,):
            return False
        numbers = known[0].tolist()
        return 0.0 <= numbers[0] <= rows and numbers[0].is_integer() and self.possible(numbers)


class OnlineErrorDrift(OnlineDrift):
    """Follows how often, or how much, the model errs: an output of one value in [0, 1] a row. NaN is missing.

    The model's inputs are not looked at. What its trackers remember begins with the number of values seen.

    Args:
        output: name of the output.
    """

    statistic_name: ClassVar[str]
    long_runs = True

    def __init__(self, *, output: str, ert: int, max_reference: int, seed: int, **own: Param) -> None:
        self.output = output
        super().__init__(ert=ert, max_reference=max_reference, seed=seed, output=output, **own)

    @property
    def needs_outputs(self) -> tuple[str, ...]:
        return (self.output,)

    @property
    def _least_rows(self) -> int:
        return _LEAST_ROWS

    @property
    def _horizon(self) -> int:
        return SETTLED

    def _names(self, schema: FeatureSchema) -> tuple[str, ...]:
        return (self.output,)

    def _read(self, frame: Frame) -> Floats:
        values = require_output(frame, self.output, method=self.method).astype(np.float64)
        if values.shape[1] != 1:
            raise BadInput(
                f"{self.method}: output {self.output!r} has {values.shape[1]} values a row",
                why=f"{self.method} follows one number a row: 1 for an error, 0 for none, or a loss between them",
                fix="name the tensor that holds it in the step's parameter `output`",
            )
        outside = np.flatnonzero((values < 0.0) | (values > 1.0))
        if len(outside):
            raise BadInput(
                f"{self.method}: output {self.output!r} is {values[outside[0], 0]:g} in row {outside[0]}",
                why="an error is 1, none is 0, a loss lies between them",
                fix="name the tensor that holds it in the step's parameter `output`, or divide it by its largest value",
            )
        return values

    def _told(self, statistics: Floats, threshold: float, known: Arrays, *, alarm: bool) -> WindowScores:
        statistic = float(statistics[0])
        one = FeatureResult(
            feature=self.output,
            statistic_name=self.statistic_name,
            statistic=statistic,
            p_value=float("nan"),
            effect_size=float("nan"),
            threshold=threshold,
            n=int(known[0][0]),
            is_drift=alarm,
        )
        return WindowScores(alarm=alarm, features=(one,), statistic=statistic, threshold=threshold)
