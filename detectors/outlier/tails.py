"""How far out in the tails of the reference each coordinate of a point lies."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def skewness(points: Floats) -> Floats:
    """(D,) sign of the third moment of each coordinate: -1, 0 or 1; 0 too where the points do not vary."""
    varied = points.std(axis=0) > 0.0
    cubes = np.power(points - points.mean(axis=0), 3).mean(axis=0)
    return np.asarray(np.where(varied, np.sign(cubes), 0.0), dtype=np.float64)


def surprises(points: Floats, values: Floats) -> tuple[Floats, Floats]:
    """-log of the share of the reference that is as far left, and as far right: (n, D) each.

    The point itself counts as one of the reference, so nothing is infinitely surprising.

    Args:
        points: (n, D).
        values: (D, m), each coordinate of the reference in rising order.
    """
    left, right = np.empty_like(points), np.empty_like(points)
    total = values.shape[1] + 1
    for coordinate, known in enumerate(values):
        column = points[:, coordinate]
        left[:, coordinate] = np.searchsorted(known, column, side="right") + 1
        right[:, coordinate] = total - np.searchsorted(known, column, side="left")
    return -np.log(left / total), -np.log(right / total)


def of_the_thin_side(left: Floats, right: Floats, skewed: Floats) -> Floats:
    """The surprise on the side to which the reference is skewed, on both sides where it is not."""
    return np.asarray(np.where(skewed < 1, left, 0.0) + np.where(skewed > -1, right, 0.0), dtype=np.float64)
