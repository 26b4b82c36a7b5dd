"""Which route a request takes: by fixed weights, or by what the routes were worth so far. Pure.

Epsilon-greedy: Sutton and Barto, *Reinforcement Learning* (2018), section 2.2. Thompson sampling with a Beta posterior:
Chapelle and Li, *An Empirical Evaluation of Thompson Sampling* (2011), algorithm 2; a reward between 0 and 1 counts as
that share of a success.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from govern.errors import BadInput
from govern.ids import derived_id
from govern.pipeline.spec import RouterSpec

#: Hex digits of a draw: 52 bits, which a float holds exactly.
_DIGITS = 13


class Bandit(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the routes. JSON by `msgspec.json`.

    Attributes:
        rewards: route -> how many rewards came for it.
        total: route -> their sum; each is between 0 and 1.
    """

    rewards: dict[str, int] = {}
    total: dict[str, float] = {}

    def update(self, route: str, reward: float) -> Bandit:
        """What is known with one more reward.

        Raises:
            BadInput: a reward that is not between 0 and 1.
        """
        if not 0 <= reward <= 1:
            raise BadInput(f"reward {reward:g}", why="a router learns from rewards between 0 and 1", fix="scale it")
        return Bandit(
            rewards=self.rewards | {route: self.rewards.get(route, 0) + 1},
            total=self.total | {route: self.total.get(route, 0.0) + reward},
        )


def choose(spec: RouterSpec, known: Bandit, key: Sequence[str | int]) -> str:
    """The route of a request: it follows from the strategy, its seed, what is known, and the key.

    Args:
        key: what tells this choice from all others: the router's name, the request's id ...
    """
    match spec.strategy:
        case "weighted":
            return _weighted(spec, _draw(spec.seed, *key))
        case "epsilon-greedy":
            return _epsilon_greedy(spec, known, key)
        case "thompson":
            return _thompson(spec, known, key)


def _weighted(spec: RouterSpec, draw: float) -> str:
    left = draw * sum(route.weight for route in spec.routes)
    open_ = [route for route in spec.routes if route.weight > 0]
    for route in open_[:-1]:
        left -= route.weight
        if left < 0:
            return route.name
    return open_[-1].name


def _epsilon_greedy(spec: RouterSpec, known: Bandit, key: Sequence[str | int]) -> str:
    if _draw(spec.seed, *key, "explore") < spec.epsilon:
        return spec.routes[int(_draw(spec.seed, *key, "route") * len(spec.routes))].name
    # A route of which nothing is known comes before all others, so that each is tried.
    return max(spec.routes, key=lambda route: _mean(known, route.name)).name


def _mean(known: Bandit, route: str) -> float:
    count = known.rewards.get(route, 0)
    return known.total[route] / count if count else float("inf")


def _thompson(spec: RouterSpec, known: Bandit, key: Sequence[str | int]) -> str:
    random = np.random.default_rng(int(derived_id(spec.seed, *key), 16))
    won = np.array([known.total.get(route.name, 0.0) for route in spec.routes])
    lost = np.array([known.rewards.get(route.name, 0) for route in spec.routes]) - won
    return spec.routes[int(np.argmax(random.beta(1 + won, 1 + lost)))].name


def _draw(*parts: str | int) -> float:
    """Uniform in [0, 1)."""
    return int(derived_id(*parts)[:_DIGITS], 16) / 16.0**_DIGITS
