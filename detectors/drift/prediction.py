"""Drift of what the model answers."""

from __future__ import annotations

from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from detectors.drift.outputs import OutputDrift, are_probabilities
from govern.errors import BadInput

Floats = npt.NDArray[np.float64]
Answers = Literal["auto", "classes", "numbers"]

#: Whole numbers of more different values are counts or prices, not classes.
MOST_CLASSES: Final = 50


class PredictionDrift(OutputDrift):
    """Whether the model answers as it did for the reference: classes by chi-squared, numbers by KS or CvM.

    Each value of the output is a column with a test of its own, and the correction is over them. Of the probabilities
    of two classes only the second is tested: the first says the same again, and would cost half the level.

    A model's answers move when its inputs do in a direction that it reacts to, so that this alarms for less than tests
    of the inputs, and never for what the model does not care about. Where a response carries the true label as an
    output, or a table as a column, name it as `output`: that is a test for label drift.

    Args:
        output: name of the model's output tensor.
        answers: "classes": each different value of the reference is one, others are unseen; "numbers"; "auto": classes
            where the reference's values are whole numbers, no more than 50 different ones, and no probabilities.
        p_val: significance level, before correction.
        correction: over the columns of the output: "bonferroni", "holm", "fdr" (Benjamini-Hochberg) or "none".
        numeric: the test of numbers, "ks" or "cvm".
        seed: of the permutations of chi-squared.

    References:
        Lipton, Wang, Smola (2018): Detecting and correcting for label shift with black box predictors. ICML 35;
        Rabanser, Günnemann, Lipton (2019): Failing loudly: an empirical study of methods for detecting dataset
        shift. NeurIPS 32 (BBSDs and BBSDh).
    """

    method = "prediction_drift"

    def __init__(
        self,
        *,
        output: str = "predict_proba",
        answers: str = "auto",
        p_val: float = 0.05,
        correction: str = "bonferroni",
        numeric: str = "ks",
        seed: int = 0,
    ) -> None:
        if answers not in get_args(Answers):
            raise BadInput(
                f"{self.method}: answers is {answers!r}",
                why=f"known are {', '.join(map(repr, get_args(Answers)))}",
                fix="name one of them",
            )
        self.answers = answers
        super().__init__(output=output, p_val=p_val, correction=correction, numeric=numeric, seed=seed, answers=answers)

    def _columns(self, values: Floats) -> dict[str, Floats]:
        if values.shape[1] == 1:
            return {self.output: values[:, 0]}
        columns = {f"{self.output}[{place}]": values[:, place] for place in range(values.shape[1])}
        if self._of_two:
            del columns[f"{self.output}[0]"]
        return columns

    def _learn(self, values: Floats) -> Floats:
        known = np.unique(values[~np.isnan(values)])
        whole = bool((known == np.floor(known)).all()) and len(known) <= MOST_CLASSES
        # A row of a single 0 or 1 is a class; of several that add up to one, probabilities that happen to be certain.
        probable = values.shape[1] > 1 and are_probabilities(values)
        self._of_two = values.shape[1] == 2 and probable
        if self.answers == "classes" or (self.answers == "auto" and whole and not probable):
            return known
        return np.empty(0)
