"""What online detectors share that follow one number a row among the model's outputs."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from detectors.base import Param, require_output
from detectors.online.detector import OnlineDrift
from detectors.online.tracker import Arrays, Floats
from govern.detection import WindowScores
from govern.errors import BadInput
from govern.frame import Frame
from govern.record import FeatureResult
from govern.schema import FeatureSchema


class OnlineErrorDrift(OnlineDrift):
    """Follows how often, or how much, the model errs: an output of one value in [0, 1] a row. NaN is missing.

    The model's inputs are not looked at. What its trackers remember begins with the number of values seen.

    Args:
        output: name of the output.
    """

    statistic_name: ClassVar[str]

    def __init__(self, *, output: str, ert: int, max_reference: int, seed: int, **own: Param) -> None:
        self.output = output
        super().__init__(ert=ert, max_reference=max_reference, seed=seed, output=output, **own)

    @property
    def needs_outputs(self) -> tuple[str, ...]:
        return (self.output,)

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
