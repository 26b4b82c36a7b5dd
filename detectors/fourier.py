"""Random Fourier features: coordinates whose products stand for a kernel's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from detectors.distances import project

Floats = npt.NDArray[np.float64]

#: Random frequencies. The kernel of two rows is right to 1 / sqrt(frequencies) = 9 %, on average over all rows to less.
FREQUENCIES: Final = 128


#: (generator, (D, F), gamma) -> (D, F) float64 frequencies, drawn from the kernel's Fourier transform.
Draw = Callable[[np.random.Generator, tuple[int, int], float], Floats]


def gaussian_frequencies(generator: np.random.Generator, shape: tuple[int, int], gamma: float) -> Floats:
    """Of exp(-gamma * squared distance)."""
    return generator.normal(scale=np.sqrt(2 * gamma), size=shape)


class FourierFeatures:
    """Coordinates whose products are a kernel's, on average over the random frequencies.

    Of a row with itself the product is 1, as the kernel's is, whatever the frequencies.

    Args:
        width: D.
        gamma: of the kernel: of exp(-gamma * squared distance), unless `draw` is another's.
        seed: of the frequencies.
        frequencies: F.
        draw: the kernel's frequencies.

    References:
        Rahimi, Recht (2007): Random features for large-scale kernel machines. NeurIPS 20.
    """

    def __init__(
        self,
        width: int,
        *,
        gamma: float,
        seed: int,
        frequencies: int = FREQUENCIES,
        draw: Draw = gaussian_frequencies,
    ) -> None:
        self._frequencies = draw(np.random.default_rng((seed, 2)), (width, frequencies), gamma)

    def of(self, points: Floats) -> Floats:
        """(n, D) -> (n, 2 * F)."""
        phases = project(points, self._frequencies)
        return np.asarray(np.hstack((np.cos(phases), np.sin(phases))) / np.sqrt(phases.shape[1]))
