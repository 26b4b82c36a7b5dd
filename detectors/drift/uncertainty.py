"""Drift of how sure the model is."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.stats import entropy

from detectors.drift.outputs import OutputDrift, are_probabilities
from govern.errors import BadInput

Floats = npt.NDArray[np.float64]


def entropies(values: Floats) -> Floats:
    """Of each of the (n, k) rows of probabilities, nats."""
    return np.asarray(entropy(values, axis=1), dtype=np.float64)


def margins(values: Floats) -> Floats:
    """Of each row, how far the most likely class is ahead of the next."""
    ordered = np.sort(values, axis=1)
    return np.asarray(ordered[:, -1] - ordered[:, -2], dtype=np.float64)


def spreads(values: Floats) -> Floats:
    """Of each row, the standard deviation over its values."""
    return np.asarray(np.std(values, axis=1), dtype=np.float64)


MEASURES: Final = {"entropy": entropies, "margin": margins, "spread": spreads}


class UncertaintyDrift(OutputDrift):
    """Whether the model is as sure of its answers as it was for the reference.

    One number for each row: of a classifier the entropy of its probabilities or the margin of the first class over the
    second; of a regressor that answers k times (an ensemble, or dropout left on), the spread of its answers. A model
    is less sure of rows like none that it learned from; it is as sure as before of those it is wrong about and does not
    know it. Where it gets surer is drift, too.

    Args:
        output: name of the model's output tensor: (n, k) probabilities, or (n, 1) for the second of two classes; for
            "spread", k answers to the same row.
        measure: "entropy", "margin" or "spread".
        p_val: significance level.
        numeric: the test, "ks" or "cvm".
        seed: recorded in verdicts; the tests draw no random numbers.

    References:
        Sethi, Kantardzic (2017): On the reliable detection of concept drift from streaming unlabeled data. Expert
        Systems with Applications 82, 77-99 (margin density);
        Gal, Ghahramani (2016): Dropout as a Bayesian approximation. ICML 33 (spread).
    """

    method = "model_uncertainty"

    def __init__(
        self,
        *,
        output: str = "predict_proba",
        measure: str = "entropy",
        p_val: float = 0.05,
        numeric: str = "ks",
        seed: int = 0,
    ) -> None:
        if measure not in MEASURES:
            raise BadInput(
                f"{self.method}: measure is {measure!r}",
                why=f"known are {', '.join(map(repr, MEASURES))}",
                fix="name one of them",
            )
        self.measure = measure
        super().__init__(
            output=output, p_val=p_val, correction="bonferroni", numeric=numeric, seed=seed, measure=measure
        )
        del self._params["correction"]  # of one column, of which the constructor takes none

    def _columns(self, values: Floats) -> dict[str, Floats]:
        if self.measure == "spread":
            if values.shape[1] == 1:
                raise BadInput(
                    f"{self.method}: output {self.output!r} has one value a row",
                    why="a spread is that of several answers to the same row",
                    fix="name an output of an ensemble, or measure entropy or margin of probabilities",
                )
        else:
            if not are_probabilities(values):
                raise BadInput(
                    f"{self.method}: output {self.output!r} holds no probabilities",
                    why=f"{self.measure} needs rows that are not negative and add up to one",
                    fix="name the model's probability output, or measure the spread of several answers",
                )
            if values.shape[1] == 1:
                values = np.hstack((1.0 - values, values))
        return {f"{self.output}:{self.measure}": MEASURES[self.measure](values)}
