"""Whole rows, online: against sums over all pairs, computed anew at every row, and on what no feature shows."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.distances import gaussian, median_gamma
from detectors.drift.lsdd import DensityDifference, DensityFeatures, centres_of
from detectors.fourier import FourierFeatures
from detectors.online.lsdd import OnlineLSDDDrift
from detectors.online.means import MeanWindows, Moments, on_grid
from detectors.online.mmd import OnlineMMDDrift
from govern.frame import Frame
from govern.schema import FORMAT_VERSION, Feature, FeatureSchema

SIZES = (10, 25)


@pytest.fixture(scope="module")
def points():
    rng = np.random.default_rng(6)
    return rng.normal(size=(400, 4)), rng.normal(0.4, 1.0, size=(70, 4))


def test_statistic_is_that_of_the_means_at_every_row(points):
    reference, stream = points
    features = FourierFeatures(4, gamma=median_gamma(reference), seed=0)
    placed = on_grid(features.of(reference))
    tracker = MeanWindows(Moments.of(placed), SIZES, features.of, 4)
    found = tracker.simulate(tracker.prepare(stream))[:, 0]
    off = placed - placed.mean(axis=0)
    within = np.square(off).sum(axis=1).mean()
    spread = np.sqrt(2 * np.square((off[1:] * off[:-1]).sum(axis=1)).mean())
    for row in range(len(stream)):
        expected = [
            (
                np.square(features.of(stream[row + 1 - size : row + 1]).mean(axis=0) - placed.mean(axis=0)).sum()
                / (1 / size + 1 / len(reference))
                - within
            )
            / spread
            for size in SIZES
            if row + 1 >= size
        ]
        if expected:
            assert found[row] == pytest.approx(max(expected), rel=1e-6, abs=1e-6)
        else:
            assert np.isnan(found[row])


def test_rows_that_are_left_out_are_no_part_of_the_mean(points):
    reference, _ = points
    left = Moments.of(reference).without(reference[:30])
    assert left.m == 370
    assert left.centre == pytest.approx(reference[30:].mean(axis=0), abs=1e-12)


def test_random_frequencies_give_the_kernels_discrepancy(points):
    reference, stream = points
    gamma = median_gamma(reference)

    def kernel(a, b):
        return gaussian(a, np.ascontiguousarray(b.T), gamma).mean(dtype=np.float64)

    exact = kernel(reference, reference) + kernel(stream, stream) - 2 * kernel(reference, stream)
    found = []
    for seed in range(20):
        features = FourierFeatures(4, gamma=gamma, seed=seed)
        found.append(np.square(features.of(reference).mean(axis=0) - features.of(stream).mean(axis=0)).sum())
    assert np.mean(found) == pytest.approx(exact, rel=0.05)
    assert np.abs(np.array(found) / exact - 1).max() < 0.35


def test_density_difference_is_that_of_the_test_of_a_window(points):
    reference, stream = points
    gamma, centres = median_gamma(reference), centres_of(reference)
    features = DensityFeatures(reference[:centres], gamma=gamma)
    known = features.of(reference[centres:])
    whole, _ = DensityDifference(reference, gamma=gamma, permutations=19, seed=0).run(stream)
    assert np.square(known.mean(axis=0) - features.of(stream).mean(axis=0)).sum() == pytest.approx(whole, rel=1e-9)


@pytest.mark.parametrize("online", [OnlineMMDDrift, OnlineLSDDDrift])
def test_features_that_no_longer_go_together_are_found_and_none_is_blamed(online):
    rng = np.random.default_rng(8)
    schooling = rng.normal(13, 3, 1_400)
    pay = 2 * schooling + rng.normal(0, 2, 1_400)
    pay[1_200:] = rng.permutation(pay[1_200:])
    features = tuple(Feature(name=name, kind="numeric") for name in ("schooling", "pay"))
    schema = FeatureSchema(format_version=FORMAT_VERSION, model="pay", features=features)
    rows = Frame(schema, (schooling, pay))
    detector = online(ert=1_000).fit(rows.take(slice(0, 1_000)))
    scores = detector.score(rows.take(slice(1_100, 1_400)))
    assert 100 <= scores.alarm_row < 200
    assert [one.feature for one in scores.features if one.is_drift] == []
    louder = Frame(schema, (schooling[:60], pay[:60] + 30))
    scores = detector.score(louder)
    assert scores.alarm
    assert [one.feature for one in scores.features if one.is_drift] == ["pay"]
