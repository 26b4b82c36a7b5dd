"""Online drift of numeric features by Page's and Hinkley's cumulative sums."""

from __future__ import annotations

import math

from detectors.online.features import OnlineFeatureDrift
from detectors.online.levels import Cusum
from detectors.online.tracker import Arrays, Floats
from govern.errors import BadInput
from govern.schema import FeatureSchema


class PageHinkleyDrift(OnlineFeatureDrift):
    """Whether the level of a numeric feature rose or fell, by cumulative sums, at every row.

    Each value counts as its place in the reference (`Ranks`). What it differs by from the middle, less the slack, is
    added up, upwards and downwards, and a sum that would fall below zero begins again at zero: a small shift that stays
    adds up, chance does not. There is no window to choose; changes of spread alone are not seen.

    The test as Page wrote it, with the reference's mean for the level before the change; Hinkley's variant, as stream
    libraries have it, takes the mean of the stream so far, which a slow change draws along with it.

    Args:
        ert: expected run time without change, rows.
        slack: half of the shift that is found soonest, in standard deviations of the ranks.
        max_reference: rows of the reference to keep, at most.
        seed: of the rows kept and of the streams by which the thresholds are found.

    References:
        Page (1954): Continuous inspection schemes. Biometrika 41, 100-115; Hinkley (1971): Inference about the
        change-point from cumulative sum tests. Biometrika 58, 509-523; and `detectors.online.calibration`.
    """

    method = "page_hinkley"
    kinds = ("numeric",)
    statistic_name = "cusum"

    def __init__(self, *, ert: int = 1_000, slack: float = 0.25, max_reference: int = 100_000, seed: int = 0) -> None:
        if not 0.1 <= slack <= 1.0:
            raise BadInput(
                f"{self.method}: slack is {slack}",
                why="below 0.1 the threshold would need thousands of rows to settle; above 1 hardly any row exceeds it",
                fix="take half of the smallest shift that matters, in standard deviations",
            )
        self.slack = slack
        super().__init__(ert=ert, max_reference=max_reference, seed=seed, slack=slack)

    @property
    def _horizon(self) -> int:
        # Without change a sum is forgotten within some 1 / slack² rows, when its drift down outgrows its spread.
        return math.ceil(10 / self.slack**2)

    def _track(self, reference: Floats, schema: FeatureSchema) -> Cusum:
        return Cusum(reference, self.slack)

    def _n(self, known: Arrays, feature: int) -> int:
        return int(known[0][2, feature])
