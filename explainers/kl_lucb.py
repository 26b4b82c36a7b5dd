"""KL-LUCB: which of several coins come up heads most often, in few tosses.

Kaufmann and Kalyanakrishnan, "Information Complexity in Bandit Subset Selection", COLT 2013: confidence bounds from
the Kullback-Leibler divergence (section 2) and the sampling rule of LUCB with the exploration rate of Theorem 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Arms = npt.NDArray[np.intp]

#: Of the exploration rate: any alpha > 1, and with it k1 > 2e + 1 + e / (alpha - 1) + (e + 1) / (alpha - 1)^2.
_ALPHA: Final = 1.1
_K1: Final = 405.5
#: Arms of either side that are tossed in a round: a model behind a network answers few large calls fastest.
_PAIRS: Final = 4
#: Halvings of [p, 1]: the bound is then exact to 2^-40, about 1e-12.
_BISECTIONS: Final = 40


def kl_bernoulli(p: Floats, q: Floats) -> Floats:
    """KL(Bernoulli(p) || Bernoulli(q)) in nats, with 0 log 0 = 0 and infinity where q excludes what p allows."""
    with np.errstate(divide="ignore", invalid="ignore"):
        heads = np.where(p > 0, p * np.log(p / q), 0.0)
        tails = np.where(p < 1, (1 - p) * np.log((1 - p) / (1 - q)), 0.0)
    return np.asarray(heads + tails, dtype=np.float64)


def upper(mean: Floats, n: Floats, level: float) -> Floats:
    """The largest q >= mean with n KL(mean, q) <= level; 1 where n is 0."""
    low, high = mean.astype(np.float64), np.ones_like(mean, dtype=np.float64)
    return _bisect(mean, n, level, low, high)


def lower(mean: Floats, n: Floats, level: float) -> Floats:
    """The smallest q <= mean with n KL(mean, q) <= level; 0 where n is 0."""
    low, high = mean.astype(np.float64), np.zeros_like(mean, dtype=np.float64)
    return _bisect(mean, n, level, low, high)


def _bisect(mean: Floats, n: Floats, level: float, inside: Floats, outside: Floats) -> Floats:
    reachable = _holds(mean, outside, n, level)
    inside = np.where(reachable, outside, inside)
    for _ in range(_BISECTIONS):
        middle = (inside + outside) / 2
        holds = _holds(mean, middle, n, level)
        inside, outside = np.where(holds, middle, inside), np.where(holds, outside, middle)
    return inside


def _holds(mean: Floats, q: Floats, n: Floats, level: float) -> npt.NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):  # 0 tosses times an infinite divergence: nothing is known, so it holds
        return ~np.asarray(n * kl_bernoulli(mean, q) > level)


def exploration(t: int, n_arms: int, delta: float) -> float:
    """beta(t, delta) of Theorem 1: n KL may be this large in round t if all bounds hold with probability 1 - delta."""
    rate = float(np.log(_K1 * n_arms * max(t, 1) ** _ALPHA / delta))
    return rate + float(np.log(rate))


def confidence(t: int, n_arms: int, delta: float) -> float:
    """n KL stays below this at the t-th look at each of `n_arms` arms, for all t and arms, with probability 1 - delta.

    Chernoff's bound 2 exp(-n KL) for a look at a sample whose size was fixed beforehand (that of the t-th look), and
    the union over arms and looks: sum of 1 / t^2 = pi^2 / 6.
    """
    return float(np.log(np.pi**2 / 3 * n_arms * max(t, 1) ** 2 / delta))


@dataclass(frozen=True, slots=True)
class Tally:
    """Tosses so far.

    Attributes:
        n: (K,) float64, tosses of each arm.
        heads: (K,) float64, how many came up.
    """

    n: Floats
    heads: Floats

    @classmethod
    def empty(cls, n_arms: int) -> Tally:
        return cls(np.zeros(n_arms), np.zeros(n_arms))

    @property
    def mean(self) -> Floats:
        return np.divide(self.heads, self.n, out=np.zeros_like(self.heads), where=self.n > 0)

    def add(self, arms: Arms, n: Floats, heads: Floats) -> None:
        """Count further tosses of these (distinct) arms, in place."""
        self.n[arms] += n
        self.heads[arms] += heads

    def lower(self, arms: Arms, level: float) -> Floats:
        return lower(self.mean[arms], self.n[arms], level)

    def upper(self, arms: Arms, level: float) -> Floats:
        return upper(self.mean[arms], self.n[arms], level)


def best(tally: Tally, toss: Callable[[Arms], None], *, top: int, delta: float, epsilon: float) -> Arms:
    """The `top` arms of highest mean, best first.

    With probability 1 - delta none of them is worse than the true best ones by more than `epsilon`. The paper tosses
    one arm of either side in a round; here a round tosses the `_PAIRS` most doubtful ones, in one call.

    Args:
        toss: tosses each of the arms it is handed a number of times and counts them in `tally`.
    """
    n_arms = len(tally.n)
    fresh = np.flatnonzero(tally.n == 0)
    if fresh.size:
        toss(fresh)
    top = min(top, n_arms)
    t = 1
    while top < n_arms:
        order = np.argsort(-tally.mean, kind="stable")
        chosen, others = order[:top], order[top:]
        level = exploration(t, n_arms, delta)
        low, high = tally.lower(chosen, level), tally.upper(others, level)
        if high.max() - low.min() < epsilon:
            break
        doubtful = np.concatenate([chosen[np.argsort(low)[:_PAIRS]], others[np.argsort(-high)[:_PAIRS]]])
        toss(doubtful)
        t += 1
    return np.argsort(-tally.mean, kind="stable")[:top]
