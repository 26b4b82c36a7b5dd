"""Drift by distances: the distances against scipy's, and alarms no more often than said at every window size."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import binom, entropy, wasserstein_distance

from detectors.drift import distances
from detectors.drift.cells import PopulationStability
from detectors.drift.distance import (
    HellingerDrift,
    JensenShannonDrift,
    LInfinityDrift,
    PSIDrift,
    WassersteinDrift,
)
from detectors.drift.feature_test import Settings
from detectors.drift.wasserstein import Wasserstein
from govern.errors import BadInput

ALL = (PSIDrift, JensenShannonDrift, HellingerDrift, LInfinityDrift, WassersteinDrift)
ONCE = Settings(level=0.05, draws=1)


def test_distances_are_scipys():
    p, q = np.random.default_rng(1).dirichlet(np.ones(7), size=(2, 50))
    p[0], q[0] = [1, 0, 0, 0, 0, 0, 0], [0, 0.5, 0.5, 0, 0, 0, 0]
    np.testing.assert_allclose(distances.jensen_shannon(p, q), jensenshannon(p, q, base=2, axis=1), atol=1e-7)
    np.testing.assert_allclose(distances.l_infinity(p, q), np.linalg.norm(p - q, np.inf, axis=1))
    np.testing.assert_allclose(
        distances.hellinger(p, q),
        np.linalg.norm(np.sqrt(p) - np.sqrt(q), axis=1) / np.sqrt(2),
        atol=1e-7,
    )
    full = np.s_[1:]
    both = entropy(p[full], q[full], axis=1) + entropy(q[full], p[full], axis=1)
    np.testing.assert_allclose(distances.psi(p[full], q[full]), both)


def test_wasserstein_is_scipys(make_table):
    reference, window = make_table(300, seed=1), make_table(70, seed=2, shift=0.4, missing=0.1)
    ages = np.round(window["x0"] * 3)
    for column in (window["x0"], ages):
        frame = dataclasses.replace(window, columns=(column, *window.columns[1:]))
        found = Wasserstein.of(reference, 0).run(frame, ONCE)
        oracle = wasserstein_distance(reference["x0"], column[~np.isnan(column)])
        assert found.statistic == pytest.approx(oracle, rel=1e-9)
        assert found.effect_size == pytest.approx(oracle / reference["x0"].std(), rel=1e-9)


def test_bins_hold_equal_shares_of_what_they_count(make_table):
    test = PopulationStability.of(make_table(6000, seed=1), 0)
    assert len(test.counts) == 10
    assert test.counts.sum() == 5000
    assert np.abs(test.counts / 5000 - 0.1).max() < 0.05


@pytest.mark.parametrize("detector", ALL)
def test_a_shift_is_found_and_named(make_table, detector):
    fitted = detector(p_val=0.01).fit(make_table(2000, seed=1, nullable=True))
    assert not fitted.score(make_table(400, seed=2)).alarm
    moved = fitted.score(make_table(400, seed=2, shift=0.5))
    assert [one.label for one in moved.features if one.is_drift] == ["x0"]
    gone = fitted.score(make_table(400, seed=2, missing=0.05))
    assert {one.label for one in gone.features if one.is_drift} == {"x0:missing", "x1:missing", "x2:missing"}


@pytest.mark.parametrize("detector", ALL)
@pytest.mark.parametrize("size", [20, 60, 400])
def test_no_more_alarms_than_said(make_table, detector, size):
    """Whole numbers with ties, skewed categories, a reference not much larger than the window: 5 % or less."""
    rng, level, alarms, tests = np.random.default_rng(size), 0.05, 0, 0
    for seed in range(6):
        pool = make_table(500 + 6 * size, seed=seed, numeric=6, categorical=3, categories=6)
        for position in range(3):
            pool.columns[position][:] = np.round(np.exp(pool.columns[position]))
        pool = pool.take(rng.permutation(len(pool)))
        fitted = detector(correction="none", p_val=level, signals=False).fit(pool.take(slice(0, 500)))
        scores = fitted.score(pool.take(slice(500, 500 + size)))
        alarms += sum(one.is_drift for one in scores.features)
        tests += len(scores.features)
    assert alarms <= binom.ppf(0.999, tests, level)


def test_a_rule_of_thumb_is_a_lie_about_small_windows(make_table):
    """Without drift, a window of 40 has a PSI above 0.2 more often than not; here it alarms at most once in 20."""
    above, alarms = 0, 0
    for seed in range(20):
        scores = PSIDrift(correction="none").fit(make_table(1000, seed=seed)).score(make_table(40, seed=seed + 500))
        above += scores.features[0].statistic > 0.2
        alarms += scores.features[0].is_drift
    assert above > 8
    assert alarms <= binom.ppf(0.999, 20, 0.05)


def test_a_least_distance_takes_alarms_away(make_table):
    reference, window = make_table(3000, seed=1), make_table(3000, seed=2, shift=0.2, missing=0.05)
    found = {one.label: one for one in PSIDrift(min_distance=0.2).fit(reference).score(window).features}
    assert found["x0"].p_value < found["x0"].threshold
    assert found["x0"].statistic < 0.2
    assert not found["x0"].is_drift
    assert found["x0:missing"].is_drift  # a rate is no distance
    with pytest.raises(BadInput, match="psi: min_distance is -1"):
        PSIDrift(min_distance=-1.0)
