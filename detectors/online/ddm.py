"""Online drift of a model's errors by the drift detection method."""

from __future__ import annotations

from typing import Final

import numpy as np

from detectors.compiled import compiled
from detectors.online.outputs import ErrorTracker, OnlineErrorDrift
from detectors.online.tracker import Floats
from govern.schema import FeatureSchema

#: More values than so many come before any test, as in the article: a share of fewer is not yet near to normal.
LEAST: Final = 30


def _follow_rate(errors: Floats, known: Floats) -> Floats:
    """(n,) -> (n,). `known` are the values seen, their sum, and p and s where p + s was least; s is 0 before."""
    found = np.full(len(errors), np.nan)
    for row in range(len(errors)):
        if not np.isnan(errors[row]):
            known[0] += 1.0
            known[1] += errors[row]
        if known[0] <= LEAST:
            continue
        p = known[1] / known[0]
        s = np.sqrt(p * (1.0 - p) / known[0])
        # Without an error, or with nothing else, s is 0 and says nothing of how far p may be off.
        if s > 0.0 and (known[3] == 0.0 or p + s <= known[2] + known[3]):
            known[2], known[3] = p, s
        if known[3] > 0.0:
            found[row] = (p + s - known[2]) / known[3]
    return found


_follow = compiled(_follow_rate)


class ErrorRate(ErrorTracker):
    """How far the error rate since the start lies above its best, in standard deviations of that."""

    width = 4

    def follow(self, errors: Floats, known: Floats) -> Floats:
        return _follow(errors, known)

    def possible(self, known: list[float]) -> bool:
        seen, total, p, s = known
        return 0.0 <= total <= seen and 0.0 <= p <= 1.0 and 0.0 <= s <= 1.0


class DDMDrift(OnlineErrorDrift):
    """Whether the model errs more often than it did at its best since the start, at every row.

    The error rate p of all rows since the start has a standard deviation s = sqrt(p (1 - p) / n). The statistic is
    (p + s - p_min) / s_min, where p_min and s_min are those of the row at which p + s was least. The article alarms
    above 3, at any row; here the thresholds come from the expected run time. It compares the stream with itself: a
    stream that errs more than the reference from its first row on is no change to it, nor are fewer errors.

    All rows since the start weigh alike. So after the first 1,500 rows without an alarm chance moves the rate ever
    less, and false alarms are rarer than one in `ert` rows; and a change takes longer to show, as the square root of
    the rows before it.

    Unlike the article, a row before the first error is no best one: its s would be 0, and any error an alarm.

    Args:
        output: name of the output that is 1 where the model erred and 0 where not, or a loss in [0, 1].
        ert: expected run time without change, rows. Shares are discrete, so a run may take longer.
        max_reference: rows of the reference to keep, at most.
        seed: of the rows kept and of the streams by which the thresholds are found.

    References:
        Gama, Medas, Castillo, Rodrigues (2004): Learning with drift detection. SBIA, LNCS 3171, 286-295; and
        `detectors.online.calibration`.
    """

    method = "ddm"
    #: Version 1 had thresholds of 300 rows.
    state_version = 2
    statistic_name = "rise"

    def __init__(
        self, *, output: str = "predict_proba", ert: int = 1_000, max_reference: int = 100_000, seed: int = 0
    ) -> None:
        super().__init__(output=output, ert=ert, max_reference=max_reference, seed=seed)

    def _track(self, reference: Floats, schema: FeatureSchema) -> ErrorRate:
        return ErrorRate()
