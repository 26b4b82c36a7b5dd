"""Online drift of numeric features by windows of the Cramér-von Mises test."""

from __future__ import annotations

from detectors.online.features import WindowedFeatureDrift
from detectors.online.ranks import RankWindows
from detectors.online.tracker import Floats
from govern.schema import FeatureSchema


class OnlineCVMDrift(WindowedFeatureDrift):
    """The Cramér-von Mises statistic of the last rows against the reference, for every numeric feature, at every row.

    The statistic is the largest over the windows of the two-sample statistic in standard deviations from its mean at
    these sizes: alibi-detect's CVMDriftOnline, where no two values are equal.

    Args:
        ert: expected run time without change, rows.
        windows: sizes of the test windows in rows, "20,50": short ones see large changes soon, long ones small ones.
        max_reference: rows of the reference to keep, at most.
        seed: of the rows kept and of the streams by which the thresholds are found.

    References:
        Anderson (1962): On the distribution of the two-sample Cramér-von Mises criterion. Ann. Math. Stat. 33,
        1148-1159; Ross, Adams (2012): Two nonparametric control charts for detecting arbitrary distribution changes.
        J. Qual. Technol. 44, 102-116; and `detectors.online.calibration`.
    """

    method = "online_cvm"
    kinds = ("numeric",)
    statistic_name = "cvm"

    def __init__(
        self, *, ert: int = 1_000, windows: str | int = "20,50", max_reference: int = 100_000, seed: int = 0
    ) -> None:
        super().__init__(ert=ert, windows=windows, max_reference=max_reference, seed=seed)

    def _track(self, reference: Floats, schema: FeatureSchema) -> RankWindows:
        return RankWindows(reference, self.windows, supremum=False)
