"""Windows of points by the distance of their mean coordinates from the reference's: a row costs the same beside any.

The kernel of a row with each row of the reference would cost as much as the reference is long. In coordinates whose
products are the kernel, or nearly, the reference is one mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from detectors.compiled import compiled
from detectors.online.tracker import Floats, Windowed

#: Coordinates are whole multiples of it. So sums of them are exact, and what is added and taken away again leaves no
#: rounding behind that would tell how a stream was cut.
_GRID: Final = 2.0**-30


def _follow_sums(
    prepared: Floats, before: int, sizes: npt.NDArray[np.int64], centre: Floats, within: float, spread: float, m: int
) -> Floats:
    rows, width = prepared.shape
    found = np.full((rows - before, 1), np.nan)
    for size in sizes:
        sums = np.zeros(width)
        share, scale = 1 / size, 1 / size + 1 / m
        for row in range(rows):
            new = prepared[row]
            if row >= size:
                old = prepared[row - size]
                for at in range(width):
                    sums[at] += new[at] - old[at]
            else:
                for at in range(width):
                    sums[at] += new[at]
            if row < before or row + 1 < size:
                continue
            # Four sums, since one would wait for each addition before the next.
            one, two, three, four = 0.0, 0.0, 0.0, 0.0
            for at in range(0, width - width % 4, 4):
                one += (sums[at] * share - centre[at]) ** 2
                two += (sums[at + 1] * share - centre[at + 1]) ** 2
                three += (sums[at + 2] * share - centre[at + 2]) ** 2
                four += (sums[at + 3] * share - centre[at + 3]) ** 2
            for at in range(width - width % 4, width):
                one += (sums[at] * share - centre[at]) ** 2
            squared = one + two + three + four
            statistic = (squared / scale - within) / spread
            if not found[row - before, 0] >= statistic:
                found[row - before, 0] = statistic
    return found


_follow = compiled(_follow_sums)


@dataclass(frozen=True, slots=True)
class Moments:
    """What windows are compared with, of (m, c) coordinates of a reference.

    Attributes:
        m: rows.
        centre: (c,), their mean.
        within: their mean squared distance from it.
        spread: the root of twice the sum of the squared eigenvalues of their covariance.
    """

    m: int
    centre: Floats
    within: float
    spread: float

    @classmethod
    def of(cls, reference: Floats) -> Moments:
        """Of rows in random order."""
        centre = reference.mean(axis=0)
        off = reference - centre
        # The sum of the squared eigenvalues is the mean square of the product of two rows.
        products = (off[1:] * off[:-1]).sum(axis=1)
        spread = float(np.sqrt(2 * np.square(products).mean())) or 1.0
        return cls(len(reference), centre, float(np.square(off).sum(axis=1).mean()), spread)

    def without(self, rows: Floats) -> Moments:
        """As if these rows were none of the reference's; what they say of its spread may stay."""
        m = self.m - len(rows)
        return replace(self, m=m, centre=(self.m * self.centre - rows.sum(axis=0)) / m)


class MeanWindows(Windowed):
    """The largest, over the windows, of the squared distance between the means of window and reference.

    It is told in standard deviations from its mean without change, both of which grow as 1 / size + 1 / m: so windows
    of all sizes have one scale. (Without change the distance is a sum of squares, weighted by the eigenvalues of the
    covariance.)

    Args:
        reference: what its coordinates say.
        sizes: of the windows, rows.
        embed: (n, d) rows -> (n, c) coordinates, each row by itself.
        width: d.
    """

    def __init__(self, reference: Moments, sizes: Sequence[int], embed: Callable[[Floats], Floats], width: int) -> None:
        super().__init__(sizes, width)
        self._embed = embed
        self._reference = reference

    def prepare(self, rows: Floats) -> Floats:
        return on_grid(self._embed(rows))

    def _statistics(self, prepared: Floats, before: int) -> Floats:
        known = self._reference
        return _follow(prepared, before, self.sizes, known.centre, known.within, known.spread, known.m)


def on_grid(coordinates: Floats) -> Floats:
    return np.asarray(np.round(coordinates / _GRID) * _GRID)
