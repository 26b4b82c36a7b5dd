"""The native drift detectors: verdicts on made and on real tables, missing and unseen values, false alarms."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from scipy.stats import binom, chi2_contingency, ks_2samp

from detectors.drift.chi_squared import ChiSquaredDrift
from detectors.drift.cvm import CVMDrift
from detectors.drift.fet import FETDrift
from detectors.drift.ks import KSDrift
from detectors.drift.tabular import TabularDrift
from govern.detection import WindowScores
from govern.errors import BadInput
from govern.frame import MISSING, UNSEEN, Frame
from govern.record import FeatureResult


def by_name(scores: WindowScores) -> dict[str, FeatureResult]:
    return {one.label: one for one in scores.features}


def replaced(frame: Frame, name: str, column: np.ndarray) -> Frame:
    index = frame.schema.index(name)
    return dataclasses.replace(frame, columns=(*frame.columns[:index], column, *frame.columns[index + 1 :]))


def test_each_detector_looks_at_its_kinds(make_table):
    reference, window = make_table(500, seed=1), make_table(100, seed=2)
    assert list(by_name(KSDrift().fit(reference).score(window))) == ["x0", "x1", "x2"]
    assert list(by_name(ChiSquaredDrift().fit(reference).score(window))) == ["c0", "c1"]
    assert list(by_name(TabularDrift().fit(reference).score(window))) == ["x0", "x1", "x2", "c0", "c1"]
    assert list(by_name(CVMDrift().fit(reference).score(window))) == ["x0", "x1", "x2"]
    assert list(by_name(FETDrift().fit(reference).score(window))) == ["c0", "c1"]


def test_a_table_may_have_other_tests(make_table):
    reference, window = make_table(500, seed=1), make_table(100, seed=2)
    mixed = TabularDrift(numeric="cvm", categorical="fet").fit(reference).score(window)
    alone = [*CVMDrift().fit(reference).score(window).features, *FETDrift().fit(reference).score(window).features]
    assert [(one.label, one.p_value) for one in mixed.features] == [(one.label, one.p_value) for one in alone]
    with pytest.raises(BadInput, match="tabular: numeric is 'chi_squared': known are 'ks', 'cvm'"):
        TabularDrift(numeric="chi_squared")


def test_a_shift_is_found_and_named(make_table):
    detector = TabularDrift().fit(make_table(5000, seed=1))
    quiet = detector.score(make_table(500, seed=2))
    moved = detector.score(make_table(500, seed=2, shift=0.4))
    assert not quiet.alarm
    assert [one.feature for one in moved.features if one.is_drift] == ["x0"]
    assert moved.threshold == pytest.approx(0.05 / 12)  # five of values, five of missing, two of unseen


def test_agrees_with_scipy_on_real_data(acs):
    reference, window = acs[2015], acs[2018].take(slice(0, 1000))
    found = by_name(TabularDrift(tail="asymptotic").fit(reference).score(window))
    age = ks_2samp(reference["AGEP"], window["AGEP"], method="asymp")
    assert found["AGEP"].statistic == pytest.approx(age.statistic, abs=1e-12)
    assert found["AGEP"].p_value == pytest.approx(age.pvalue, abs=1e-9)
    for feature in reference.schema.features[1:]:
        k = len(feature.categories)
        table = np.stack([np.bincount(frame[feature.name], minlength=k) for frame in (reference, window)])
        oracle = chi2_contingency(table[:, table.sum(axis=0) > 0])
        assert found[feature.name].statistic == pytest.approx(oracle.statistic, rel=1e-10)
        assert found[feature.name].p_value == pytest.approx(oracle.pvalue, rel=1e-9)


def test_three_years_change_the_census(acs):
    scores = TabularDrift().fit(acs[2015]).score(acs[2018].take(slice(0, 1000)))
    found = by_name(scores)
    assert scores.alarm
    # The survey's answers on relationship were recoded between the years: the plainest change of the table.
    assert min(found.values(), key=lambda one: one.p_value).feature == "RELP"
    assert found["RELP"].p_value < 1e-30
    assert not found["SEX"].is_drift


@pytest.mark.parametrize("correction", ["bonferroni", "fdr"])
def test_false_alarms_stay_nominal(acs, correction):
    """Windows drawn like the reference, from the same people: alarms at 5 % or less, up to what chance explains."""
    rng = np.random.default_rng(7)
    alarms, splits = 0, 250
    for _ in range(splits):
        order = rng.permutation(4000)
        detector = TabularDrift(correction=correction).fit(acs[2015].take(order[:3000]))
        alarms += detector.score(acs[2015].take(order[3000:])).alarm
    assert alarms <= binom.ppf(0.999, splits, 0.05)


def test_false_alarms_of_one_test_are_nominal(make_table):
    """Continuous features, no correction: each test alarms at 5 %, neither more nor less than chance explains."""
    alarms, tests = 0, 0
    for seed in range(100):
        detector = KSDrift(correction="none").fit(make_table(1000, seed=2 * seed, numeric=10, categorical=0))
        scores = detector.score(make_table(200, seed=2 * seed + 1, numeric=10, categorical=0))
        alarms += sum(one.is_drift for one in scores.features)
        tests += len(scores.features)
    assert binom.ppf(0.001, tests, 0.05) <= alarms <= binom.ppf(0.999, tests, 0.05)


def test_an_unseen_category_is_drift(make_table):
    reference, window = make_table(2000, seed=1), make_table(300, seed=2)
    codes = window["c0"].copy()
    codes[:15] = UNSEEN
    detector = ChiSquaredDrift().fit(reference)
    assert not detector.score(window).alarm
    assert by_name(detector.score(replaced(window, "c0", codes)))["c0"].is_drift


def test_missing_categories_are_drift(make_table):
    reference, window = make_table(2000, seed=1), make_table(300, seed=2)
    codes = window["c1"].copy()
    codes[:15] = MISSING
    found = by_name(TabularDrift().fit(reference).score(replaced(window, "c1", codes)))
    assert found["c1"].is_drift
    assert found["c1"].n == 300


def test_a_missing_rate_is_a_signal_of_its_own(make_table):
    reference = make_table(3000, seed=1, missing=0.02, nullable=True)
    detector = TabularDrift().fit(reference)
    usual = detector.score(make_table(500, seed=2, missing=0.02, nullable=True))
    worse = by_name(detector.score(make_table(500, seed=2, missing=0.2, nullable=True)))
    assert not usual.alarm
    assert [one.label for one in usual.features if one.signal] == [f"x{i}:missing" for i in range(3)]
    assert worse["x0:missing"].is_drift
    assert not worse["x0"].is_drift
    assert worse["x0"].n < worse["x0:missing"].n == 500


def test_unseen_categories_are_a_signal_of_their_own(make_table):
    """Three rows of a table are nothing to chi-squared; that they hold what was never there is told all the same."""
    reference, window = make_table(5000, seed=1), make_table(300, seed=2)
    codes = window["c0"].copy()
    codes[:3] = UNSEEN
    for detector in (ChiSquaredDrift, FETDrift, TabularDrift):
        assert not any(one.signal for one in detector().fit(reference).score(window).features)
        strange = by_name(detector().fit(reference).score(replaced(window, "c0", codes)))["c0:unseen"]
        # Exact: 3 unseen rows of 5,300 all fall into the window of 300.
        assert strange.p_value == pytest.approx(math.comb(300, 3) / math.comb(5300, 3), rel=1e-9)
        assert (strange.feature, strange.signal, strange.statistic, strange.n) == ("c0", "unseen", 0.01, 300)
        assert strange.is_drift
    quiet = TabularDrift(signals=False).fit(reference).score(replaced(window, "c0", codes))
    assert quiet.threshold == 0.05 / 5
    assert not any(one.signal for one in quiet.features)


def test_a_feature_without_values_in_the_window(make_table):
    window = make_table(100, seed=2, nullable=True)
    blank = replaced(window, "x1", np.full(100, np.nan))
    found = by_name(TabularDrift().fit(make_table(500, seed=1, nullable=True)).score(blank))
    assert math.isnan(found["x1"].p_value)
    assert (found["x1"].is_drift, found["x1"].n) == (False, 0)
    assert found["x1:missing"].is_drift


@pytest.mark.parametrize("detector", [KSDrift, TabularDrift])
def test_a_feature_without_values_in_the_reference(make_table, detector):
    reference = make_table(100, seed=1)
    blank = replaced(reference, "x1", np.full(100, np.nan))
    with pytest.raises(BadInput, match="'x1' has 0 values in the reference: 100 of 100 are missing"):
        detector().fit(blank)


@pytest.mark.parametrize(("detector", "kinds"), [(KSDrift, (0, 2)), (ChiSquaredDrift, (2, 0))])
def test_nothing_to_judge(make_table, detector, kinds):
    numeric, categorical = kinds
    with pytest.raises(BadInput, match=r"has no (numeric|categorical) feature"):
        detector().fit(make_table(100, numeric=numeric, categorical=categorical))


@pytest.mark.parametrize("detector", [KSDrift, ChiSquaredDrift, TabularDrift, FETDrift])
@pytest.mark.parametrize("params", [{"p_val": 0.0}, {"p_val": 1.0}, {"p_val": math.nan}, {"correction": "sidak"}])
def test_bad_parameters(detector, params):
    with pytest.raises(BadInput, match=f"{detector.method}: {next(iter(params))} is"):
        detector(**params)


@pytest.mark.parametrize("detector", [KSDrift, TabularDrift])
def test_bad_tail(detector):
    with pytest.raises(BadInput, match="tail is 'fat'"):
        detector(tail="fat")


def test_the_exact_tail_survives_the_disk(make_table, tmp_path):
    reference, window = make_table(200, seed=1), make_table(60, seed=2)
    KSDrift(tail="exact", p_val=0.2, seed=5).fit(reference).save(tmp_path / "a")
    loaded = KSDrift.load(tmp_path / "a")
    assert (loaded.tail, loaded.p_val, loaded.seed) == ("exact", 0.2, 5)
    exact = ks_2samp(reference["x0"], window["x0"], method="exact").pvalue
    assert by_name(loaded.score(window))["x0"].p_value == pytest.approx(exact, abs=1e-12)
