"""P-values by permutation: exact where all permutations can be counted, and never too small."""

from __future__ import annotations

import numpy as np
from scipy.stats import binom, hypergeom

from detectors.drift.categorical import pearson, permuted_p
from detectors.drift.fisher import fisher_p
from detectors.drift.permutation import permutation_p
from detectors.drift.univariate import chi_squared


def test_of_two_categories_it_is_fishers():
    """Pearson's statistic orders tables of two categories by their distance from what is expected, as one tail does."""
    for seen in range(4, 9):
        table = np.array([[500 - 3, 3], [60 - seen, seen]])
        found = permuted_p(table, pearson, draws=40_000, seed=(7, seen))
        exact = fisher_p(seen, 60, 3, 500, alternative="greater")
        assert abs(found - exact) < max(6 * (exact / 40_000) ** 0.5, 1 / 20_000), (found, exact)


def test_the_statistic_is_pearsons():
    table = np.array([[300, 200, 10, 4], [20, 30, 5, 0]])
    found = pearson(table[1:].astype(float), table.sum(axis=0).astype(float), int(table[1].sum()))[0]
    assert np.isclose(found, chi_squared(table[0], table[1]).statistic)


def test_it_stops_when_it_knows_enough():
    drawn = []

    def draw(generator: np.random.Generator, count: int) -> np.ndarray:
        drawn.append(count)
        return generator.random(count)

    assert 0.3 < permutation_p(0.5, draw, draws=10**9, seed=(1,)) < 0.8
    assert sum(drawn) < 200
    assert permutation_p(2.0, draw, draws=999, seed=(1,)) == 1 / 1000
    assert permutation_p(0.9, draw, draws=999, seed=(2,)) == permutation_p(0.9, draw, draws=999, seed=(2,))


def test_rare_categories_raise_no_false_alarms():
    """Exact, nothing is simulated but the p-values: the chance of each table of two categories is hypergeometric."""
    n, rows = 1000, 50
    for having in (3, 11):
        seen = np.arange(0, having + 1)
        chance = hypergeom.pmf(seen, n + rows, having, rows)
        tables = [np.array([[n - (having - k), having - k], [rows - k, k]]) for k in seen.tolist()]
        exact = np.array([permuted_p(table, pearson, draws=3999, seed=(0, k)) for k, table in enumerate(tables)])
        for level in (0.05, 0.01, 0.001):
            assert chance[exact < level].sum() <= level * 1.3


def test_null_windows_alarm_at_most_as_often_as_said():
    """300 features of six categories, two of them rare, against windows of 40: exactly the sizes that mislead."""
    rng = np.random.default_rng(5)
    shares = np.array([0.5, 0.3, 0.15, 0.03, 0.015, 0.005])
    p_values, asymptotic = [], []
    for _ in range(300):
        table = np.stack((rng.multinomial(800, shares), rng.multinomial(40, shares)))
        p_values.append(permuted_p(table[:, table.sum(axis=0) > 0], pearson, draws=999, seed=(0,)))
        asymptotic.append(chi_squared(table[0], table[1]).p_value)
    for level in (0.001, 0.01, 0.05, 0.2, 0.5):
        assert np.sum(np.array(p_values) <= level) <= binom.ppf(0.999, 300, level)
    assert np.sum(np.array(asymptotic) <= 0.001) > binom.ppf(0.99, 300, 0.001)  # what it is good for
