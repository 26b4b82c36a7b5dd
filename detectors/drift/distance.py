"""Drift by a distance between distributions, with a null distribution instead of a rule of thumb."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from detectors.drift.cells import Hellinger, JensenShannon, LInfinity, PopulationStability
from detectors.drift.detector import UnivariateDrift
from detectors.drift.feature_test import FeatureTest
from detectors.drift.rates import with_signals
from detectors.drift.wasserstein import Wasserstein
from govern.errors import BadInput
from govern.frame import Frame
from govern.schema import FeatureKind


class DistanceDrift(UnivariateDrift):
    """A distance between reference and window for every feature; an alarm when chance alone would not bring it.

    Rules of thumb, such as that a PSI above 0.2 is drift, alarm at every window when windows are small and at none when
    they are large: what a distance is without drift depends on both sizes and on the number of cells. Here rows are
    permuted between reference and window, and the p-value is the share of permutations that are as far apart. That is
    exact for every window size, with ties, with rare categories, with missing values.

    Numeric features are cut into ten bins at quantiles of a fifth of the reference (1,000 values at most), which is not
    counted otherwise: bins that the counted values had chosen would make the test inexact.

    Args:
        p_val: significance level, before correction.
        correction: over the tests: "bonferroni", "holm", "fdr" (Benjamini-Hochberg) or "none".
        min_distance: a distance below it is no drift, however significant: for large windows, in which differences that
            nobody minds are significant. It takes alarms away and adds none.
        signals: whether the rates of missing values and of unseen categories are tested, too.
        seed: of the permutations.

    The smallest p-value is 1 / (draws + 1), with max(999, 2 * tests / p_val) draws: half of what Bonferroni asks for.
    A window costs about 100 draws for each feature that does not drift, all draws for one that does.

    References:
        Besag, Clifford (1991): Sequential Monte Carlo p-values. Biometrika 78, 301-304; and those of the distance, in
        `detectors.drift.distances` and `detectors.drift.wasserstein`.
    """

    kinds: ClassVar[tuple[FeatureKind, ...]] = ("numeric", "categorical")
    test: ClassVar[type[FeatureTest]]

    def __init__(
        self,
        *,
        p_val: float = 0.05,
        correction: str = "bonferroni",
        min_distance: float = 0.0,
        signals: bool = True,
        seed: int = 0,
    ) -> None:
        if not min_distance >= 0.0:
            raise BadInput(
                f"{self.method}: min_distance is {min_distance}", why="a distance is at least 0", fix="correct it"
            )
        self.min_distance = float(min_distance)
        self.signals = signals
        super().__init__(
            p_val=p_val,
            correction=correction,
            seed=seed,
            min_distance=self.min_distance,
            own={"signals": signals, "min_distance": self.min_distance},
        )

    def tests_of(self, reference: Frame, position: int) -> Iterable[FeatureTest]:
        return with_signals(self.test.of(reference, position), reference, signals=self.signals)


class PSIDrift(DistanceDrift):
    """The population stability index of each feature."""

    method = "psi"
    test = PopulationStability


class JensenShannonDrift(DistanceDrift):
    """The Jensen-Shannon distance of each feature."""

    method = "jensen_shannon"
    test = JensenShannon


class HellingerDrift(DistanceDrift):
    """The Hellinger distance of each feature."""

    method = "hellinger"
    test = Hellinger


class LInfinityDrift(DistanceDrift):
    """The largest difference of the shares of one cell, of each feature."""

    method = "l_infinity"
    test = LInfinity


class WassersteinDrift(DistanceDrift):
    """The Wasserstein distance of each numeric feature: of the values as they are, without bins."""

    method = "wasserstein"
    kinds = ("numeric",)
    test = Wasserstein
