"""What the adversarial detectors that learn from the model's captured answers share: split, threshold, artifact."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Final, Self

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from detectors.adversarial.model_distillation import centred_log_odds
from detectors.base import Array, Fitted, Param, Stored, fitted, require_fraction, require_kinds, require_rows
from detectors.outlier.held_out import rows_needed, split, threshold_at
from govern.detection import InstanceScores
from govern.errors import BadInput
from govern.frame import Frame
from govern.record import Kind

Floats = npt.NDArray[np.float64]

#: Below it there is nothing to learn an answer from, whatever the false positive rate.
MIN_REFERENCE_ROWS: Final = 200


class AdversarialDetector(Stored):
    """A method that holds the served answer against what the reference's rows and answers lead to expect.

    The model is never called: scoring is a function of the row, its captured answer and the artifact. Of the
    reference, a seeded 70 % is learned from and the rest sets the threshold, so that fresh clean rows are flagged at
    the false positive rate or below.

    Args:
        output: name of the model output that holds probabilities: (n, k), or (n, 1) for the probability of the
            second of two classes.
        false_positive_rate: share of clean rows above the threshold, at most.
        seed: of the split of the reference, and of what is random in the method.
        params: the method's own, as the manifest holds them.
    """

    kind: Final[Kind] = "adversarial"
    min_instances = 1

    def __init__(self, *, output: str, false_positive_rate: float, seed: int, **params: Param) -> None:
        self.output = output
        self.false_positive_rate = require_fraction("false_positive_rate", false_positive_rate, method=self.method)
        self.seed = seed
        self._params: Mapping[str, Param] = {
            "output": output,
            "false_positive_rate": self.false_positive_rate,
            "seed": seed,
            **params,
        }

    @abstractmethod
    def _learn(self, reference: Frame, columns: tuple[int, ...], answers: Floats) -> Mapping[str, Array]:
        """The state of the method, from rows in random order and the centred log-odds (n, k) that they were answered.

        Raises:
            BadInput: they do not serve.
        """

    @abstractmethod
    def _read(self, arrays: Mapping[str, Array]) -> None:
        """Be ready to score by what `_learn` gave.

        Raises:
            KeyError, TypeError, ValueError: the arrays are no state of this method.
        """

    @abstractmethod
    def _scores(self, window: Frame, answers: Floats) -> Floats:
        """(n,) finite, higher is stranger: how far the answers, probabilities (n, k), are from what was expected.

        A row's score depends on that row and its answer alone, to the last bit.
        """

    @property
    def needs_outputs(self) -> tuple[str, ...]:
        return (self.output,)

    @property
    def threshold(self) -> float:
        """A row with a score above it is flagged."""
        return fitted(self._state, self.method).number("threshold")

    def fit(self, reference: Frame) -> Self:
        """Learn from one part of the reference, and set the threshold by the scores of the other.

        Raises:
            BadInput: too few rows for this rate, no usable feature, or no probabilities under the output's name.
        """
        needed = max(MIN_REFERENCE_ROWS, rows_needed(self.false_positive_rate))
        require_rows(reference, needed, method=self.method, what="reference")
        columns = require_kinds(reference.schema, "numeric", "categorical", method=self.method)
        answers = centred_log_odds(reference, self.output, method=self.method)
        learned, held_out = split(len(reference), self.seed)
        arrays = {
            "classes": np.array(answers.shape[1], dtype=np.int64),
            **self._learn(reference.take(learned), columns, answers[learned]),
        }
        self._read(arrays)
        scores = self._scores(reference.take(held_out), softmax(answers[held_out], axis=1))
        self._restore(
            Fitted.of(
                reference,
                method=self.method,
                state_version=self.state_version,
                params=self._params,
                arrays=arrays,
                extra={
                    "threshold": threshold_at(scores, self.false_positive_rate),
                    "held_out_rows": len(held_out),
                },
            )
        )
        return self

    def score(self, window: Frame) -> InstanceScores:
        """Score each row by itself: the same row and answer have the same score in every window.

        Raises:
            BadInput: no rows, columns that are not the reference's, or outputs that are not probabilities over as
                many classes as the reference's.
        """
        self._require_window(window)
        answers = centred_log_odds(window, self.output, method=self.method)
        if answers.shape[1] != self._classes:
            raise BadInput(
                f"{self.method}: output {self.output!r} has {answers.shape[1]} classes",
                why=f"in the reference it had {self._classes}",
                fix="fit the detector for this revision of the model",
            )
        scores = self._scores(window, softmax(answers, axis=1))
        return InstanceScores(scores=scores, flagged=scores > self._threshold, threshold=self._threshold)

    def _restore(self, state: Fitted) -> None:
        arrays = state.arrays()
        try:
            self._classes = int(arrays["classes"])
            self._read(arrays)
        except (KeyError, TypeError, ValueError) as error:
            raise state.damaged(str(error)) from error
        self._threshold = state.number("threshold")
        self._state = state
