"""Online drift of a model's errors by the early drift detection method."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from detectors.compiled import compiled
from detectors.online.outputs import SETTLED, ErrorTracker, OnlineErrorDrift
from detectors.online.tracker import Floats
from govern.errors import BadInput
from govern.schema import FeatureSchema

#: Errors before any distance is held to be the largest, and before any test, as in the article.
LEAST: Final = 30
#: Errors in a simulated run, at least: in half of it, nearly all runs have had more than `LEAST`.
_ERRORS: Final = 100
#: Share of errors in a reference, at least: with fewer it would say nothing for thousands of rows after each start.
_RATE_MIN: Final = 0.01


def _follow_distances(errors: Floats, error_from: float, known: Floats) -> Floats:
    """(n,) -> (n,). `known` are the values seen, the errors, the value of the last one, the mean distance, the sum of
    its squared deviations, the largest p + 2 s, and the statistic."""
    found = np.full(len(errors), np.nan)
    for row in range(len(errors)):
        if not np.isnan(errors[row]):
            known[0] += 1.0
        if errors[row] >= error_from:
            distance = known[0] - known[2]
            known[1] += 1.0
            known[2] = known[0]
            away = distance - known[3]
            known[3] += away / known[1]
            known[4] += away * (distance - known[3])
            if known[1] >= LEAST:
                s = np.sqrt(known[4] / (known[1] - 1.0))
                reach = known[3] + 2.0 * s
                known[5] = max(known[5], reach)
                known[6] = 1.0 - reach / known[5]
        if known[1] > LEAST:
            found[row] = known[6]
    return found


_follow = compiled(_follow_distances)


class ErrorDistance(ErrorTracker):
    """The share by which the rows between two errors, mean and spread, have become fewer than they were at most.

    Args:
        error_from: a value of so much or more is an error.
    """

    width = 7

    def __init__(self, error_from: float) -> None:
        self._error_from = error_from

    def follow(self, errors: Floats, known: Floats) -> Floats:
        return _follow(errors, self._error_from, known)

    def possible(self, known: list[float]) -> bool:
        seen, errors, last, mean, squares, most, statistic = known
        counts = 0.0 <= errors <= last <= seen and errors.is_integer() and last.is_integer()
        sums = 0.0 <= mean <= seen and 0.0 <= squares < math.inf and 0.0 <= most < math.inf
        return counts and sums and 0.0 <= statistic <= 1.0


class EDDMDrift(OnlineErrorDrift):
    """Whether the model's errors follow each other sooner than they once did, at every error.

    The rows from one error to the next have a mean p and a standard deviation s. The statistic is
    1 - (p + 2 s) / (p + 2 s at its largest since the start), and stays until the next error. The article alarms above
    0.1; here the thresholds come from the expected run time. Nothing is said before the 31st error.

    The largest is sought from the 30th error on. river (0.23) seeks it from the 31st row on: there the first few
    distances may set it, by chance so far above all later ones that no change shows.

    All errors since the start weigh alike, as the rows do for `ddm`: false alarms become rarer than one in `ert` rows,
    and a change takes longer to show.

    Args:
        output: name of the output that is 1 where the model erred and 0 where not, or a loss in [0, 1].
        ert: expected run time without change, rows, from the row on at which most runs had 31 errors.
        error_from: a value of so much or more is an error.
        max_reference: rows of the reference to keep, at most.
        seed: of the rows kept and of the streams by which the thresholds are found.

    References:
        Baena-García, del Campo-Ávila, Fidalgo, Bifet, Gavaldà, Morales-Bueno (2006): Early drift detection method.
        Fourth International Workshop on Knowledge Discovery from Data Streams, 77-86; and
        `detectors.online.calibration`.
    """

    method = "eddm"
    statistic_name = "shortening"

    def __init__(
        self,
        *,
        output: str = "predict_proba",
        ert: int = 1_000,
        error_from: float = 0.5,
        max_reference: int = 100_000,
        seed: int = 0,
    ) -> None:
        if not 0.0 < error_from <= 1.0:
            raise BadInput(
                f"{self.method}: error_from is {error_from}",
                why="an output lies in [0, 1], and what is 0 is no error",
                fix="take 0.5 for errors of 0 and 1, or the loss from which on an answer counts as wrong",
            )
        self.error_from = error_from
        super().__init__(output=output, ert=ert, max_reference=max_reference, seed=seed, error_from=error_from)

    def _settles(self, reference: Floats) -> int:
        rate = float(np.mean(reference[:, 0] >= self.error_from))
        if rate < _RATE_MIN:
            raise BadInput(
                f"{self.method}: output {self.output!r} is an error in {rate:.2%} of the reference's rows",
                why=f"it says nothing before the {LEAST + 1}st error after a start, and at fewer than {_RATE_MIN:.0%} "
                "that takes thousands of rows",
                fix="take `hddm_a`, which counts all rows, or a reference with more errors",
            )
        return max(SETTLED, math.ceil(_ERRORS / rate))

    def _track(self, reference: Floats, schema: FeatureSchema) -> ErrorDistance:
        return ErrorDistance(self.error_from)
