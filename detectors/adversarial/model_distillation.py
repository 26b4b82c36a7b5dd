"""Adversarial inputs by model distillation."""

from __future__ import annotations

from typing import Final, Literal, Self, get_args

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax, rel_entr, softmax

from detectors.adversarial.student import Student
from detectors.base import (
    SUM_TOLERANCE,
    Fitted,
    Stored,
    fitted,
    require_at_least,
    require_fraction,
    require_kinds,
    require_output,
    require_rows,
)
from govern.detection import InstanceScores
from govern.errors import BadInput
from govern.frame import Frame
from govern.record import Kind

Floats = npt.NDArray[np.float64]
Divergence = Literal["kl", "js"]

#: Rows that a reference must have: three quarters train the student, the rest must hold a quantile.
MIN_REFERENCE_ROWS: Final = 200
#: Share of the reference that the student never sees, which sets the threshold.
HELD_OUT: Final = 0.25
#: A probability is taken as at least this: the log-odds of a certain answer are infinite, and beyond 0.1 % they say
#: nothing about an attack.
_FLOOR: Final = 1e-3


class ModelDistillation(Stored):
    """How far the model's answer is from that of a student which learned the model's answers.

    The student is a small, smooth network, fitted on the reference's inputs and the model's own captured
    probabilities for them. An input made to push the model over its boundary exploits what is peculiar to the model;
    the student, which does not share it, answers otherwise. The score is the divergence between the two answers.

    Args:
        output: name of the model output that holds probabilities: (n, k), or (n, 1) for the probability of the
            second of two classes.
        divergence: "kl" for KL(model || student), unbounded; "js" for Jensen-Shannon, in [0, ln 2] nats.
        temperature: log-odds of both are divided by it; above 1, how unlikely classes compare counts more.
        false_positive_rate: share of clean rows above the threshold, measured on reference rows that the student
            was not trained on.
        epochs: the student's training passes, at most.
        seed: of the split and the student.

    What it cannot do: see an attack that the student falls for as well, because it changes what truly matters; see
    one whose answer is what an honest row would get; tell an attack from drift, or from an honest rare row on which
    the student is wrong. Rows pushed just past the boundary score low by nature, as their answer is nearly undecided.
    On the census table of the tests, a greedy attack that changes at most three cells of a confidently answered row
    is ranked above clean rows of a later year with an area under the ROC curve of 0.75, and a fifth of its rows
    are flagged at a false positive rate of 1 %. Use it beside an outlier step; a flag means "look at this".

    References:
        Hinton, Vinyals, Dean (2015): Distilling the knowledge in a neural network. arXiv:1503.02531.
        Vacanti, Van Looveren (2020): Adversarial detection and correction by matching prediction distributions.
        arXiv:2002.09364, whose companion detector in alibi-detect (ModelDistillation) this follows.
    """

    kind: Final[Kind] = "adversarial"
    method = "model_distillation"
    min_instances = 1

    def __init__(
        self,
        *,
        output: str = "predict_proba",
        divergence: str = "kl",
        temperature: float = 1.0,
        false_positive_rate: float = 0.01,
        epochs: int = 100,
        seed: int = 0,
    ) -> None:
        self.output = output
        self.divergence = _require_divergence(divergence)
        if not temperature > 0.0:
            raise BadInput(f"{self.method}: temperature is {temperature}", why="it must be positive", fix="correct it")
        self.temperature = float(temperature)
        self.false_positive_rate = require_fraction("false_positive_rate", false_positive_rate, method=self.method)
        self.epochs = require_at_least("epochs", epochs, 1, method=self.method)
        self.seed = seed

    @property
    def needs_outputs(self) -> tuple[str, ...]:
        return (self.output,)

    @property
    def threshold(self) -> float:
        """A row with a score above it is flagged; nats."""
        return fitted(self._state, self.method).number("threshold")

    def fit(self, reference: Frame) -> Self:
        """Train the student on three quarters of the reference, and set the threshold on the rest.

        Raises:
            BadInput: too few rows, no usable feature, or no probabilities under the output's name.
        """
        require_rows(reference, MIN_REFERENCE_ROWS, method=self.method, what="reference")
        columns = require_kinds(reference.schema, "numeric", "categorical", method=self.method)
        logits = centred_log_odds(reference, self.output, method=self.method)
        order = np.random.default_rng(self.seed).permutation(len(reference))
        held, used = np.split(order, [round(HELD_OUT * len(order))])
        student = Student.fit(reference.take(used), columns, logits[used], epochs=self.epochs, seed=self.seed)
        scores = self._divergence(logits[held], student(reference.take(held)))
        threshold = float(np.quantile(scores, 1.0 - self.false_positive_rate, method="higher"))
        self._restore(
            Fitted.of(
                reference,
                method=self.method,
                state_version=self.state_version,
                params={
                    "output": self.output,
                    "divergence": self.divergence,
                    "temperature": self.temperature,
                    "false_positive_rate": self.false_positive_rate,
                    "epochs": self.epochs,
                    "seed": self.seed,
                },
                arrays=student.arrays(),
                extra={"threshold": threshold},
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
        logits, known = centred_log_odds(window, self.output, method=self.method), self._student(window)
        if logits.shape != known.shape:
            raise BadInput(
                f"{self.method}: output {self.output!r} has {logits.shape[1]} classes",
                why=f"in the reference it had {known.shape[1]}",
                fix="fit the detector for this revision of the model",
            )
        scores = self._divergence(logits, known)
        return InstanceScores(scores=scores, flagged=scores > self.threshold, threshold=self.threshold)

    def _restore(self, state: Fitted) -> None:
        try:
            self._student = Student.from_arrays(state.arrays())
        except TypeError as error:
            raise state.damaged(str(error)) from error
        self._state = state

    def _divergence(self, model: Floats, student: Floats) -> Floats:
        return divergence_of(model / self.temperature, student / self.temperature, self.divergence)


def centred_log_odds(frame: Frame, output: str, *, method: str) -> Floats:
    """The log-probabilities (n, k) of an output, less their mean over the classes.

    Raises:
        BadInput: no such output, or no probabilities in it.
    """
    p = require_output(frame, output, method=method, what="probability output")
    if p.shape[1] == 1:
        p = np.hstack((1.0 - p, p))
    wrong = ~((p >= 0.0).all(axis=1) & (np.abs(p.sum(axis=1) - 1.0) <= SUM_TOLERANCE))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise BadInput(
            f"{method}: output {output!r} of row {row} is {frame.outputs[output][row].tolist()}",
            why="probabilities are needed: not negative, adding up to one",
            fix="name the model's probability output, not its label or score",
        )
    logits = np.log(np.maximum(p, _FLOOR))
    return np.asarray(logits - logits.mean(axis=1, keepdims=True), dtype=np.float64)


def divergence_of(model: Floats, student: Floats, divergence: Divergence) -> Floats:
    """(n,) nats between the answers that two (n, k) log-odds stand for."""
    if divergence == "kl":
        p = softmax(model, axis=1)
        gap = (p * (log_softmax(model, axis=1) - log_softmax(student, axis=1))).sum(axis=1)
        return np.maximum(np.asarray(gap, dtype=np.float64), 0.0)
    p, q = softmax(model, axis=1), softmax(student, axis=1)
    middle = (p + q) / 2.0
    return np.asarray((rel_entr(p, middle) + rel_entr(q, middle)).sum(axis=1) / 2.0, dtype=np.float64)


def _require_divergence(name: str) -> Divergence:
    for known in get_args(Divergence):
        if name == known:
            return known  # type: ignore[no-any-return]
    raise BadInput(f"model_distillation: divergence is {name!r}", why='known are "kl" and "js"', fix="name one of them")
