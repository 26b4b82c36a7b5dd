"""The isolation forest against scikit-learn's, its oracle."""

from __future__ import annotations

import dataclasses
import importlib
import warnings

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score

from detectors.base import Fitted
from detectors.outlier.held_out import split
from detectors.outlier.isolation_forest import IsolationForestOutlier
from detectors.outlier.trees import Forest, average_path_length
from govern.errors import ArtifactError, BadInput
from govern.frame import MISSING, UNSEEN, Frame


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "options",
    [{}, {"max_samples": 2}, {"max_samples": 64, "n_estimators": 7}, {"max_features": 0.4}, {"bootstrap": True}],
)
def test_walk_agrees_with_scikit_learn(seed, options):
    rng = np.random.default_rng(seed)
    rows = np.round(rng.normal(size=(700, 6)), 1)
    rows[:, 5] = 3.0
    forest = IsolationForest(random_state=seed, **options).fit(rows)
    probes = np.vstack((rows, rng.normal(size=(300, 6)) * 4, np.full((1, 6), 1e30)))
    np.testing.assert_allclose(Forest.of(forest).scores(probes), -forest.score_samples(probes), rtol=0, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"max_samples": 2}, {"max_samples": 300, "n_estimators": 9}])
@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_rows_that_descend_together_end_where_each_does(options, count):
    """To the last bit, also where a value equals a threshold, which is a float64 that no float32 need be."""
    rng = np.random.default_rng(count)
    forest = Forest.of(IsolationForest(random_state=1, **options).fit(rng.normal(size=(400, 5))))
    probes = rng.normal(size=(count, 5)) * 2
    inner = np.flatnonzero(forest.feature >= 0)
    node = inner[count]
    probes[0, forest.feature[node]] = forest.threshold[node]
    totals = []
    for row in probes.astype(np.float32):
        total = 0.0
        for node in forest.roots.tolist():
            while (column := forest.feature[node]) >= 0:
                node = forest.left[node] if float(row[column]) <= forest.threshold[node] else forest.right[node]
            total += forest.length[node]
        totals.append(total)
    assert forest.scores(probes).tolist() == (2.0 ** (-np.array(totals) / forest.normaliser)).tolist()


def test_an_artifact_whose_trees_are_none_is_refused(make_table):
    detector = IsolationForestOutlier(n_estimators=3).fit(make_table(400, seed=1))
    for name, change in (("left", 1), ("right", 10**6), ("roots", 2)):
        arrays = detector._state.arrays()
        arrays[name] = arrays[name] + np.array(change, dtype=np.int32)
        changed = Fitted.of(
            make_table(400, seed=1),
            method="isolation_forest",
            state_version=1,
            params={},
            arrays=arrays,
            extra={"threshold": 0.5, "normaliser": 1.0},
        )
        with pytest.raises(ArtifactError, match="holds no state that it can read"):
            IsolationForestOutlier()._restore(changed)


def test_shortened_paths_are_those_of_the_score_and_near_to_shapley_values():
    """What the cuts of all columns shorten is the score itself; by column, it goes as exact Shapley values do."""
    rows = load_breast_cancer().data
    grown = IsolationForest(random_state=0).fit(rows[:300])
    forest = Forest.of(grown)
    strange = rows[np.argsort(-forest.scores(rows))[:100]]
    parts = forest.parts(strange)
    paths = -np.log2(forest.scores(strange)) * forest.normaliser
    np.testing.assert_allclose(parts.sum(axis=1), forest.length[forest.roots].sum() - paths, rtol=1e-9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what shap draws with
        shap = importlib.import_module("shap")
    shapley = -shap.TreeExplainer(grown).shap_values(strange)
    assert np.mean([np.corrcoef(one, other)[0, 1] for one, other in zip(parts, shapley, strict=True)]) > 0.95
    assert (parts.argmax(axis=1) == shapley.argmax(axis=1)).mean() > 0.7


def test_the_strange_number_has_the_largest_share(make_table):
    fitted = IsolationForestOutlier(contamination=0.1).fit(make_table(1500, seed=1))
    window = make_table(1500, seed=2)
    columns = list(window.columns)
    columns[1] = np.where(np.arange(1500) < 50, 9.0, columns[1])
    scores = fitted.score(dataclasses.replace(window, columns=tuple(columns)))
    assert scores.flagged[:50].sum() > 40
    assert (scores.shares.argmax(axis=1)[:50][scores.flagged[:50]] == 1).mean() > 0.9
    np.testing.assert_allclose(scores.shares.sum(axis=1), scores.flagged, atol=1e-12)
    # A row's shares are its own, also where rows are followed in several parts.
    alone = fitted.score(dataclasses.replace(window, columns=tuple(c[:1] for c in columns)))
    assert alone.shares.tobytes() == scores.shares[:1].tobytes()


@pytest.mark.parametrize("seed", range(3))
def test_detector_agrees_with_scikit_learn_on_real_data(acs, seed):
    reference, window = acs[2015], acs[2018]
    detector = IsolationForestOutlier(seed=seed).fit(reference)
    learned, _ = split(len(reference), seed)
    oracle = IsolationForest(random_state=seed).fit(reference.take(learned).matrix())
    np.testing.assert_allclose(
        detector.score(window).scores, -oracle.score_samples(window.matrix()), rtol=0, atol=1e-12
    )


def test_average_path_length_of_small_trees():
    assert average_path_length(np.array([0, 1, 2])).tolist() == [0.0, 0.0, 1.0]
    assert average_path_length(np.array([3]))[0] == pytest.approx(1.2073923, abs=1e-6)


def test_strange_rows_are_flagged(make_table):
    detector = IsolationForestOutlier().fit(make_table(3000, seed=1))
    plain, strange = make_table(500, seed=2), make_table(500, seed=3)
    strange = dataclasses.replace(
        strange, columns=tuple(c * 4 if c.dtype == np.float64 else c for c in strange.columns)
    )
    scores = np.concatenate((detector.score(plain).scores, detector.score(strange).scores))
    assert roc_auc_score(np.repeat([0, 1], 500), scores) > 0.9
    assert detector.score(strange).flagged.mean() > 10 * detector.score(plain).flagged.mean()


def _holed(frame: Frame) -> Frame:
    first = frame.columns[0].copy()
    first[:] = np.nan
    codes = frame.columns[-1].copy()
    codes[:] = MISSING
    return dataclasses.replace(frame, columns=(first, *frame.columns[1:-1], codes))


def test_a_missing_value_counts_as_the_typical_one(make_table):
    reference, window = make_table(1000, seed=1), make_table(50, seed=2)
    detector = IsolationForestOutlier().fit(reference)
    learned = reference.take(split(len(reference), 0)[0])
    typical = dataclasses.replace(
        window,
        columns=(
            np.full(50, np.median(learned["x0"])),
            *window.columns[1:-1],
            np.full(50, np.bincount(learned["c1"]).argmax(), dtype=np.int32),
        ),
    )
    assert detector.score(_holed(window)).scores.tolist() == detector.score(typical).scores.tolist()


def test_an_unseen_category_is_stranger_than_a_seen_one(make_table):
    reference, window = make_table(1000, seed=1), make_table(200, seed=2)
    unseen = dataclasses.replace(window, columns=(*window.columns[:-1], np.full(200, UNSEEN, dtype=np.int32)))
    detector = IsolationForestOutlier().fit(reference)
    assert detector.score(unseen).scores.mean() > detector.score(window).scores.mean()


def test_numbers_beyond_float32_are_scored(make_table):
    reference, window = make_table(500, seed=1), make_table(3, seed=2)
    huge = dataclasses.replace(window, columns=(np.array([1e300, -1e300, np.inf]), *window.columns[1:]))
    assert np.isfinite(IsolationForestOutlier().fit(reference).score(huge).scores).all()


def test_a_feature_without_values_in_the_reference(make_table):
    with pytest.raises(BadInput, match="'x0' has no value in the reference: all 70 are missing"):
        IsolationForestOutlier(contamination=0.1).fit(_holed(make_table(100)))


@pytest.mark.parametrize("params", [{"contamination": 0.0}, {"n_estimators": 0}, {"max_samples": 1}])
def test_bad_parameters(params):
    with pytest.raises(BadInput, match=f"isolation_forest: {next(iter(params))} is"):
        IsolationForestOutlier(**params)
