"""The univariate tests against scipy, their oracle."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, chi2_contingency, cramervonmises_2samp, fisher_exact, ks_2samp, kstwo

from detectors.drift.cramer_von_mises import Sorted, cramer_von_mises
from detectors.drift.fisher import fisher_p, odds_ratio
from detectors.drift.kolmogorov import survival
from detectors.drift.univariate import UNTESTED, category_counts, chi_squared, kolmogorov_smirnov
from govern.frame import MISSING, UNSEEN

SIZES = st.integers(2, 400)  # scipy answers one value against one with a division by zero


@st.composite
def samples(draw: st.DrawFn) -> np.ndarray:
    """Values with or without ties, moved and stretched by chance."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = rng.normal(draw(st.floats(-1, 1)), draw(st.floats(0.5, 2)), draw(SIZES))
    return np.round(values, draw(st.sampled_from([0, 1, 12])))


@settings(max_examples=200, deadline=None)
@given(samples(), samples())
def test_ks_is_scipys_asymptotic_test(reference, window):
    found = kolmogorov_smirnov(np.sort(reference), window)
    oracle = ks_2samp(reference, window, method="asymp")
    assert found.statistic == pytest.approx(oracle.statistic, abs=1e-12)
    assert found.p_value == pytest.approx(oracle.pvalue, abs=1e-9)
    assert (found.effect_size, found.n) == (found.statistic, len(window))


@settings(max_examples=40, deadline=None)
@given(samples(), samples())
@pytest.mark.filterwarnings("ignore:ks_2samp:RuntimeWarning")
def test_ks_is_scipys_exact_test(reference, window):
    found = kolmogorov_smirnov(np.sort(reference), window, tail="exact")
    assert found.p_value == pytest.approx(ks_2samp(reference, window, method="exact").pvalue, abs=1e-9)


def test_a_guarded_ks_is_exact_where_it_matters():
    """Of 20 against 20 the asymptotic p-value is too small at D = 0.55."""
    reference, window = np.arange(20.0), np.arange(20.0) + 10.5
    exact = ks_2samp(reference, window, method="exact").pvalue
    assert kolmogorov_smirnov(reference, window, tail="asymptotic").p_value < exact
    assert kolmogorov_smirnov(reference, window, tail="guarded", level=0.05).p_value == pytest.approx(exact)


@settings(max_examples=200, deadline=None)
@given(samples(), samples())
def test_cvm_is_scipys_test(reference, window):
    rng = np.random.default_rng(len(reference))
    reference, window = (sample + rng.normal(0, 1e-3, len(sample)) for sample in (reference, window))
    found = cramer_von_mises(Sorted.of(np.sort(reference)), np.append(window, np.nan))
    oracle = cramervonmises_2samp(reference, window)
    assert found.statistic == pytest.approx(oracle.statistic, abs=1e-9)
    assert found.p_value == pytest.approx(oracle.pvalue, abs=1e-6)  # to which scipy sums its series
    assert found.n == len(window)
    assert 0.0 <= found.effect_size <= 1.0


@settings(max_examples=100, deadline=None)
@given(samples(), samples())
def test_cvm_counts_half_of_each_jump(reference, window):
    """By the definition, over all values, with ties and without."""
    pooled, n, m = np.concatenate((reference, window)), len(reference), len(window)

    def at(sample: np.ndarray) -> np.ndarray:
        return np.array([np.mean(sample < z) + np.mean(sample <= z) for z in pooled]) / 2

    apart = at(reference) - at(window)
    expected = n * m / (n + m) ** 2 * np.sum(np.square(apart)) + 1 / (4 * (n + m))
    found = cramer_von_mises(Sorted.of(np.sort(reference)), window)
    assert found.statistic == pytest.approx(expected, abs=1e-9)


def test_cvm_of_tied_samples_alarms_at_most_as_often_as_said():
    """Whole numbers, samples of different sizes: what scipy's midranks alarm at."""
    rng, p_values = np.random.default_rng(3), []
    for top in (2, 5, 80):
        for _ in range(150):
            reference, window = (rng.integers(0, top, size).astype(float) for size in (2000, 40))
            p_values.append(cramer_von_mises(Sorted.of(np.sort(reference)), window).p_value)
            assert cramervonmises_2samp(reference, window).pvalue < 1e-3
    for level in (0.01, 0.05, 0.2):
        assert np.sum(np.array(p_values) < level) <= binom.ppf(0.999, len(p_values), level)


def test_cvm_of_disjoint_and_of_equal_samples():
    reference = Sorted.of(np.arange(1000.0))
    far, same = cramer_von_mises(reference, np.arange(1000.0) + 5000), cramer_von_mises(reference, np.arange(1000.0))
    assert far.p_value == 0.0
    assert same.p_value == 1.0
    # The distribution functions are apart by a triangle of height 1: the mean of its square is a third.
    assert far.effect_size == pytest.approx(math.sqrt(1 / 3), abs=1e-3)
    assert cramer_von_mises(reference, np.full(5, np.nan)) is UNTESTED


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 60), st.integers(1, 400), st.data())
def test_fisher_is_scipys_test(n, m, data):
    seen, before = data.draw(st.integers(0, n)), data.draw(st.integers(0, m))
    table = [[seen, n - seen], [before, m - before]]
    for alternative in ("two-sided", "greater"):
        oracle = fisher_exact(table, alternative=alternative)
        assert fisher_p(seen, n, before, m, alternative=alternative) == pytest.approx(oracle.pvalue, rel=1e-7)
    assert odds_ratio(seen, n, before, m) == pytest.approx(oracle.statistic, nan_ok=True)


def test_ks_leaves_missing_values_out():
    rng = np.random.default_rng(0)
    reference, window = np.sort(rng.normal(size=300)), rng.normal(size=100)
    holed = np.insert(window, [0, 40, 100], np.nan)
    assert kolmogorov_smirnov(reference, holed) == kolmogorov_smirnov(reference, window)


def test_ks_of_nothing():
    assert kolmogorov_smirnov(np.arange(30.0), np.full(9, np.nan)) is UNTESTED
    assert math.isnan(UNTESTED.p_value)


def test_ks_of_disjoint_and_of_equal_samples():
    reference = np.arange(1000.0)
    assert kolmogorov_smirnov(reference, reference + 5000).statistic == 1.0
    assert kolmogorov_smirnov(reference, reference + 5000).p_value == 0.0
    assert kolmogorov_smirnov(reference, reference).statistic == 0.0
    assert kolmogorov_smirnov(reference, reference).p_value == 1.0


@pytest.mark.parametrize("n", [1, 20, 140, 141, 300, 909, 5_000, 50_000])
def test_kolmogorov_distribution_is_scipys(n):
    for z in np.concatenate((np.linspace(0.01, 1.6, 50), np.linspace(1.6, 12, 40))):
        d = min(z / math.sqrt(n), 1.0)
        expected = kstwo.sf(d, n)
        assert survival(d, n) == pytest.approx(expected, rel=1e-9, abs=1e-15), (n, d)


def test_kolmogorov_distribution_of_many_values():
    """Where scipy is slow, the limit law must hold: 2 * sum (-1)^(k-1) exp(-2 k² z²), up to O(1/sqrt(n))."""
    n = 10**7
    for z in (0.06, 0.5, 0.83, 1.36, 2.0):
        k = np.arange(1, 200)
        limit = 2 * np.sum((-1.0) ** (k - 1) * np.exp(-2 * k**2 * z**2))
        assert survival(z / math.sqrt(n), n) == pytest.approx(limit, abs=1e-3)


@st.composite
def tables(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    k = draw(st.integers(1, 12))
    counts = st.lists(st.integers(0, 500), min_size=k, max_size=k).filter(any)
    return np.array(draw(counts)), np.array(draw(counts))


@settings(max_examples=200, deadline=None)
@given(tables())
def test_chi_squared_is_scipys(table):
    reference, window = table
    found = chi_squared(reference, window)
    occurring = np.stack(table)[:, (reference + window) > 0]
    oracle = chi2_contingency(occurring)
    assert found.statistic == pytest.approx(oracle.statistic, rel=1e-10, abs=1e-10)
    assert found.p_value == pytest.approx(oracle.pvalue, rel=1e-9, abs=1e-300)
    plain = chi2_contingency(occurring, correction=False).statistic
    assert found.effect_size == pytest.approx(math.sqrt(plain / occurring.sum()), abs=1e-9)
    assert 0.0 <= found.effect_size <= 1.0 + 1e-12


def test_cramers_v_at_its_ends():
    assert chi_squared(np.array([50, 0]), np.array([0, 20])).effect_size == pytest.approx(1.0)
    assert chi_squared(np.array([50, 50]), np.array([20, 20])).effect_size == 0.0


def test_missing_and_unseen_are_counted():
    codes = np.array([UNSEEN, MISSING, MISSING, 0, 2, 2, 2], dtype=np.int32)
    assert category_counts(codes, 4).tolist() == [1, 2, 1, 0, 3, 0]
