"""Online drift of whole rows by least-squares density difference."""

from __future__ import annotations

from detectors.distances import median_gamma
from detectors.drift.lsdd import DensityFeatures, centres_of
from detectors.online.joint import Coordinates, OnlineJointDrift
from detectors.online.tracker import Floats


class OnlineLSDDDrift(OnlineJointDrift):
    """Whether the density of the last rows differs from the reference's, estimated as one function, at every row.

    Sees what `online_mmd` sees, but weighs a difference by its density rather than by its smoothness. The difference is
    a sum of at most 100 Gaussians at rows of the reference, so a row costs the same whatever the reference.

    Args:
        ert: expected run time without change, rows.
        windows: sizes of the test windows in rows, "20,50": short ones see large changes soon, long ones small ones.
        max_reference: rows of the reference to keep, at most.
        seed: of the rows kept and of the streams by which the thresholds are found.

    References:
        Bu, Alippi, Zhao (2018): A pdf-free change detection test based on density difference estimation. IEEE TNNLS
        29, 324-334; those of `detectors.drift.lsdd` and `detectors.online.calibration`.
    """

    method = "online_lsdd"

    def __init__(
        self, *, ert: int = 1_000, windows: str | int = "20,50", max_reference: int = 10_000, seed: int = 0
    ) -> None:
        super().__init__(ert=ert, windows=windows, max_reference=max_reference, seed=seed)

    def _coordinates(self, points: Floats) -> tuple[Coordinates, int]:
        used = centres_of(points)
        return DensityFeatures(points[:used], gamma=median_gamma(points)), used
