"""alibi-detect as the oracle of the native detectors, over many seeds and on the census."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detectors import artifacts
from detectors import power as measure
from detectors.alibi.catalogue import SPECS
from detectors.fit import stated_threshold
from detectors.outlier.held_out import split
from govern import plugins
from govern.detection import WindowScores, stated_contamination
from govern.errors import ArtifactError, BadInput
from govern.frame import MISSING, UNSEEN, Frame

pytestmark = [
    pytest.mark.alibi,
    pytest.mark.skipif(importlib.util.find_spec("alibi_detect") is None, reason="the extra [alibi] is not installed"),
]

PAIRS = [("ks", "KSDrift"), ("chi_squared", "ChiSquareDrift"), ("tabular", "TabularDrift")]
SEEDS = range(40)


#: What alibi-detect does: no test of what is missing or unseen, and chi-squared's tail however few are expected.
ALIKE = {"signals": False, "tail": "asymptotic"}


def detectors(native: str, borrowed: str, **params: object):
    own = {} if native == "isolation_forest" else ALIKE
    return (
        plugins.load(plugins.DETECTORS, native)(**params, **own),
        plugins.load(plugins.DETECTORS, f"alibi_detect.{borrowed}")(**params),
    )


def assert_agree(ours: WindowScores, theirs: WindowScores) -> None:
    """Same features, statistic and p-value to 1e-6 (alibi-detect keeps float32), same verdicts."""
    assert [one.feature for one in ours.features] == [one.feature for one in theirs.features]
    for name in ("statistic", "p_value"):
        np.testing.assert_allclose(
            [getattr(one, name) for one in ours.features],
            [getattr(one, name) for one in theirs.features],
            rtol=1e-6,
            atol=1e-6,
        )
    assert [one.is_drift for one in ours.features] == [one.is_drift for one in theirs.features]
    assert (ours.alarm, ours.correction) == (theirs.alarm, theirs.correction)
    assert ours.threshold == pytest.approx(theirs.threshold, rel=1e-9)


@pytest.mark.parametrize("correction", ["bonferroni", "fdr"])
@pytest.mark.parametrize(("native", "borrowed"), PAIRS)
def test_same_verdict_on_all_seeds(make_table, native, borrowed, correction):
    alarms = set()
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        size, least = int(rng.integers(30, 1500)), int(rng.integers(20, 600))
        ours, theirs = detectors(native, borrowed, correction=correction, p_val=float(rng.uniform(0.01, 0.3)))
        reference = make_table(size, seed=2 * seed)
        window = make_table(least, seed=2 * seed + 1, shift=float(rng.choice([0.0, 0.15, 0.5])))
        found = ours.fit(reference).score(window)
        assert_agree(found, theirs.fit(reference).score(window))
        alarms.add(found.alarm)
    assert alarms == {True, False}


@pytest.mark.parametrize("correction", ["bonferroni", "fdr"])
@pytest.mark.parametrize(("native", "borrowed"), PAIRS)
@pytest.mark.parametrize("year", [2015, 2018])
def test_same_verdict_on_the_census(acs, native, borrowed, correction, year):
    ours, theirs = detectors(native, borrowed, correction=correction)
    reference = acs[2015].take(slice(0, 3000))
    ours.fit(reference)
    theirs.fit(reference)
    for start in range(3000, 4000, 250):
        window = acs[year].take(slice(start, start + 250))
        assert_agree(ours.score(window), theirs.score(window))


def test_same_verdict_with_missing_and_unseen_categories(make_table):
    ours, theirs = detectors("tabular", "TabularDrift")
    reference, window = make_table(900, seed=1), make_table(200, seed=2)
    codes = window["c0"].copy()
    codes[::5], codes[1::7] = MISSING, UNSEEN
    window = dataclasses.replace(window, columns=(*window.columns[:3], codes, window.columns[4]))
    assert_agree(ours.fit(reference).score(window), theirs.fit(reference).score(window))


def test_missing_numbers_are_refused(make_table):
    _, theirs = detectors("tabular", "TabularDrift")
    theirs.fit(make_table(200, seed=1))
    with pytest.raises(BadInput, match=r"feature 'x\d' is missing in row \d+"):
        theirs.score(make_table(100, seed=2, missing=0.2))


def test_no_uncorrected_verdicts():
    with pytest.raises(BadInput, match='alibi-detect knows "bonferroni" and "fdr"'):
        detectors("ks", "KSDrift", correction="none")


@pytest.mark.parametrize("seed", range(5))
def test_isolation_forests_agree(acs, seed):
    """alibi-detect's score is scikit-learn's, moved by one half; the native threshold is one of held-out rows."""
    ours, theirs = detectors("isolation_forest", "IForest", contamination=0.05, seed=seed)
    ours.fit(acs[2015])
    learned, _ = split(len(acs[2015]), seed)
    theirs.fit(acs[2015].take(learned))
    found, oracle = ours.score(acs[2018]), theirs.score(acs[2018])
    np.testing.assert_allclose(found.scores, oracle.scores + 0.5, rtol=0, atol=1e-12)
    assert abs(found.threshold - oracle.threshold - 0.5) < 0.02


def test_another_forest_is_noticed(make_table, tmp_path):
    detector = plugins.load(plugins.DETECTORS, "alibi_detect.IForest")().fit(make_table(200, seed=1))
    detector.save(tmp_path / "a")
    manifest = tmp_path / "a" / "artifact.json"
    manifest.write_text(manifest.read_text().replace('"seed": 0', '"seed": 1'))
    changed = type(detector).load(tmp_path / "a")
    with pytest.raises(ArtifactError, match="the IForest made from its reference is another one"):
        changed.score(make_table(10, seed=2))


def borrowed_scores(detector: str, reference: np.ndarray, window: np.ndarray, **params: object):
    """What a detector of alibi-detect that has no adapter says: statistics, p-values, verdict."""
    cd = importlib.import_module("alibi_detect.cd")
    found = getattr(cd, detector)(reference, **params).predict(window)["data"]
    return found["distance"], found["p_val"], bool(found["is_drift"])


@pytest.mark.parametrize("correction", ["bonferroni", "fdr"])
def test_cramer_von_mises_agrees(make_table, correction):
    alarms = set()
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        reference = make_table(int(rng.integers(20, 1500)), seed=2 * seed, categorical=0)
        window = make_table(int(rng.integers(20, 600)), seed=2 * seed + 1, categorical=0, shift=seed % 3 * 0.2)
        frames = [frame.matrix() for frame in (reference, window)]
        ours = plugins.load(plugins.DETECTORS, "cvm")(correction=correction, signals=False).fit(reference).score(window)
        statistics, p_values, alarm = borrowed_scores("CVMDrift", *frames, p_val=0.05, correction=correction)
        np.testing.assert_allclose([one.statistic for one in ours.features], statistics, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose([one.p_value for one in ours.features], p_values, rtol=1e-6, atol=1e-6)
        assert ours.alarm == alarm
        alarms.add(alarm)
    assert alarms == {True, False}


@pytest.mark.parametrize("correction", ["bonferroni", "fdr"])
def test_fishers_test_agrees(make_table, correction):
    alarms = set()
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        shape = {"numeric": 0, "categorical": 3, "categories": 2}
        reference = make_table(int(rng.integers(20, 1500)), seed=2 * seed, **shape)
        window = make_table(int(rng.integers(20, 600)), seed=2 * seed + 1, **shape)
        if seed % 3 == 0:
            window = dataclasses.replace(window, columns=(1 - window.columns[0], *window.columns[1:]))
        frames = [frame.matrix().astype(int) for frame in (reference, window)]
        ours = plugins.load(plugins.DETECTORS, "fet")(correction=correction, signals=False).fit(reference).score(window)
        statistics, p_values, alarm = borrowed_scores(
            "FETDrift", *frames, p_val=0.05, correction=correction, alternative="two-sided"
        )
        np.testing.assert_allclose([one.statistic for one in ours.features], statistics, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose([one.p_value for one in ours.features], p_values, rtol=1e-6, atol=1e-6)
        assert ours.alarm == alarm
        alarms.add(alarm)
    assert alarms == {True, False}


def fitted(name: str, reference: Frame, tmp_path: Path, **params: object) -> Any:
    """By name, as it comes back from its artifact."""
    plugins.load(plugins.DETECTORS, f"alibi_detect.{name}")(**params).fit(reference).save(tmp_path / name)
    return artifacts.load(tmp_path / name)


def test_fishers_test_by_name_takes_columns_of_two_values(make_table, tmp_path):
    cd = importlib.import_module("alibi_detect.cd")
    reference, window = (make_table(rows, seed=rows, numeric=1, categories=2) for rows in (300, 80))
    detector = fitted("FETDrift", reference, tmp_path, alternative="greater")
    rows = [np.column_stack([frame["c0"], frame["c1"]]) for frame in (reference, window)]
    said = cd.FETDrift(rows[0], alternative="greater").predict(rows[1])["data"]
    found = detector.score(window)
    assert [one.feature for one in found.features] == ["c0", "c1"]
    np.testing.assert_allclose([one.p_value for one in found.features], said["p_val"], rtol=0, atol=1e-6)
    with pytest.raises(BadInput, match="a column of two values"):
        fitted("FETDrift", make_table(100), tmp_path)


@pytest.mark.parametrize("model", ["logistic_regression", "random_forest"])
def test_a_classifier_by_name(make_table, tmp_path, model):
    detector = fitted("ClassifierDrift", make_table(200, seed=1), tmp_path, model=model, n_folds=2)
    quiet, moved = (detector.score(make_table(100, seed=2, shift=shift)) for shift in (0.0, 2.0))
    assert (quiet.alarm, moved.alarm) == (False, True)
    assert moved.p_value < moved.threshold == 0.05 < quiet.p_value
    assert detector.score(make_table(100, seed=2)) == quiet


@pytest.mark.parametrize("name", ["CVMDriftOnline", "FETDriftOnline"])
def test_online_detectors_by_name_simulate_their_thresholds_once(make_table, tmp_path, name):
    cd = importlib.import_module("alibi_detect.cd")
    shape = {"numeric": 2, "categorical": 0} if name == "CVMDriftOnline" else {"numeric": 0, "categories": 2}
    reference = make_table(60, seed=1, **shape)
    detector = fitted(name, reference, tmp_path, ert=50, window_size=10, n_bootstraps=200, seed=5)
    np.random.seed(5)
    directly = getattr(cd, name)(reference.matrix(), ert=50, window_sizes=[10], n_bootstraps=200, verbose=False)
    again = artifacts.load(tmp_path / name)
    # At its first row it states none.
    assert np.isnan(detector.score(reference.take(slice(0, 1))).threshold)
    assert np.isfinite(stated_threshold(detector, reference))
    memory = detector.start()
    for seed in range(3):
        window = make_table(20, seed=10 + seed, **shape)
        found, memory = (detector, again)[seed % 2].advance(memory, window, np.zeros(20, dtype=np.int64))
        told = [directly.predict(row)["data"] for row in window.matrix()]
        last = next((one for one in told if one["is_drift"]), told[-1])
        if name == "CVMDriftOnline":  # where statistic and threshold are equal, Fisher's throws a die
            assert found.alarm == any(one["is_drift"] for one in told)
            assert found.alarm_row == next((row for row, one in enumerate(told) if one["is_drift"]), -1)
            np.testing.assert_allclose([one.statistic for one in found.features], last["test_stat"][0], atol=1e-6)
            np.testing.assert_allclose([one.threshold for one in found.features], last["threshold"][0], atol=1e-6)
        for column, one in enumerate(found.features):
            simulated = directly.thresholds[:, column % directly.thresholds.shape[1]]
            assert np.isclose(simulated, one.threshold, rtol=0, atol=1e-6).any()


def test_mahalanobis_by_name_learns_on(make_table, tmp_path):
    od = importlib.import_module("alibi_detect.od")
    reference = make_table(200, seed=1, categorical=0)
    detector = fitted("Mahalanobis", reference, tmp_path, n_components=2)
    directly = od.Mahalanobis(n_components=2)
    directly.infer_threshold(reference.matrix(), threshold_perc=99.0)
    memory = detector.start()
    for seed in range(3):
        window = make_table(50, seed=10 + seed, categorical=0, shift=2.0)
        found, memory = detector.advance(memory, window, np.zeros(50, dtype=np.int64))
        said = directly.predict(window.matrix())["data"]
        np.testing.assert_allclose(found.scores, said["instance_score"], rtol=1e-6, atol=1e-6)
        assert found.flagged.tolist() == said["is_outlier"].astype(bool).tolist()


def test_spectral_residual_by_name(make_table, tmp_path):
    od = importlib.import_module("alibi_detect.od")
    shape = {"numeric": 1, "categorical": 0}
    reference, window = make_table(200, seed=1, **shape), make_table(80, seed=2, **shape)
    window["x0"][40] += 12.0
    detector = fitted("SpectralResidual", reference, tmp_path)
    directly = od.SpectralResidual(window_amp=20, window_local=20, n_est_points=10)
    directly.infer_threshold(reference["x0"], threshold_perc=99.0)
    found, said = detector.score(window), directly.predict(window["x0"])["data"]
    np.testing.assert_allclose(found.scores, said["instance_score"], rtol=1e-6, atol=1e-6)
    assert found.flagged.tolist() == said["is_outlier"].astype(bool).tolist()
    assert found.flagged[40]
    with pytest.raises(BadInput, match="one numeric column"):
        fitted("SpectralResidual", make_table(100), tmp_path)


def test_parameters_that_it_has_not():
    with pytest.raises(TypeError, match="unexpected keyword argument 'window_size'"):
        plugins.load(plugins.DETECTORS, "alibi_detect.KSDrift")(window_size=3)
    with pytest.raises(BadInput, match='alibi-detect knows "greater" and "less" and "two-sided"'):
        plugins.load(plugins.DETECTORS, "alibi_detect.FETDrift")(alternative="upwards")


def test_what_alibi_detect_refuses_is_said(make_table):
    detector = plugins.load(plugins.DETECTORS, "alibi_detect.FETDriftOnline")(window_size=5, n_bootstraps=10)
    reference = make_table(60, numeric=0, categories=2)
    same = dataclasses.replace(reference, columns=tuple(np.zeros(60, dtype=np.int32) for _ in range(2)))
    with pytest.raises(BadInput, match="FETDriftOnline refuses the reference: ValueError"):
        detector.fit(same)


def test_every_name_is_in_the_catalogue():
    named = [name for name in plugins.names(plugins.DETECTORS) if name.startswith("alibi_detect.")]
    assert sorted(f"alibi_detect.{name}" for name in SPECS) == [one for one in named if ".saved_" not in one]
    for name in SPECS:
        assert plugins.load(plugins.DETECTORS, f"alibi_detect.{name}").method == f"alibi_detect.{name}"


@pytest.mark.parametrize("name", ["IForest", "SpectralResidual"])
def test_outlier_detectors_state_the_contamination_that_they_were_fitted_to(make_table, tmp_path, name):
    """As they come back from their artifacts; and no more of the reference is flagged."""
    alone = {"numeric": 1, "categorical": 0} if name == "SpectralResidual" else {}
    reference = make_table(300, seed=1, **alone)
    detector = fitted(name, reference, tmp_path, contamination=0.07)
    assert stated_contamination(detector) == 0.07
    assert 0.05 < detector.score(reference).flagged.mean() <= 0.07


def test_drift_detectors_state_no_contamination(make_table, tmp_path):
    assert stated_contamination(fitted("KSDrift", make_table(100, seed=1), tmp_path)) is None


def test_power_is_measured_coarsely_and_in_bounded_time(make_table, tmp_path, monkeypatch):
    reference = make_table(600, numeric=1, categorical=0, seed=1)
    plugins.load(plugins.DETECTORS, "alibi_detect.KSDrift")().fit(reference).save(tmp_path / "a")
    found = measure.power(tmp_path / "a", reference, [40])
    assert (found.trials, found.sized[0].trials) == (measure.TRIALS_APART, measure.TRIALS_APART)
    assert found.sized[0].curves[0].least is not None
    monkeypatch.setattr(measure, "APART_S", 0.0)
    late = measure.power(tmp_path / "a", reference, [40])
    assert "more than 0 s" in late.sized[0].why_not
