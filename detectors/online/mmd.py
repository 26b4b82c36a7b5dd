"""Online drift of whole rows by maximum mean discrepancy."""

from __future__ import annotations

from collections.abc import Mapping

from detectors.base import Array
from detectors.fourier import FREQUENCIES
from detectors.kernels import Radial, require_kernel
from detectors.online.joint import Coordinates, OnlineJointDrift
from detectors.online.tracker import Floats
from detectors.own_kernel import LandmarkFeatures, is_own, landmarks_of, recognised, stored_of
from govern.schema import FeatureSchema


class OnlineMMDDrift(OnlineJointDrift):
    """The kernel two-sample test of the last rows against the reference, at every row.

    Finds what no feature shows alone, such as two that no longer go together. A row costs the same whatever the
    reference: a built-in kernel is taken by random frequencies, one of the user's by the row's kernels with up to 128
    rows of the reference (Nyström).

    Args:
        ert: expected run time without change, rows.
        kernel: one of `kernels.BUILT_IN`, its width the median distance of the reference; or a function of the user's
            as "package.module:function": k(x (n, D) float64, y (m, D) float64) -> (n, m) float64, of rows as `Coding`
            has them. It is checked when it is fitted, and recognised by some of its values when it is loaded.
        windows: sizes of the test windows in rows, "20,50": short ones see large changes soon, long ones small ones.
        max_reference: rows of the reference to keep, at most.
        seed: of the rows kept, of the frequencies and of the streams by which the thresholds are found.

    Raises:
        BadInput: `kernel` names none; at `fit`: the user's is none.
        ConfigError: at `fit` and `load`: the user's function is not there.
        ArtifactError: at `load`: it is there, but another one.

    References:
        Gretton, Borgwardt, Rasch, Schölkopf, Smola (2012): A kernel two-sample test. J. Mach. Learn. Res. 13, 723-773;
        Keriven, Garreau, Poli (2020): NEWMA: a new method for scalable model-free online change-point detection. IEEE
        Trans. Signal Process. 68, 3515-3528 (random features online); and `detectors.online.calibration`.
    """

    method = "online_mmd"
    stored_beside = ("kernel",)

    def __init__(
        self,
        *,
        ert: int = 1_000,
        kernel: str = "gaussian",
        windows: str | int = "20,50",
        max_reference: int = 10_000,
        seed: int = 0,
    ) -> None:
        self.kernel = require_kernel(kernel, method=self.method, own=True)
        super().__init__(ert=ert, windows=windows, max_reference=max_reference, seed=seed, kernel=kernel)

    def _beside(self, reference: Floats, schema: FeatureSchema) -> Mapping[str, Array]:
        if not is_own(self.kernel):
            return {}
        return stored_of(self.kernel, self._coded(reference, schema)[1], method=self.method)

    def _coordinates(self, points: Floats) -> tuple[Coordinates, int]:
        if is_own(self.kernel):
            used = landmarks_of(points)
            own = recognised(self.kernel, points, self._stored, method=self.method)
            return LandmarkFeatures(own, points[:used]), used
        kernel = Radial.of(self.kernel, points)
        return kernel.features(points.shape[1], seed=self.seed, frequencies=FREQUENCIES), 0
