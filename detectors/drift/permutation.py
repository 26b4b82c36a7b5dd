"""P-values by permutation, drawn only until enough is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

#: As many draws at least as extreme end the drawing: the p-value is then known to about a fifth of itself.
ENOUGH: Final = 20
#: Draws of the first batch, doubled until `_MOST_AT_ONCE`: most windows need no more than one or two.
_FIRST: Final = 32
_MOST_AT_ONCE: Final = 2048
#: Statistics that differ by less are equal but for rounding.
_ROUNDING: Final = 1e-9


def permutation_p(
    observed: float, draw: Callable[[np.random.Generator, int], Floats], *, draws: int, seed: tuple[int, ...]
) -> float:
    """The p-value of a statistic of which larger is more extreme.

    Args:
        draw: (generator, k) -> (k,) float64, the statistic of k random ways to tell the window's rows from the
            reference's. Where all ways are equally likely, as they are when nothing drifted, P(p <= a) <= a for every a
            and every sample size: that is exact, no approximation.
        draws: the most, so that the smallest p-value is 1 / (draws + 1).
        seed: the same gives the same p-value, bit for bit.

    References:
        Besag, Clifford (1991): Sequential Monte Carlo p-values. Biometrika 78, 301-304.
    """
    generator = np.random.default_rng(seed)
    least = observed - abs(observed) * _ROUNDING
    drawn, extreme, batch = 0, 0, _FIRST
    while drawn < draws:
        batch = min(batch, draws - drawn)
        hits = np.flatnonzero(draw(generator, batch) >= least)
        if extreme + len(hits) >= ENOUGH:
            return ENOUGH / (drawn + int(hits[ENOUGH - extreme - 1]) + 1)
        extreme += len(hits)
        drawn += batch
        batch = min(2 * batch, _MOST_AT_ONCE)
    return (extreme + 1) / (draws + 1)
