"""The confidence bounds against brute force on a grid, and the arm selection against the truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from explainers.kl_lucb import Tally, best, confidence, exploration, kl_bernoulli, lower, upper

GRID = np.linspace(0.0, 1.0, 200_001)


@given(st.integers(0, 400), st.integers(1, 400), st.floats(0.01, 40.0))
def test_bounds_equal_a_search_of_the_whole_grid(heads: int, n: int, level: float) -> None:
    heads = min(heads, n)
    mean = np.array([heads / n])
    tosses = np.array([float(n)])
    allowed = GRID[n * kl_bernoulli(np.full_like(GRID, mean[0]), GRID) <= level]
    assert upper(mean, tosses, level)[0] == pytest.approx(max(allowed.max(initial=0.0), mean[0]), abs=1e-5)
    assert lower(mean, tosses, level)[0] == pytest.approx(min(allowed.min(initial=1.0), mean[0]), abs=1e-5)


def test_without_tosses_the_bounds_say_nothing() -> None:
    none = np.zeros(1)
    assert (lower(none, none, 3.0)[0], upper(none, none, 3.0)[0]) == (0.0, 1.0)


def test_the_divergence_knows_certainty() -> None:
    p, q = np.array([0.0, 1.0, 0.5, 0.0]), np.array([0.0, 1.0, 1.0, 0.5])
    np.testing.assert_allclose(kl_bernoulli(p, q), [0.0, 0.0, np.inf, np.log(2)])


def test_rates_grow_with_rounds_and_arms() -> None:
    for rate in (exploration, confidence):
        assert rate(1, 2, 0.1) < rate(10, 2, 0.1) < rate(10, 20, 0.1) < rate(10, 20, 0.01)


@pytest.mark.parametrize("seed", range(5))
def test_the_best_arms_are_found(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = np.array([0.2, 0.91, 0.5, 0.87, 0.3, 0.6, 0.1])
    tally = Tally.empty(len(truth))

    def toss(arms: np.ndarray) -> None:
        tally.add(arms, np.full(len(arms), 50.0), rng.binomial(50, truth[arms]).astype(np.float64))

    assert set(best(tally, toss, top=2, delta=0.05, epsilon=0.1).tolist()) == {1, 3}
    assert tally.n[6] < tally.n[5], "a hopeless arm is not tossed as often as a doubtful one"


def test_the_confidence_rate_holds_for_all_looks_at_once() -> None:
    """Of 400 sequences of 40 looks, the share in which the truth ever leaves its bound is far below delta."""
    rng = np.random.default_rng(0)
    batch, looks, truth, delta = 64, 40, 0.9, 0.1
    heads = rng.binomial(batch, truth, size=(400, looks)).cumsum(axis=1)
    left = np.zeros(400, dtype=bool)
    for t in range(1, looks + 1):
        n = np.full(400, float(batch * t))
        left |= lower(heads[:, t - 1] / n, n, confidence(t, 1, delta)) > truth
    assert left.mean() < delta
