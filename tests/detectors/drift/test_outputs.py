"""The detectors of a model's outputs: tests by their definitions, drift of answers, labels and certainty."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.stats import binom, chi2_contingency, entropy, ks_2samp

from detectors.drift.outputs import output_of
from detectors.drift.prediction import PredictionDrift
from detectors.drift.uncertainty import UncertaintyDrift
from govern.errors import BadInput
from govern.frame import Frame
from govern.schema import FORMAT_VERSION, Feature, FeatureSchema

SCHEMA = FeatureSchema(format_version=FORMAT_VERSION, model="made", features=(Feature(name="x", kind="numeric"),))


def answered(values: np.ndarray) -> Frame:
    """Rows that nothing is known of but what the model answered: (n, k), or (n,)."""
    values = np.asarray(values, dtype=np.float64).reshape(len(values), -1)
    return Frame(SCHEMA, (np.zeros(len(values)),), outputs={"answer": values})


def probabilities(rows: int, alpha: list[float], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(alpha, rows)


def test_probabilities_are_tested_class_by_class():
    before, now = probabilities(400, [2, 2, 2], 1), probabilities(150, [2, 2, 5], 2)
    scores = PredictionDrift(output="answer").fit(answered(before)).score(answered(now))
    assert scores.alarm
    assert [one.feature for one in scores.features] == ["answer[0]", "answer[1]", "answer[2]"]
    for place, one in enumerate(scores.features):
        oracle = ks_2samp(before[:, place], now[:, place], method="asymp")
        assert one.statistic == pytest.approx(oracle.statistic, abs=1e-12)
        assert one.p_value == pytest.approx(oracle.pvalue, abs=1e-3)


def test_two_classes_are_one_test():
    before, now = probabilities(400, [2, 3], 1), probabilities(100, [2, 3], 2)
    two = PredictionDrift(output="answer").fit(answered(before)).score(answered(now))
    one = PredictionDrift(output="answer").fit(answered(before[:, 1])).score(answered(now[:, 1]))
    assert [result.feature for result in two.features] == ["answer[1]"]
    assert (two.features[0].p_value, two.threshold) == (one.features[0].p_value, one.threshold)


def test_classes_are_tested_by_their_counts():
    rng = np.random.default_rng(3)
    before, now = rng.choice(3, 500, p=[0.5, 0.3, 0.2]), rng.choice(3, 200, p=[0.3, 0.3, 0.4])
    scores = PredictionDrift(output="answer").fit(answered(before)).score(answered(now))
    (found,) = (one for one in scores.features if not one.signal)
    oracle = chi2_contingency([np.bincount(before), np.bincount(now)])
    assert found.statistic == pytest.approx(oracle.statistic)
    assert found.p_value == pytest.approx(oracle.pvalue, rel=0.5)
    assert scores.alarm


def test_a_class_that_the_reference_never_had_is_a_signal():
    before = np.random.default_rng(3).choice(2, 500)
    fitted = PredictionDrift(output="answer").fit(answered(before))
    scores = fitted.score(answered(np.where(np.arange(100) < 20, 7.0, before[:100])))
    assert "unseen" in {one.signal for one in scores.features if one.is_drift}
    assert not fitted.score(answered(before[100:200])).alarm


@pytest.mark.parametrize(
    ("values", "statistic"), [(np.arange(200) % 4, "chi2"), (np.arange(200), "ks"), (np.arange(200) / 7, "ks")]
)
def test_whole_numbers_of_few_values_are_classes(values, statistic):
    scores = PredictionDrift(output="answer").fit(answered(values)).score(answered(values[::2]))
    assert scores.features[0].statistic_name == statistic
    as_numbers = PredictionDrift(output="answer", answers="numbers").fit(answered(values)).score(answered(values[::2]))
    assert as_numbers.features[0].statistic_name == "ks"


def test_answers_and_labels_of_three_years_later(acs):
    """Labels of the census are an output of its table: a test of them is one of label drift."""
    for output in ("predict_proba", "employed"):
        fitted = PredictionDrift(output=output).fit(acs[2015].take(slice(0, 3000)))
        labels = acs[2015].outputs[output][3000:]
        assert not fitted.score(acs[2015].take(slice(3000, 4000))).alarm
        lazy = np.flatnonzero(labels[:, 0] < 0.5)[:300] + 3000
        assert fitted.score(acs[2015].take(lazy)).alarm


@pytest.mark.parametrize(
    "detector", [PredictionDrift(), PredictionDrift(output="employed"), UncertaintyDrift(measure="margin")]
)
def test_false_alarms_stay_nominal_on_real_people(acs, detector):
    rng = np.random.default_rng(11)
    alarms = 0
    for _ in range(100):
        order = rng.permutation(4000)
        detector.fit(acs[2015].take(order[:1000]))
        alarms += detector.score(acs[2015].take(order[1000:1050])).alarm
    assert alarms <= binom.ppf(0.999, 100, 0.05)


@pytest.mark.parametrize("measure", ["entropy", "margin"])
def test_uncertainty_is_that_of_the_probabilities(measure):
    before, now = probabilities(400, [9, 2, 1], 1), probabilities(150, [3, 2, 2], 2)
    scores = UncertaintyDrift(output="answer", measure=measure).fit(answered(before)).score(answered(now))

    def uncertainty(values: np.ndarray) -> np.ndarray:
        if measure == "entropy":
            return entropy(values, axis=1)
        return np.array([sorted(row)[-1] - sorted(row)[-2] for row in values.tolist()])

    oracle = ks_2samp(uncertainty(before), uncertainty(now), method="asymp")
    assert [one.feature for one in scores.features] == [f"answer:{measure}"]
    assert scores.features[0].statistic == pytest.approx(oracle.statistic, abs=1e-12)
    assert scores.alarm


def test_the_probability_of_the_second_class_is_enough():
    before, now = probabilities(300, [4, 1], 1), probabilities(100, [2, 2], 2)
    two = UncertaintyDrift(output="answer").fit(answered(before)).score(answered(now))
    one = UncertaintyDrift(output="answer").fit(answered(before[:, 1])).score(answered(now[:, 1]))
    assert two.features[0].statistic == pytest.approx(one.features[0].statistic, abs=1e-9)


def test_an_ensemble_that_comes_to_disagree():
    """Its mean answer is as before: no test of the answers shows it."""
    rng = np.random.default_rng(5)
    before, same, torn = (rng.normal(0.0, spread, size=(200, 8)) for spread in (1.0, 1.0, 1.6))
    fitted = UncertaintyDrift(output="answer", measure="spread").fit(answered(before))
    assert not fitted.score(answered(same)).alarm
    assert fitted.score(answered(torn)).alarm


def test_what_is_not_finite_is_missing():
    values = np.array([[0.0], [np.inf], [np.nan], [1.0]])
    assert np.isnan(output_of(answered(values), "answer", method="any")[1:3]).all()
    before = np.random.default_rng(1).normal(size=300)
    now = before[:100].copy()
    now[:30] = np.inf
    scores = PredictionDrift(output="answer").fit(answered(before)).score(answered(now))
    assert {one.signal for one in scores.features if one.is_drift} == {"missing"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PredictionDrift(answers="words"), "answers is 'words'"),
        (lambda: UncertaintyDrift(measure="doubt"), "measure is 'doubt'"),
        (lambda: UncertaintyDrift(p_val=2.0), "p_val is"),
        (lambda: UncertaintyDrift(output="answer").fit(answered(np.arange(50))), "holds no probabilities"),
        (
            lambda: UncertaintyDrift(output="answer", measure="spread").fit(answered(np.arange(50))),
            "has one value a row",
        ),
        (
            lambda: PredictionDrift(output="answer").fit(answered(np.ones((50, 3)))).score(answered(np.ones((50, 2)))),
            "has 2 values a row",
        ),
    ],
)
def test_refusals(make, message):
    with pytest.raises(BadInput, match=message):
        make()


def test_another_frames_outputs_are_not_looked_at():
    frame = answered(np.arange(50) % 2)
    bare = dataclasses.replace(frame, outputs={"other": frame.outputs["answer"]})
    with pytest.raises(BadInput, match=r"no output 'answer'"):
        PredictionDrift(output="answer").fit(bare)
