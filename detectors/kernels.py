"""Kernels by name: how alike two points are, as the tests of whole rows see it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from detectors.compiled import compiled
from detectors.distances import TILE, add_squares, gaussian, median_gamma
from detectors.fourier import Draw, FourierFeatures, gaussian_frequencies
from govern.errors import BadInput

Floats = npt.NDArray[np.float64]
#: (n, m) of float32 or float64.
Matrix = npt.NDArray[Any]
Rows = Callable[[Floats, Floats, float], Matrix]

#: Of `multiscale_gaussian`: its Gaussians' gammas in units of the median pair's. Twice as wide down to half as wide.
SCALES: Final = (0.25, 0.5, 1.0, 2.0, 4.0)
#: `package.module:function`, as a pipeline names a transformer.
_PATH: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


class Kernel(Protocol):
    """How alike points are."""

    def beside(self, reference: Floats) -> Callable[[Floats], Matrix]:
        """(m, D) -> what gives the (n, m) kernels of (n, D) points with these, in an array of its own."""
        ...


# Each kernel has the loop over tiles to itself: numba compiles a function that is given another one anew in every
# process, and adds it to the folder that it caches in (`detectors.compiled`) each time.


def _quadratic_rows(points: Floats, reference: Floats, gamma: float) -> Matrix:
    out = np.empty((len(points), reference.shape[1]), dtype=np.float32)
    sums = np.empty(TILE)
    for start in range(0, reference.shape[1], TILE):
        stop = min(start + TILE, reference.shape[1])
        for row in range(len(points)):
            add_squares(points[row], reference, start, stop, sums)
            for at in range(stop - start):
                out[row, start + at] = 1.0 / (1.0 + gamma * sums[at])
    return out


def _multiscale_rows(points: Floats, reference: Floats, gamma: float) -> Matrix:
    out = np.empty((len(points), reference.shape[1]), dtype=np.float32)
    sums = np.empty(TILE)
    for start in range(0, reference.shape[1], TILE):
        stop = min(start + TILE, reference.shape[1])
        for row in range(len(points)):
            add_squares(points[row], reference, start, stop, sums)
            for at in range(stop - start):
                # Each scale's gamma is twice the one before: its kernel is the square.
                part = np.exp(-0.25 * gamma * sums[at])
                total = part
                for _ in range(4):
                    part *= part
                    total += part
                out[row, start + at] = 0.2 * total
    return out


def _laplacian_rows(points: Floats, reference: Floats, gamma: float) -> Matrix:
    out = np.empty((len(points), reference.shape[1]), dtype=np.float32)
    sums = np.empty(TILE)
    for start in range(0, reference.shape[1], TILE):
        stop = min(start + TILE, reference.shape[1])
        for row in range(len(points)):
            sums[:] = 0.0
            for coordinate in range(points.shape[1]):
                value = points[row, coordinate]
                column = reference[coordinate]
                for at in range(stop - start):
                    sums[at] += abs(value - column[start + at])
            for at in range(stop - start):
                out[row, start + at] = np.exp(-gamma * sums[at])
    return out


def _quadratic_frequencies(generator: np.random.Generator, shape: tuple[int, int], gamma: float) -> Floats:
    """1 / (1 + t) is the mean of exp(-s * t) over exponential s: Gaussians of random width."""
    widths = generator.exponential(size=shape[1])
    return np.asarray(gaussian_frequencies(generator, shape, gamma) * np.sqrt(widths))


def _multiscale_frequencies(generator: np.random.Generator, shape: tuple[int, int], gamma: float) -> Floats:
    widths = generator.choice(np.array(SCALES), size=shape[1])
    return np.asarray(gaussian_frequencies(generator, shape, gamma) * np.sqrt(widths))


def _laplacian_frequencies(generator: np.random.Generator, shape: tuple[int, int], gamma: float) -> Floats:
    return np.asarray(gamma * generator.standard_cauchy(size=shape), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Radial:
    """A kernel that falls from 1 with a distance.

    Attributes:
        name: one of `BUILT_IN`.
        gamma: by which distances are multiplied.
    """

    name: str
    gamma: float

    @classmethod
    def of(cls, name: str, reference: Floats) -> Radial:
        """With the gamma that makes 1 of the median distance between these points (the median heuristic)."""
        return cls(name, median_gamma(reference, power=_SHAPES[name].power))

    def beside(self, reference: Floats) -> Callable[[Floats], Matrix]:
        rows, gamma, by_coordinate = _SHAPES[self.name].rows, self.gamma, np.ascontiguousarray(reference.T)
        return lambda points: rows(points, by_coordinate, gamma)

    def features(self, width: int, *, seed: int, frequencies: int) -> FourierFeatures:
        """Coordinates of points of `width` whose products are the kernel's, on average over the seeds."""
        draw = _SHAPES[self.name].draw
        return FourierFeatures(width, gamma=self.gamma, seed=seed, frequencies=frequencies, draw=draw)


@dataclass(frozen=True, slots=True)
class _Shape:
    """Attributes:
    rows: the compiled kernel of points and a reference by coordinate.
    draw: its random frequencies.
    power: of the differences that its distance adds up.
    """

    rows: Rows
    draw: Draw
    power: int = 2


_SHAPES: Final = {
    "gaussian": _Shape(gaussian, gaussian_frequencies),
    "rational_quadratic": _Shape(compiled(_quadratic_rows), _quadratic_frequencies),
    "laplacian": _Shape(compiled(_laplacian_rows), _laplacian_frequencies, power=1),
    "multiscale_gaussian": _Shape(compiled(_multiscale_rows), _multiscale_frequencies),
}
#: exp(-t), 1 / (1 + t) and the mean of exp(-s * t) over `SCALES` for t = gamma * squared distance; and exp(-t) for
#: t = gamma * the sum of absolute differences.
BUILT_IN: Final = tuple(_SHAPES)


def require_kernel(kernel: str, *, method: str, own: bool) -> str:
    """The parameter `kernel`, which names a built-in one or, where it may be the user's `own`, a function.

    Raises:
        BadInput: it does neither.
    """
    if kernel in BUILT_IN or (own and _PATH.fullmatch(kernel)):
        return kernel
    if not own and _PATH.fullmatch(kernel):
        why = "it computes by random frequencies, which are known of the built-in kernels only"
        fix = f"use `mmd` or `online_mmd`, which take any kernel, or one of {', '.join(BUILT_IN)}"
    else:
        why = f"built in are {', '.join(BUILT_IN)}"
        fix = "name one of them" + (", or a function of your own as package.module:function" if own else "")
    raise BadInput(f"{method}: kernel is {kernel!r}", why=why, fix=fix)
