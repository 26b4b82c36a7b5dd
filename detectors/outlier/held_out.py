"""Thresholds from rows that were not learned from."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

#: Share of the reference that the threshold is set on. What is left to learn from loses little by it.
HELD_OUT: Final = 0.3
#: Guards the ranks below against the last bit of a float: 100 x (1 - 0.01) is to be 99.
_ROUNDING: Final = 1e-9


def split(rows: int, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows to learn from, and rows to set the threshold on: both in random order, so a prefix is a sample."""
    order = np.random.default_rng(seed).permutation(rows)
    held = math.ceil(HELD_OUT * rows)
    return order[held:], order[:held]


def scores_needed(contamination: float) -> int:
    """The fewest scores that can tell a share as small as `contamination`."""
    return math.ceil(1.0 / contamination - 1.0 - _ROUNDING)


def rows_needed(contamination: float) -> int:
    """The fewest rows of a reference whose held-out part can tell a share as small as `contamination`."""
    return math.ceil(scores_needed(contamination) / HELD_OUT - _ROUNDING)


def threshold_at(scores: npt.NDArray[np.float64], contamination: float) -> float:
    """The score that a row drawn like the held-out ones exceeds with a probability of at most `contamination`.

    The probability is over the draw of the held-out rows too, so it holds at every size, without any assumption on
    how scores are distributed.

    References:
        Vovk, Gammerman, Shafer (2005): Algorithmic learning in a random world, section 4.1 (inductive conformal).
    """
    rank = math.ceil((len(scores) + 1) * (1.0 - contamination) - _ROUNDING)
    assert 1 <= rank <= len(scores), "the caller asked for scores_needed"
    return float(np.partition(scores, rank - 1)[rank - 1])
