"""Target: which number of a model's answer is explained, and what it means to the person concerned."""

from __future__ import annotations

import math
from typing import Final, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from govern.errors import BadInput

#: Log-odds below minus this are a probability of 0 in double precision.
_FAR: Final = 700.0

Unit = Literal["probability", "log-odds", "raw"]


class Target(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One column of one output tensor.

    Attributes:
        output: the output tensor's name; "" = the only one there is.
        column: the class or column explained; negative counts from the end (-1: the positive class of two).
        unit: what the model's number is: a probability or an unbounded score.
        threshold: the value from which on the answer is the higher one; None = the class of the largest column.
        favourable: which side of the threshold the person hopes for ("high": more is better).
        words: what to call the number in a sentence.
    """

    output: str = ""
    column: int = -1
    unit: Literal["probability", "raw"] = "probability"
    threshold: float | None = 0.5
    favourable: Literal["high", "low"] = "high"
    words: str = "score"

    def values(self, outputs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The explained number of each row: (n, k) -> (n,).

        Raises:
            BadInput: the output has no such column.
        """
        width = outputs.shape[1]
        if not -width <= self.column < width:
            raise BadInput(
                f"target: column {self.column} of output {self.output!r}",
                why=f"the model answers {width} column(s)",
                fix="name a column that exists, or another output",
            )
        return outputs[:, self.column]

    def answers(self, outputs: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
        """The decision for each row: (n, k) -> (n,); 1 at or above the threshold, else 0; without one, the class."""
        if self.threshold is None:
            return np.asarray(np.argmax(outputs, axis=1), dtype=np.intp)
        return (self.values(outputs) >= self.threshold).astype(np.intp)

    def is_favourable(self, prediction: float, unit: Unit) -> bool:
        """Whether this prediction is on the side of the threshold that the person hopes for (True without one).

        Args:
            unit: of `prediction`; log-odds are compared with the threshold's log-odds.
        """
        if self.threshold is None:
            return True
        if unit == "log-odds":
            prediction = 1.0 / (1.0 + math.exp(-prediction)) if prediction > -_FAR else 0.0
        return (prediction >= self.threshold) == (self.favourable == "high")
