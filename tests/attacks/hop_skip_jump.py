"""HopSkipJump (Chen, Jordan, Wainwright 2020, arXiv:1904.02144): decision-based, untargeted, l2.

The search along a line asks for a grid of points at once, not one after the other; so does the choice of the step.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from tests.attacks.endpoint import Endpoint, Floats

_GRID: Final = np.linspace(0.0, 1.0, 17)
#: Rounds of a grid of 17: the boundary is found to 1 / 16^3 of the line.
_ROUNDS: Final = 3
_HALVINGS: Final = 0.5 ** np.arange(12)


def attack(
    endpoint: Endpoint,
    row: Floats,
    start: Floats,
    *,
    low: float,
    high: float,
    iterations: int,
    samples: int,
    rng: np.random.Generator,
) -> Floats:
    """A row of another class near `row`, (d,), within [low, high].

    Args:
        start: (d,) a row that the model puts into another class.
        iterations, samples: T and B_0 of the paper's algorithm 2.
    """
    label = int(endpoint.labels(row[None])[0])
    found = _boundary(endpoint, row, start, label)
    for t in range(1, iterations + 1):
        away = float(np.linalg.norm(found - row))
        # Of the paper's section III: theta = d^(-3/2), hence delta = distance / d; the first is a tenth of the range.
        delta = 0.1 * (high - low) if t == 1 else away / len(row)
        noise = rng.normal(size=(int(samples * np.sqrt(t)), len(row)))
        noise /= np.linalg.norm(noise, axis=1, keepdims=True)
        tried = np.clip(found + delta * noise, low, high)
        flips = np.where(endpoint.labels(tried) != label, 1.0, -1.0)
        weights = flips if abs(flips.mean()) == 1.0 else flips - flips.mean()
        direction = (weights[:, None] * (tried - found)).mean(axis=0)
        direction /= np.linalg.norm(direction)
        steps = np.clip(found + (away / np.sqrt(t) * _HALVINGS)[:, None] * direction, low, high)
        over = np.flatnonzero(endpoint.labels(steps) != label)
        nearer = _boundary(endpoint, row, steps[over[0]] if over.size else found, label)
        if np.linalg.norm(nearer - row) < away:
            found = nearer
    return found


def _boundary(endpoint: Endpoint, row: Floats, other: Floats, label: int) -> Floats:
    """The point of the other class nearest to `row`, on the line between them, as far as the grid tells."""
    near, far = 0.0, 1.0
    for _ in range(_ROUNDS):
        shares = near + (far - near) * _GRID
        flipped = endpoint.labels(row + shares[:, None] * (other - row)) != label
        flipped[-1] = True
        first = max(1, int(np.argmax(flipped)))
        near, far = float(shares[first - 1]), float(shares[first])
    return row + far * (other - row)
