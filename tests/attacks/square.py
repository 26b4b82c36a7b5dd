"""The square attack (Andriushchenko, Croce, Flammarion, Hein 2020, arXiv:1912.00049): score-based, untargeted, linf."""

from __future__ import annotations

from typing import Final

import numpy as np

from tests.attacks.endpoint import Endpoint, Floats

#: Of the paper's section 3.3: after these shares of the iterations the share of changed pixels is halved.
_HALVED: Final = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)


def attack(
    endpoint: Endpoint,
    images: Floats,
    *,
    width: int,
    epsilon: float,
    low: float,
    high: float,
    iterations: int,
    rng: np.random.Generator,
    share: float = 0.8,
) -> Floats:
    """Images, (n, width²), each pixel changed by at most epsilon within [low, high]; all are asked for at once.

    Args:
        share: p of the paper, pixels that the first squares change.
    """
    n = len(images)
    answers = endpoint.answers(images)
    labels = answers.argmax(axis=1)
    # The paper's start: vertical stripes.
    stripes = np.tile(rng.choice([-epsilon, epsilon], (n, 1, width)), (1, width, 1))
    found = np.clip(images + stripes.reshape(n, -1), low, high)
    margins = _margins(endpoint, found, labels)
    for iteration in range(iterations):
        open_ = np.flatnonzero(margins > 0.0)
        if not open_.size:
            break
        halvings = sum(iteration > at * iterations for at in _HALVED)
        side = max(1, round(np.sqrt(share / 2**halvings * width**2)))
        tried = found[open_].reshape(-1, width, width).copy()
        clean = images[open_].reshape(-1, width, width)
        for image, original in zip(tried, clean, strict=True):
            top, left = rng.integers(0, width - side + 1, 2)
            window = np.s_[top : top + side, left : left + side]
            image[window] = np.clip(original[window] + rng.choice([-epsilon, epsilon]), low, high)
        reached = _margins(endpoint, tried.reshape(len(open_), -1), labels[open_])
        better = reached < margins[open_]
        found[open_[better]] = tried.reshape(len(open_), -1)[better]
        margins[open_[better]] = reached[better]
    return found


def _margins(endpoint: Endpoint, rows: Floats, labels: np.ndarray) -> Floats:
    """By how much the probability of each label is above that of every other: (n,), negative once the label flipped."""
    answers = endpoint.answers(rows)
    own = answers[np.arange(len(rows)), labels]
    answers[np.arange(len(rows)), labels] = -1.0
    return np.asarray(own - answers.max(axis=1), dtype=np.float64)
