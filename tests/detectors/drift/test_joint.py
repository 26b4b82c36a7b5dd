"""The multivariate drift detectors: statistics by their definitions, false alarms, and drift that no feature shows."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.metrics.pairwise import rbf_kernel

from detectors.distances import median_gamma
from detectors.drift.classifier import ClassifierDrift
from detectors.drift.lsdd import CENTRES, RIDGE, DensityDifference, LSDDDrift
from detectors.drift.mmd import Discrepancy, MMDDrift
from detectors.drift.reconstruction import ReconstructionDrift
from detectors.drift.rff_mmd import FeatureDiscrepancy, RandomFeatureMMDDrift
from detectors.fourier import FourierFeatures
from detectors.kernels import Radial
from govern.errors import BadInput
from govern.frame import Frame
from govern.schema import FORMAT_VERSION, Feature, FeatureSchema

DETECTORS = [MMDDrift, RandomFeatureMMDDrift, LSDDDrift, ReconstructionDrift]


def together(rows: int, correlation: float, seed: int) -> Frame:
    """Four standard normal features, the first two correlated: no feature alone knows how much."""
    values = np.random.default_rng(seed).normal(size=(rows, 4))
    values[:, 1] = correlation * values[:, 0] + np.sqrt(1 - correlation**2) * values[:, 1]
    features = tuple(Feature(name=f"x{i}", kind="numeric") for i in range(4))
    schema = FeatureSchema(format_version=FORMAT_VERSION, model="made", features=features)
    return Frame(schema, tuple(values.T.copy()))


def _mmd2(kernel: np.ndarray, m: int) -> float:
    """The unbiased estimate of Gretton et al. (2012), equation 3, of the first m rows and the others."""
    n = len(kernel) - m
    np.fill_diagonal(kernel, 0.0)
    return float(
        kernel[:m, :m].sum() / (m * (m - 1)) + kernel[m:, m:].sum() / (n * (n - 1)) - 2 * kernel[:m, m:].mean()
    )


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_the_discrepancy_is_grettons_and_its_null_that_of_new_labels(shift):
    rng = np.random.default_rng(4)
    m, n, draws = 80, 30, 199
    reference, window = rng.normal(size=(m, 5)), rng.normal(shift, 1.0, size=(n, 5))
    gamma = median_gamma(reference)
    statistic, p_value = Discrepancy(reference, kernel=Radial("gaussian", gamma), permutations=draws, seed=9).run(
        window
    )
    kernel = rbf_kernel(np.vstack((reference, window)), gamma=gamma)
    assert statistic == pytest.approx(_mmd2(kernel.copy(), m), abs=1e-7)
    labels, null = np.random.default_rng((9,)), []
    for _ in range(draws):
        chosen = labels.permutation(m + n)[:n]
        order = np.concatenate((np.setdiff1d(np.arange(m + n), chosen), chosen))
        null.append(_mmd2(kernel[np.ix_(order, order)], m))
    extreme = np.flatnonzero(np.array(null) >= statistic)
    # Twenty draws as extreme end the drawing (`permutation_p`).
    expected = 20 / (extreme[19] + 1) if len(extreme) >= 20 else (len(extreme) + 1) / (draws + 1)
    assert p_value == expected
    assert (p_value < 0.05) == (shift > 0)


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_the_discrepancy_of_features_is_grettons_of_their_products(shift):
    rng = np.random.default_rng(4)
    m, n, draws = 80, 30, 199
    reference, window = rng.normal(size=(m, 5)), rng.normal(shift, 1.0, size=(n, 5))
    gamma = median_gamma(reference)
    test = FeatureDiscrepancy(reference, kernel=Radial("gaussian", gamma), frequencies=64, permutations=draws, seed=9)
    statistic, p_value = test.run(window)
    placed = FourierFeatures(5, gamma=gamma, seed=9, frequencies=64).of(np.vstack((reference, window)))
    kernel = placed @ placed.T
    assert np.diag(kernel) == pytest.approx(np.ones(m + n), abs=1e-12)
    assert statistic == pytest.approx(_mmd2(kernel.copy(), m), abs=1e-12)
    labels, null = np.random.default_rng((9,)), []
    for _ in range(draws):
        chosen = labels.permutation(m + n)[:n]
        order = np.concatenate((np.setdiff1d(np.arange(m + n), chosen), chosen))
        null.append(_mmd2(kernel[np.ix_(order, order)], m))
    extreme = np.flatnonzero(np.array(null) >= statistic)
    expected = 20 / (extreme[19] + 1) if len(extreme) >= 20 else (len(extreme) + 1) / (draws + 1)
    assert p_value == expected
    assert (p_value < 0.05) == (shift > 0)


def test_the_features_err_from_the_kernel_by_no_more_than_chance_allows():
    """The statistic weighs kernels, by 4 in all: by Hoeffding, it is at most 4 * sqrt(2 ln(2/a) / F) off."""
    rng = np.random.default_rng(5)
    reference, window = rng.normal(size=(400, 4)), rng.normal(0.5, 1.0, size=(300, 4))
    kernel = Radial("gaussian", median_gamma(reference))
    exact, _ = Discrepancy(reference, kernel=kernel, permutations=19, seed=0).run(window)
    errors = {}
    for frequencies in (32, 2048):
        found = [
            FeatureDiscrepancy(reference, kernel=kernel, frequencies=frequencies, permutations=19, seed=seed).run(
                window
            )
            for seed in range(12)
        ]
        errors[frequencies] = np.array([statistic for statistic, _ in found]) - exact
        assert np.abs(errors[frequencies]).max() <= 4 * np.sqrt(2 * np.log(2 / 1e-6) / frequencies)
        assert np.abs(errors[frequencies].mean()) <= 4 * errors[frequencies].std(ddof=1) / np.sqrt(12)
    # Sixty-four times the frequencies, an eighth of the error; half of that is left to chance.
    assert errors[2048].std() < errors[32].std() / 4


def test_the_median_pair_has_a_kernel_of_one_e():
    points = np.random.default_rng(1).normal(size=(301, 3))
    kernel = rbf_kernel(points, gamma=median_gamma(points))[np.triu_indices(301, 1)]
    assert np.median(kernel) == pytest.approx(np.exp(-1))
    assert median_gamma(np.repeat(points[:2], [200, 1], axis=0)) < np.inf
    assert median_gamma(np.zeros((10, 3))) == 1.0


def test_the_density_difference_is_that_of_the_ridge_regression():
    rng = np.random.default_rng(2)
    reference, window = rng.normal(size=(500, 2)), rng.normal(0.4, 1.0, size=(90, 2))
    statistic, p_value = DensityDifference(reference, gamma=0.7, permutations=99, seed=0).run(window)
    centres = reference[:CENTRES]
    overlap = rbf_kernel(centres, gamma=0.35)
    means = [rbf_kernel(points, centres, gamma=0.7).mean(axis=0) for points in (reference[CENTRES:], window)]
    weights = np.linalg.solve(overlap + RIDGE * np.eye(CENTRES), means[0] - means[1])
    oracle = 2 * weights @ (means[0] - means[1]) - weights @ overlap @ weights
    assert statistic == pytest.approx(oracle, rel=1e-4)
    assert p_value < 0.05


@pytest.mark.parametrize("detector", DETECTORS)
def test_false_alarms_stay_nominal_on_real_people(acs, detector):
    """Windows of the reference's own people: alarms at 5 % or less, up to what chance explains."""
    rng = np.random.default_rng(7)
    alarms, splits = 0, 60
    for seed in range(splits // 10):
        order = rng.permutation(4000)
        fitted = detector(seed=seed, max_reference=400).fit(acs[2015].take(order[:2000]))
        for start in range(2000, 3000, 100):
            alarms += fitted.score(acs[2015].take(order[start : start + 100])).alarm
    assert alarms <= binom.ppf(0.999, splits, 0.05)


@pytest.mark.parametrize("detector", [*DETECTORS, ClassifierDrift])
def test_three_years_change_the_census_and_the_features_are_named(acs, detector):
    scores = detector(max_reference=1000).fit(acs[2015]).score(acs[2018].take(slice(0, 500)))
    assert scores.alarm
    assert scores.p_value < scores.threshold
    named = {one.feature for one in scores.features if one.is_drift}
    assert "RELP" in named
    assert "SEX" not in named


@pytest.mark.parametrize("detector", DETECTORS)
def test_what_goes_together_is_seen_and_no_feature_accused(detector):
    fitted = detector(explained=0.9) if detector is ReconstructionDrift else detector()
    fitted.fit(together(2000, 0.9, seed=1))
    assert not fitted.score(together(300, 0.9, seed=2)).alarm
    scores = fitted.score(together(300, 0.0, seed=3))
    assert scores.alarm
    assert not any(one.is_drift for one in scores.features)


@pytest.mark.parametrize("detector", [MMDDrift, RandomFeatureMMDDrift])
def test_a_window_like_no_reference_is_judged(make_table, detector):
    fitted = detector().fit(make_table(300, seed=1))
    window = make_table(50, seed=2)
    huge = dataclasses.replace(window, columns=(np.full(50, 1e300), *window.columns[1:]))
    scores = fitted.score(huge)
    assert scores.alarm
    assert np.isfinite(scores.statistic)


@pytest.mark.parametrize(
    ("detector", "params"),
    [
        (MMDDrift, {"permutations": 5}),
        (RandomFeatureMMDDrift, {"permutations": 5}),
        (RandomFeatureMMDDrift, {"frequencies": 8}),
        (ClassifierDrift, {"permutations": 5}),
        (LSDDDrift, {"p_val": 0.0}),
        (MMDDrift, {"max_reference": 10}),
        (ReconstructionDrift, {"explained": 1.0}),
    ],
)
def test_bad_parameters(detector, params):
    with pytest.raises(BadInput, match=f"{detector.method}: {next(iter(params))} is"):
        detector(**params)
