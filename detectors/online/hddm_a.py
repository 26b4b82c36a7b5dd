"""Online drift of a model's errors by Hoeffding's bound on a mean."""

from __future__ import annotations

from typing import Final

import numpy as np

from detectors.compiled import compiled
from detectors.online.outputs import ErrorTracker, OnlineErrorDrift
from detectors.online.tracker import Floats
from govern.schema import FeatureSchema

#: The confidence by whose bound the article finds the best row so far.
CONFIDENCE: Final = 0.001
#: Hoeffding's bound of the mean of n values in [0, 1] is this / sqrt(n).
BOUND: Final = float(np.sqrt(np.log(1.0 / CONFIDENCE) / 2.0))


def _follow_mean(errors: Floats, known: Floats) -> Floats:
    """(n,) -> (n,). `known` are the values seen and their sum, and both where mean and bound together were least."""
    found = np.full(len(errors), np.nan)
    for row in range(len(errors)):
        if not np.isnan(errors[row]):
            known[0] += 1.0
            known[1] += errors[row]
            all_rows = known[1] / known[0] + BOUND / np.sqrt(known[0])
            if known[2] == 0.0 or known[3] / known[2] + BOUND / np.sqrt(known[2]) >= all_rows:
                known[2], known[3] = known[0], known[1]
        if known[0] == known[2]:
            found[row] = 0.0 if known[0] > 0.0 else np.nan
            continue
        # Of values in [0, 1], the difference of these means has no larger variance than a quarter of this.
        spread = 1.0 / known[2] - 1.0 / known[0]
        found[row] = 2.0 * (known[1] / known[0] - known[3] / known[2]) / np.sqrt(spread)
    return found


_follow = compiled(_follow_mean)


class MeanRise(ErrorTracker):
    """How far the mean since the start lies above that of its best rows, in standard deviations of the largest size."""

    width = 4

    def follow(self, errors: Floats, known: Floats) -> Floats:
        return _follow(errors, known)

    def possible(self, known: list[float]) -> bool:
        seen, total, least, least_total = known
        return 0.0 <= total <= seen and 0.0 <= least_total <= least <= seen and least.is_integer()


class HDDMADrift(OnlineErrorDrift):
    """Whether the model errs more often than in its best rows since the start, at every row.

    Of all rows since the start those first n are the best whose mean, plus Hoeffding's bound at a confidence of 0.001,
    was least. The statistic is 2 (mean of all N rows - mean of the best) / sqrt(1 / n - 1 / N): the rise in standard
    deviations of values in [0, 1], were those as large as can be. The article alarms where Hoeffding's bound of a
    confidence d is reached, sqrt(2 ln(2 / d)); here the thresholds come from the expected run time. Fewer errors are no
    change to it.

    All rows since the start weigh alike, as for `ddm`.

    Args:
        output: name of the output that is 1 where the model erred and 0 where not, or a loss in [0, 1].
        ert: expected run time without change, rows. Shares are discrete, so a run may take longer.
        max_reference: rows of the reference to keep, at most.
        seed: of the rows kept and of the streams by which the thresholds are found.

    References:
        Frías-Blanco, del Campo-Ávila, Ramos-Jiménez, Morales-Bueno, Ortiz-Díaz, Caballero-Mota (2015): Online and
        non-parametric drift detection methods based on Hoeffding's bounds. IEEE Transactions on Knowledge and Data
        Engineering 27, 810-823: the A-test; and `detectors.online.calibration`.
    """

    method = "hddm_a"
    statistic_name = "rise"

    def __init__(
        self, *, output: str = "predict_proba", ert: int = 1_000, max_reference: int = 100_000, seed: int = 0
    ) -> None:
        super().__init__(output=output, ert=ert, max_reference=max_reference, seed=seed)

    def _track(self, reference: Floats, schema: FeatureSchema) -> MeanRise:
        return MeanRise()
