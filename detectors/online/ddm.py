"""Online drift of a model's errors by the drift detection method."""

from __future__ import annotations

from typing import Final

import numpy as np

from detectors.compiled import compiled
from detectors.online.outputs import OnlineErrorDrift
from detectors.online.tracker import Arrays, Floats
from govern.schema import FeatureSchema

#: More values than so many come before any test, as in the article: a share of fewer is not yet near to normal.
LEAST: Final = 30
#: Later rows take the last threshold: chance moves a rate of n rows every n rows or so.
_HORIZON: Final = 300


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


class ErrorRate:
    """How far the error rate since the start lies above its best, in standard deviations of that."""

    def prepare(self, rows: Floats) -> Floats:
        return rows

    def simulate(self, prepared: Floats) -> Floats:
        return self._follow(prepared, *self.begin())

    def begin(self) -> Arrays:
        return (np.zeros(4),)

    def walk(self, known: Arrays, rows: Floats) -> tuple[Floats, Arrays]:
        rate = known[0].copy()
        return self._follow(rows, rate), (rate,)

    def _follow(self, rows: Floats, rate: Floats) -> Floats:
        return _follow(rows[:, 0], rate)[:, None]

    def accepts(self, known: Arrays, rows: int) -> bool:
        if len(known) != 1 or known[0].dtype != np.float64 or known[0].shape != (4,):
            return False
        seen, total, p, s = map(float, known[0])
        return 0.0 <= total <= seen <= rows and seen.is_integer() and 0.0 <= p <= 1.0 and 0.0 <= s <= 1.0


class DDMDrift(OnlineErrorDrift):
    """Whether the model errs more often than it did at its best since the start, at every row.

    The error rate p of all rows since the start has a standard deviation s = sqrt(p (1 - p) / n). The statistic is
    (p + s - p_min) / s_min, where p_min and s_min are those of the row at which p + s was least. The article alarms
    above 3, at any row; here the thresholds come from the expected run time. It compares the stream with itself: a
    stream that errs more than the reference from its first row on is no change to it, nor are fewer errors.

    All rows since the start weigh alike. So after the first few hundred rows without an alarm chance moves the rate
    ever less, and false alarms are rarer than one in `ert` rows; and a change takes longer to show, as the square root
    of the rows before it.

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
    statistic_name = "rise"

    def __init__(
        self, *, output: str = "predict_proba", ert: int = 1_000, max_reference: int = 100_000, seed: int = 0
    ) -> None:
        super().__init__(output=output, ert=ert, max_reference=max_reference, seed=seed)

    @property
    def _horizon(self) -> int:
        return _HORIZON

    def _track(self, reference: Floats, schema: FeatureSchema) -> ErrorRate:
        return ErrorRate()
