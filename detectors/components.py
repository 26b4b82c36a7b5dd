"""Principal components, and what they leave out of a point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detectors.distances import project

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Components:
    """The plane through the centre of the points that lies nearest to them.

    Attributes:
        centre: (D,).
        axes: (D, e), orthonormal columns, those of the largest variance first.
    """

    centre: Floats
    axes: Floats

    @classmethod
    def of(cls, points: Floats, explained: float) -> Components:
        """The fewest components that hold the share `explained` of the variance."""
        centre = points.mean(axis=0)
        variances, axes = np.linalg.eigh(np.cov(points, rowvar=False, bias=True).reshape(len(centre), len(centre)))
        held = np.cumsum(variances[::-1])
        count = int(np.searchsorted(held, explained * held[-1])) + 1
        return cls(centre, np.ascontiguousarray(axes[:, ::-1][:, :count]))

    def scores(self, points: Floats) -> Floats:
        return np.asarray(np.sqrt(self.parts(points).sum(axis=1)), dtype=np.float64)

    def parts(self, points: Floats) -> Floats:
        centred = points - self.centre
        rest = centred - project(project(centred, self.axes), np.ascontiguousarray(self.axes.T))
        return np.asarray(np.square(rest), dtype=np.float64)
