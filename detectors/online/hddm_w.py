"""Online drift of a model's errors by McDiarmid's bound on a mean that forgets."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from detectors.compiled import compiled
from detectors.online.hddm_a import BOUND
from detectors.online.outputs import ErrorTracker, OnlineErrorDrift
from detectors.online.tracker import Floats
from govern.errors import BadInput
from govern.schema import FeatureSchema

#: Rows of a simulated run, in rows that a mean remembers (1 / decay): the lowest mean so far goes on falling, ever more
#: slowly, so that the statistic of a stream without change rises. With thresholds of 300 rows, later rows alarm 2 to 3
#: times as often as asked for.
_MEMORIES: Final = 150


def _follow_weighted(errors: Floats, decay: float, known: Floats) -> Floats:
    """(n,) -> (n,). `known` are the values seen; of all values their weighted mean and the sum of the squared weights;
    the least that mean and bound together were, with the mean and sum there; and mean and sum of the values since."""
    found = np.full(len(errors), np.nan)
    for row in range(len(errors)):
        value = errors[row]
        if not np.isnan(value):
            known[0] += 1.0
            if known[0] == 1.0:
                known[1], known[2] = value, 1.0
            else:
                known[1] += decay * (value - known[1])
                known[2] = decay**2 + (1.0 - decay) ** 2 * known[2]
            bounded = known[1] + BOUND * np.sqrt(known[2])
            if known[0] == 1.0 or bounded < known[3]:
                known[3], known[4], known[5] = bounded, known[1], known[2]
                known[6], known[7] = 0.0, 0.0
            elif known[7] == 0.0:
                known[6], known[7] = value, 1.0
            else:
                known[6] += decay * (value - known[6])
                known[7] = decay**2 + (1.0 - decay) ** 2 * known[7]
        if known[7] > 0.0:
            # Of values in [0, 1], the difference of these means has no larger variance than a quarter of this.
            found[row] = 2.0 * (known[6] - known[4]) / np.sqrt(known[5] + known[7])
        elif known[0] > 0.0:
            found[row] = 0.0
    return found


_follow = compiled(_follow_weighted)


class WeightedRise(ErrorTracker):
    """How far the mean of the last rows lies above its lowest, in standard deviations of the largest size.

    Args:
        decay: weight of the newest value.
    """

    width = 8

    def __init__(self, decay: float) -> None:
        self._decay = decay

    def follow(self, errors: Floats, known: Floats) -> Floats:
        return _follow(errors, self._decay, known)

    def possible(self, known: list[float]) -> bool:
        _, mean, squares, bounded, low, low_squares, last, last_squares = known
        shares = (mean, squares, low, low_squares, last, last_squares)
        return all(0.0 <= share <= 1.0 for share in shares) and 0.0 <= bounded <= 1.0 + BOUND


class HDDMWDrift(OnlineErrorDrift):
    """Whether the model errs more often of late than when it did so least since the start, at every row.

    The mean forgets: the newest value has the weight `decay`, and older ones ever less. Where it was least, plus
    McDiarmid's bound at a confidence of 0.001, it is kept, and a new one begins with the values after it. The statistic
    is 2 (the new mean - the one kept) / sqrt(the sums of both's squared weights): the rise in standard deviations of
    values in [0, 1], were those as large as can be. The article alarms above McDiarmid's bound of a confidence d,
    sqrt(2 ln(1 / d)); here the thresholds come from the expected run time. Fewer errors are no change to it.

    Unlike in river 0.23, a mean of 0 is one: there, the first error after rows without any sets it to 1, which is an
    alarm where errors are rare. And the first value's squared weight is 1.

    A change shows as soon after many quiet rows as after few, other than with `ddm` and `hddm_a`; one too small for
    some 1 / `decay` rows to tell does not show at all.

    Args:
        output: name of the output that is 1 where the model erred and 0 where not, or a loss in [0, 1].
        ert: expected run time without change, rows. Shares are discrete, so a run may take longer.
        decay: weight of the newest value; the article has 0.05.
        max_reference: rows of the reference to keep, at most.
        seed: of the rows kept and of the streams by which the thresholds are found.

    References:
        Frías-Blanco, del Campo-Ávila, Ramos-Jiménez, Morales-Bueno, Ortiz-Díaz, Caballero-Mota (2015): Online and
        non-parametric drift detection methods based on Hoeffding's bounds. IEEE Transactions on Knowledge and Data
        Engineering 27, 810-823: the W-test; and `detectors.online.calibration`.
    """

    method = "hddm_w"
    statistic_name = "rise"

    def __init__(
        self,
        *,
        output: str = "predict_proba",
        ert: int = 1_000,
        decay: float = 0.05,
        max_reference: int = 100_000,
        seed: int = 0,
    ) -> None:
        if not 0.01 <= decay <= 0.5:
            raise BadInput(
                f"{self.method}: decay is {decay}",
                why="below 0.01 thresholds take more than 15,000 rows to settle; above 0.5 a mean is of two values",
                fix="take 1 / the rows that shall tell of a change, such as 0.05 or 0.02",
            )
        self.decay = decay
        super().__init__(output=output, ert=ert, max_reference=max_reference, seed=seed, decay=decay)

    @property
    def _horizon(self) -> int:
        return math.ceil(_MEMORIES / self.decay)

    def _track(self, reference: Floats, schema: FeatureSchema) -> WeightedRise:
        return WeightedRise(self.decay)
