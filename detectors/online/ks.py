"""Online drift of numeric features by windows of the Kolmogorov-Smirnov test, brought up to date row by row."""

from __future__ import annotations

from detectors.online.features import WindowedFeatureDrift
from detectors.online.ranks import RankWindows
from detectors.online.tracker import Floats
from govern.schema import FeatureSchema


class IncrementalKSDrift(WindowedFeatureDrift):
    """The Kolmogorov-Smirnov distance of the last rows from the reference, for every numeric feature, at every row.

    The statistic is the largest over the windows of the distance times the root of nm / (n + m). The incremental test
    was proposed with the p-value of a single test, which many overlapping windows make worthless; here the threshold
    comes from the expected run time. Instead of a tree over both samples, the window alone is kept in order: at the
    sizes of test windows, going through it once is cheaper than the pointers of a tree.

    Args:
        ert: expected run time without change, rows.
        windows: sizes of the test windows in rows, "20,50": short ones see large changes soon, long ones small ones.
        max_reference: rows of the reference to keep, at most.
        seed: of the rows kept and of the streams by which the thresholds are found.

    References:
        dos Reis, Flach, Matwin, Batista (2016): Fast unsupervised online drift detection using incremental
        Kolmogorov-Smirnov test. KDD, 1545-1554; and `detectors.online.calibration`.
    """

    method = "incremental_ks"
    kinds = ("numeric",)
    statistic_name = "ks"

    def __init__(
        self, *, ert: int = 1_000, windows: str | int = "20,50", max_reference: int = 100_000, seed: int = 0
    ) -> None:
        super().__init__(ert=ert, windows=windows, max_reference=max_reference, seed=seed)

    def _track(self, reference: Floats, schema: FeatureSchema) -> RankWindows:
        return RankWindows(reference, self.windows, supremum=True)
