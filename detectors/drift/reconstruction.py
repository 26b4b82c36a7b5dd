"""Drift of whole rows by what principal components cannot reconstruct."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from detectors.base import require_fraction
from detectors.components import Components
from detectors.drift.joint import JointDrift
from detectors.drift.univariate import kolmogorov_smirnov

Floats = npt.NDArray[np.float64]


class Reconstruction:
    """The errors of components of one half of the reference, on the other half and on a window.

    Args:
        reference: (m, D).
        explained: share of the variance that the components hold.
        level: significance level.
    """

    def __init__(self, reference: Floats, *, explained: float, level: float) -> None:
        half = len(reference) // 2
        self._level = level
        self._components = Components.of(reference[:half], explained)
        self._errors = np.sort(self._components.scores(reference[half:]))

    def run(self, window: Floats) -> tuple[float, float]:
        found = kolmogorov_smirnov(self._errors, self._components.scores(window), tail="guarded", level=self._level)
        return found.statistic, found.p_value


class ReconstructionDrift(JointDrift):
    """Whether the principal components of the reference reconstruct a window's rows as well as the reference's own.

    For wide tables whose columns repeat each other: cheap, and blind to what changes within the plane of the
    components, which `mmd` sees. The errors are compared by the Kolmogorov-Smirnov test with those of the half of
    the reference that the components were not taken from.

    Args:
        p_val: significance level.
        explained: share of the variance that the kept components hold.
        max_reference: rows of the reference to keep, at most.
        seed: of the rows kept and of their halves.

    References:
        Jackson, Mudholkar (1979): Control procedures for residuals associated with principal component analysis.
        Technometrics 21, 341-349.
    """

    method = "pca_reconstruction"

    def __init__(
        self, *, p_val: float = 0.05, explained: float = 0.8, max_reference: int = 10_000, seed: int = 0
    ) -> None:
        self.explained = require_fraction("explained", explained, method=self.method)
        super().__init__(p_val=p_val, max_reference=max_reference, seed=seed, explained=explained)

    def _against(self, reference: Floats) -> Reconstruction:
        return Reconstruction(reference, explained=self.explained, level=self.p_val)
