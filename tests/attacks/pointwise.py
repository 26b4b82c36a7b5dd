"""The pointwise attack (Schott, Rauber, Bethge, Brendel 2019, arXiv:1805.09190): decision-based, untargeted, l0.

It takes values from rows that exist and never mixes them, so that it serves tables of categories as well as pixels.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from tests.attacks.endpoint import Endpoint, Floats

_GRID: Final = np.linspace(0.0, 1.0, 17)


def attack(
    endpoint: Endpoint, row: Floats, donors: Floats, *, free: tuple[int, ...], numbers: tuple[int, ...]
) -> Floats:
    """A row of another class that has as many of the values of `row`, (d,), as the attack finds; `row` where it fails.

    Args:
        donors: (m, d) rows of other classes, whose values are tried.
        free: columns that may change.
        numbers: those of them that are whole numbers: once few columns differ, these go back towards `row`.
    """
    label = int(endpoint.labels(row[None])[0])
    starts = np.tile(row, (len(donors), 1))
    starts[:, free] = donors[:, free]
    found = [start for start, answer in zip(starts, endpoint.labels(starts), strict=True) if answer != label]
    fewest = [_put_back(endpoint, row, start, label) for start in found]
    if not fewest:
        return row
    best = min(fewest, key=lambda one: int((one != row).sum()))
    for column in set(numbers) & set(np.flatnonzero(best != row).tolist()):
        tried = np.tile(best, (len(_GRID), 1))
        tried[:, column] = np.rint(row[column] + _GRID * (best[column] - row[column]))
        # The last of them is `best` itself.
        best = tried[int(np.argmax(endpoint.labels(tried) != label))]
    return best


def _put_back(endpoint: Endpoint, row: Floats, found: Floats, label: int) -> Floats:
    """`found`, of which one value after the other is that of `row` again, as long as the class stays another."""
    while True:
        changed = np.flatnonzero(found != row)
        tried = np.tile(found, (len(changed), 1))
        tried[np.arange(len(changed)), changed] = row[changed]
        still = np.flatnonzero(endpoint.labels(tried) != label)
        if not still.size:
            return found
        found = tried[still[0]]
