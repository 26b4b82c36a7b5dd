"""Online drift of whole rows by maximum mean discrepancy."""

from __future__ import annotations

from detectors.distances import median_gamma
from detectors.fourier import FourierFeatures
from detectors.online.joint import Coordinates, OnlineJointDrift
from detectors.online.tracker import Floats


class OnlineMMDDrift(OnlineJointDrift):
    """The kernel two-sample test of the last rows against the reference, at every row.

    Finds what no feature shows alone, such as two that no longer go together. The kernel is Gaussian, its width the
    median distance of the reference, and is taken by random frequencies: a row costs the same whatever the reference.

    Args:
        ert: expected run time without change, rows.
        windows: sizes of the test windows in rows, "20,50": short ones see large changes soon, long ones small ones.
        max_reference: rows of the reference to keep, at most.
        seed: of the rows kept, of the frequencies and of the streams by which the thresholds are found.

    References:
        Gretton, Borgwardt, Rasch, Schölkopf, Smola (2012): A kernel two-sample test. J. Mach. Learn. Res. 13, 723-773;
        Keriven, Garreau, Poli (2020): NEWMA: a new method for scalable model-free online change-point detection. IEEE
        Trans. Signal Process. 68, 3515-3528 (random features online); and `detectors.online.calibration`.
    """

    method = "online_mmd"

    def __init__(
        self, *, ert: int = 1_000, windows: str | int = "20,50", max_reference: int = 10_000, seed: int = 0
    ) -> None:
        super().__init__(ert=ert, windows=windows, max_reference=max_reference, seed=seed)

    def _coordinates(self, points: Floats) -> tuple[Coordinates, int]:
        return FourierFeatures(points.shape[1], gamma=median_gamma(points), seed=self.seed), 0
