"""Online drift of features' levels by Page's and Hinkley's cumulative sums."""

from __future__ import annotations

import math

from detectors.online.features import OnlineFeatureDrift
from detectors.online.levels import Cusum
from detectors.online.traces import listed_categories
from detectors.online.tracker import Arrays, Floats
from govern.errors import BadInput
from govern.schema import FeatureSchema


class PageHinkleyDrift(OnlineFeatureDrift):
    """Whether a number's level or a category's share rose or fell, by cumulative sums, at every row.

    Each number counts as its place in the reference, each category as its indicator, missing and unseen as ones of
    their own (`Traces`). What a row says for a shift of twice the slack and against none, as a log-likelihood ratio, is
    added up, upwards and downwards, and a sum that would fall below zero begins again at zero: a small shift that stays
    adds up, chance does not (`Cusum`). There is no window to choose; changes of spread alone are not seen. A feature's
    statistic is that of its number or of the most changed of its categories, in nats.

    The test as Page wrote it, with the reference's mean for the level before the change; Hinkley's variant, as stream
    libraries have it, takes the mean of the stream so far, which a slow change draws along with it.

    Args:
        ert: expected run time without change, rows.
        slack: half of the shift that is found soonest, in standard deviations of the ranks; of shares, in Cohen's h.
        max_reference: rows of the reference to keep, at most.
        seed: of the rows kept and of the streams by which the thresholds are found.

    References:
        Page (1954): Continuous inspection schemes. Biometrika 41, 100-115; Hinkley (1971): Inference about the
        change-point from cumulative sum tests. Biometrika 58, 509-523; and `detectors.online.calibration`.
    """

    method = "page_hinkley"
    kinds = ("numeric", "categorical")
    statistic_name = "cusum"
    #: Version 1 followed numeric features only, and its thresholds are no nats.
    state_version = 2

    def __init__(self, *, ert: int = 1_000, slack: float = 0.2, max_reference: int = 100_000, seed: int = 0) -> None:
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
        return Cusum(reference, listed_categories(schema), self.slack)

    def _n(self, known: Arrays, feature: int) -> int:
        assert isinstance(self._tracker, Cusum)
        return self._tracker.values(known, feature)
