"""How many numbers fall into each bin, by compiled code."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from detectors.compiled import compiled
from detectors.drift.binned import DROPPED, SIZE
from detectors.drift.univariate import Counts, Floats

#: Numbers that are looked up together.
_BLOCK: Final = 512


def _counted(
    column: Floats,
    edges: Floats,
    centre: float,
    base: int,
    reach: int,
    before: npt.NDArray[np.uint16],
    counts: Counts,
    ends: Floats,
) -> None:
    one = np.uint64(1)
    distances = np.empty(_BLOCK, dtype=np.float32)
    bits = distances.view(np.int32)
    missing = 0
    least, greatest = ends[0], ends[1]
    for start in range(0, len(column), _BLOCK):
        block = column[start : start + _BLOCK]
        length = len(block)
        # Loops without branches, of which the compiler makes vector instructions.
        for i in range(length):
            distances[i] = np.float32(block[i] - centre)
        for i in range(length):
            cell = min(max(((bits[i] & SIZE) >> DROPPED) - base + 1, 0), reach)
            bits[i] = reach - cell if bits[i] < 0 else reach + cell
        for i in range(length):
            value = block[i]
            missing += value != value
            least = value if value < least else least
            greatest = value if value > greatest else greatest
        for i in range(length):
            cell_of = np.uint64(bits[i])
            low, high = np.uint64(before[cell_of]), np.uint64(before[cell_of + one])
            while low < high:
                middle = (low + high) >> one
                if edges[middle] <= block[i]:
                    low = middle + one
                else:
                    high = middle
            counts[low + one] += block[i] == block[i]
    counts[0] += missing
    # Zero has two signs, of which either may come first: adding zero leaves one.
    ends[0], ends[1] = least + 0.0, greatest + 0.0


#: Adds (n,) numbers to (2 + k,) int64 counts, those that are missing first, and widens (2,) ends; see `binned.Guide`.
count = compiled(_counted)
