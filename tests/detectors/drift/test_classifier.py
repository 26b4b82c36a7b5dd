"""The classifier two-sample test: its statistic by training anew, its null, and the features that it names."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score

from detectors.drift.classifier import ClassifierDrift
from detectors.drift.separation import FOLDS, Separation, areas, relabelled
from tests.detectors.drift.test_joint import together


@pytest.fixture(scope="module")
def separation() -> Separation:
    reference = np.random.default_rng(1).normal(size=(150, 3))
    return Separation(reference, gamma=0.2, permutations=199, seed=5)


def test_the_area_is_that_of_ridge_regressions_trained_anew(separation):
    """For the true labels and for random ones: the shortcut is no approximation."""
    folds, labels, _ = separation._folds(np.random.default_rng(2).normal(0.3, 1.0, size=(60, 3)))
    tried = np.column_stack((labels, relabelled(folds, labels, np.random.default_rng(3), 3)))
    phi = np.empty((len(labels), folds[0].phi.shape[1]))
    for fold in folds:
        phi[fold.rows] = fold.phi
    told = areas(folds, [fold.phi for fold in folds], tried)
    for column, area in zip(tried.T, told, strict=True):
        oracle = []
        for fold in folds:
            others = np.setdiff1d(np.arange(len(labels)), fold.rows)
            ridge = Ridge(alpha=10.0 * phi.shape[1], fit_intercept=False)
            ridge.fit(phi[others], column[others] - labels.mean())
            oracle.append(roc_auc_score(column[fold.rows], ridge.predict(fold.phi)))
        assert area == pytest.approx(np.mean(oracle), abs=1e-12)


def test_no_row_is_judged_by_what_it_taught(separation):
    folds, labels, _ = separation._folds(np.zeros((20, 3)))
    assert len(folds) == FOLDS
    assert sorted(np.concatenate([fold.rows for fold in folds])) == list(range(len(labels)))
    assert all(labels[fold.rows].any() and not labels[fold.rows].all() for fold in folds)


def test_p_values_are_uniform_where_nothing_drifted(separation):
    """Of the smallest windows, too: a held-out prediction says no more than chance allows."""
    rng = np.random.default_rng(4)
    reference = rng.normal(size=(100, 3))
    p_values = []
    for _ in range(60):
        test = Separation(reference, gamma=0.2, permutations=99, seed=int(rng.integers(2**31)))
        p_values.append(test.run(rng.normal(size=(20, 3)))[1])
        reference = rng.normal(size=(100, 3))
    for level in (0.05, 0.2, 0.5):
        assert sum(p <= level for p in p_values) <= binom.ppf(0.999, len(p_values), level)
    assert min(p_values) < 0.1


def test_features_that_no_longer_go_together_are_named():
    """Neither shows it alone, so that no test of single features could name them."""
    fitted = ClassifierDrift().fit(together(2000, 0.9, seed=1))
    assert not fitted.score(together(300, 0.9, seed=2)).alarm
    scores = fitted.score(together(300, 0.0, seed=3))
    assert scores.alarm
    assert [one.feature for one in scores.features if one.is_drift] == ["x0", "x1"]
    assert all(one.statistic > 0.1 for one in scores.features if one.is_drift)


def test_a_row_beyond_all_others_is_judged():
    fitted = ClassifierDrift().fit(together(400, 0.0, seed=1))
    window = together(50, 0.0, seed=2)
    window.columns[0][:] = 1e300
    scores = fitted.score(window)
    assert scores.alarm
    assert scores.statistic == 1.0
