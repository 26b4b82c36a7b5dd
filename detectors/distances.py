"""Compiled distances between points: every sum runs in one order, so that a result never depends on its neighbours.

A matrix product would be shorter, but gives other last bits for one row than for a thousand.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from detectors.compiled import compiled

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

#: Reference points that are gone through at a time: with 64 coordinates, 128 kB of the processor's second cache.
TILE: Final = 256
#: Points whose pairs the median is taken of: half a million pairs place it to a few thousandths.
_PAIRED: Final = 1_000


def _add_squares(point: Floats, reference: Floats, start: int, stop: int, sums: Floats) -> None:
    """sums[i] = squared distance of `point` to reference point start + i."""
    sums[: stop - start] = 0.0
    for coordinate in range(len(point)):
        value = point[coordinate]
        column = reference[coordinate]
        for at in range(stop - start):
            difference = value - column[start + at]
            sums[at] += difference * difference


add_squares = compiled(_add_squares)


def _nearest_rows(points: Floats, reference: Floats, k: int, same: bool) -> tuple[Floats, Indices]:
    found = np.full((len(points), k), np.inf)
    where = np.zeros((len(points), k), dtype=np.int64)
    sums = np.empty(TILE)
    for start in range(0, reference.shape[1], TILE):
        stop = min(start + TILE, reference.shape[1])
        for row in range(len(points)):
            add_squares(points[row], reference, start, stop, sums)
            for at in range(stop - start):
                if sums[at] >= found[row, k - 1] or (same and start + at == row):
                    continue
                place = k - 1
                while place > 0 and found[row, place - 1] > sums[at]:
                    found[row, place] = found[row, place - 1]
                    where[row, place] = where[row, place - 1]
                    place -= 1
                found[row, place] = sums[at]
                where[row, place] = start + at
    return np.sqrt(found), where


_nearest = compiled(_nearest_rows)


def nearest(points: Floats, reference: Floats, k: int, *, same: bool = False) -> tuple[Floats, Indices]:
    """Distances and numbers of the k nearest reference points, nearest first; of equals, the one that comes first.

    Args:
        points: (n, D).
        reference: (D, m), by coordinate; m >= k.
        same: the points are the reference's own, in order: none is its own neighbour (and then m > k).

    Returns:
        (n, k) distances and (n, k) numbers.
    """
    return _nearest(points, reference, k, same)


def _project_rows(points: Floats, matrix: Floats) -> Floats:
    out = np.zeros((len(points), matrix.shape[1]))
    for row in range(len(points)):
        for coordinate in range(matrix.shape[0]):
            value = points[row, coordinate]
            for target in range(matrix.shape[1]):
                out[row, target] += value * matrix[coordinate, target]
    return out


_project = compiled(_project_rows)


def project(points: Floats, matrix: Floats) -> Floats:
    """points @ matrix: (n, D) times (D, e)."""
    return _project(points, matrix)


def _sum_gaussians(points: Floats, reference: Floats, weights: Floats, gamma: float) -> Floats:
    out = np.zeros(len(points))
    sums = np.empty(TILE)
    for start in range(0, reference.shape[1], TILE):
        stop = min(start + TILE, reference.shape[1])
        for row in range(len(points)):
            add_squares(points[row], reference, start, stop, sums)
            for at in range(stop - start):
                out[row] += weights[start + at] * np.exp(-gamma * sums[at])
    return out


_gaussians = compiled(_sum_gaussians)


def gaussian_sums(points: Floats, reference: Floats, weights: Floats, gamma: float) -> Floats:
    """Of each point, the weighted sum over the reference of exp(-gamma * squared distance).

    Args:
        points: (n, D).
        reference: (D, m), by coordinate.
        weights: (m,).
    """
    return _gaussians(points, reference, weights, gamma)


def _gaussian_rows(points: Floats, reference: Floats, gamma: float, out: npt.NDArray[Any]) -> None:
    sums = np.empty(TILE)
    for start in range(0, reference.shape[1], TILE):
        stop = min(start + TILE, reference.shape[1])
        for row in range(len(points)):
            add_squares(points[row], reference, start, stop, sums)
            for at in range(stop - start):
                out[row, start + at] = np.exp(-gamma * sums[at])


_gaussian = compiled(_gaussian_rows)


def gaussian(points: Floats, reference: Floats, gamma: float, *, dtype: npt.DTypeLike = np.float32) -> npt.NDArray[Any]:
    """(n, m) of exp(-gamma * squared distance), points (n, D) against the reference (D, m)."""
    out = np.empty((len(points), reference.shape[1]), dtype=dtype)
    _gaussian(points, reference, gamma, out)
    return out


def median_gamma(points: Floats, *, power: int = 2) -> float:
    """1 over the median pair's distance, the sum over coordinates of |difference| ** power; of the mean pair where the
    median is 0. So exp(-gamma * distance) of the median pair is 1/e.

    References:
        Gretton, Borgwardt, Rasch, Schölkopf, Smola (2012): A kernel two-sample test. J. Mach. Learn. Res. 13, 723-773.
    """
    few = points[:_PAIRED]
    size = np.square if power == 2 else np.abs
    apart = np.concatenate([size(few[row + 1 :] - few[row]).sum(axis=1) for row in range(len(few) - 1)])
    typical = float(np.median(apart)) or float(np.mean(apart))
    return 1.0 / typical if typical > 0.0 else 1.0
