"""Drift from sketches: what `ks` and `chi_squared` find in rows, at most as often."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, chi2_contingency, ks_2samp
from sklearn.datasets import load_digits

from detectors.base import Fitted
from detectors.drift.binned import BinnedKolmogorovSmirnov
from detectors.drift.detector import UnivariateDrift
from detectors.drift.feature_test import Settings
from detectors.drift.ks import KSDrift
from detectors.drift.sketched import SketchedDrift
from detectors.drift.tabular import TabularDrift
from govern.detection import WindowScores
from govern.errors import ArtifactError, BadInput
from govern.frame import MISSING, UNSEEN, Frame
from govern.record import FeatureResult
from govern.schema import FORMAT_VERSION, Feature, FeatureSchema
from tests.detectors.drift.test_detectors import by_name, replaced


def table(columns: npt.NDArray[np.float64]) -> Frame:
    features = tuple(Feature(name=f"f{i}", kind="numeric", nullable=True) for i in range(columns.shape[1]))
    schema = FeatureSchema(format_version=FORMAT_VERSION, model="numbers", features=features)
    return Frame(schema=schema, columns=tuple(np.ascontiguousarray(column) for column in columns.T))


def told(scores: WindowScores) -> dict[str, tuple[float, float, int, bool]]:
    return {one.label: (one.statistic, one.p_value, one.n, one.is_drift) for one in scores.features}


def probabilities(frame: Frame) -> npt.NDArray[np.float64]:
    """A number of real people that takes thousands of values."""
    return frame.outputs["predict_proba"]


@pytest.mark.parametrize("tail", ["guarded", "asymptotic"])
@pytest.mark.parametrize("rows", [30, 1000, 4000])
def test_says_of_people_what_tabular_says(acs, tail, rows):
    """Ages are whole numbers, so each has a bin of its own: nothing is lost."""
    window = acs[2018].take(slice(0, rows))
    window = replaced(window, "AGEP", np.where(np.arange(rows) % 10 == 3, np.nan, window["AGEP"]))
    codes = window["SCHL"].copy()
    codes[:4], codes[4:6] = MISSING, UNSEEN
    window = replaced(window, "SCHL", codes)
    found = SketchedDrift(tail=tail).fit(acs[2015]).score(window)
    oracle = TabularDrift(tail=tail).fit(acs[2015]).score(window)
    assert (found.alarm, found.threshold) == (oracle.alarm, oracle.threshold)
    ours, theirs = told(found), told(oracle)
    assert list(ours) == list(theirs)
    assert "SCHL:unseen" in ours
    for name, expected in theirs.items():
        assert ours[name] == pytest.approx(expected, rel=1e-9), name


def test_agrees_with_scipy(acs):
    window = acs[2018].take(slice(0, 1000))
    found = by_name(SketchedDrift(tail="asymptotic").fit(acs[2015]).score(window))
    age = ks_2samp(acs[2015]["AGEP"], window["AGEP"], method="asymp")
    assert (found["AGEP"].statistic, found["AGEP"].p_value) == pytest.approx((age.statistic, age.pvalue), abs=1e-9)
    counts = [np.bincount(frame["RELP"], minlength=len(np.unique(acs[2015]["RELP"]))) for frame in (acs[2015], window)]
    relation = chi2_contingency(np.stack([one[np.add(*counts) > 0] for one in counts]))
    assert found["RELP"].p_value == pytest.approx(relation.pvalue, rel=1e-9)
    assert min(found.values(), key=lambda one: one.p_value).feature == "RELP"


@given(st.integers(0, 2**32 - 1), st.integers(20, 1500), st.sampled_from([8, 40, 256]), st.floats(0, 1))
def test_the_distance_is_at_most_that_of_ks(acs, seed, rows, bins, shift):
    """So the p-value is at least that of the exact values; and what is missed is less than both shares of a bin."""
    rng = np.random.default_rng(seed)
    before, after = probabilities(acs[2015]), probabilities(acs[2018])[rng.integers(0, 4000, rows)]
    after = after + shift * after.std() * rng.random()
    detector = SketchedDrift(bins=bins, tail="asymptotic", signals=False).fit(table(before))
    window = table(after)
    (found,), sketch = detector.score(window).features, detector.sketch(window)
    oracle = ks_2samp(before[:, 0], after[:, 0], method="asymp")
    assert found.statistic <= oracle.statistic + 1e-12
    assert found.p_value >= oracle.pvalue - 1e-9
    of_reference = detector.sketch(table(before)).rank_error("f0")
    assert oracle.statistic <= found.statistic + max(of_reference, sketch.rank_error("f0")) + 1e-12


def test_windows_of_a_period_add_up(acs):
    """What is said of a period is the same, to the last bit, whether its rows were together or came in windows."""
    detector = SketchedDrift().fit(acs[2015])
    period = detector.cells.empty()
    for start in range(0, 4000, 50):
        hour = detector.sketch(acs[2018].take(slice(start, start + 50)))
        period = detector.cells.unpack(hour.pack()).merge(period)
    assert detector.score_sketch(period) == detector.score(acs[2018])
    again = SketchedDrift().fit(acs[2015])  # of another process, say
    assert again.score_sketch(period) == detector.score(acs[2018])


def test_a_small_shift_is_found_in_a_period_and_in_no_window():
    digits = load_digits().data
    rng = np.random.default_rng(0)
    detector = SketchedDrift().fit(table(digits))
    period, alarms = detector.cells.empty(), 0
    for _ in range(40):
        rows = digits[rng.integers(0, len(digits), 50)]
        rows[:, 20] = np.where(rng.random(50) < 0.12, 16.0, rows[:, 20])
        alarms += detector.score(table(rows)).alarm
        period = period.update(table(rows))
    assert alarms <= 4
    assert [one.feature for one in detector.score_sketch(period).features if one.is_drift] == ["f20"]


def test_false_alarms_stay_nominal(acs):
    """Windows of the same people as the reference's, whose 18 columns are real: alarms at 5 % at most."""
    rng = np.random.default_rng(7)
    people = np.column_stack([acs[2015]["AGEP"], probabilities(acs[2015])])
    alarms = {20: 0, 200: 0, 2000: 0}
    for _ in range(200):
        order = rng.permutation(4000)
        detector = SketchedDrift(bins=64, signals=False).fit(table(people[order[:2000]]))
        for rows in alarms:
            alarms[rows] += detector.score(table(people[order[2000 : 2000 + rows]])).alarm
    assert max(alarms.values()) <= binom.ppf(0.999, 200, 0.05)


def _alarms(kind: type[UnivariateDrift], shift: float) -> int:
    rng, found = np.random.default_rng(3), 0
    for _ in range(60):
        detector = kind(signals=False).fit(table(rng.gamma(2.0, size=(2000, 1))))
        found += detector.score(table(rng.gamma(2.0, size=(500, 1)) + shift)).alarm
    return found


def test_is_as_powerful_as_ks():
    """Values that hardly ever repeat, moved by 0.14 of their standard deviation, which ks finds three times of four."""
    ours, theirs = _alarms(SketchedDrift, 0.2), _alarms(KSDrift, 0.2)
    assert 30 <= theirs <= 58
    assert theirs - 2 <= ours <= theirs
    assert _alarms(SketchedDrift, 0.0) <= binom.ppf(0.999, 60, 0.05)


def test_the_effect_size_is_the_stability_index_of_tenths():
    rng = np.random.default_rng(4)
    before, after = np.sort(rng.normal(size=10_000)), rng.normal(0.5, 1.0, size=5_000)
    detector = SketchedDrift(bins=200).fit(table(before[:, None]))
    shares = []
    for values in (before, after):
        counts = np.histogram(values, [-np.inf, *before[999:-1:1000], np.inf])[0] + 0.5
        shares.append(counts / counts.sum())
    p, q = shares
    found = by_name(detector.score(table(after[:, None])))["f0"]
    assert found.effect_size_name == "psi"
    assert found.effect_size == pytest.approx(np.sum((q - p) * np.log(q / p)), rel=0.01)
    same: FeatureResult = detector.score(table(before[:, None])).features[0]
    assert (same.statistic, same.p_value, same.effect_size) == (0.0, 1.0, 0.0)


def test_a_column_without_values_is_not_tested():
    rng = np.random.default_rng(5)
    detector = SketchedDrift().fit(table(rng.normal(size=(500, 3))))
    rows = rng.normal(size=(100, 3))
    rows[:, 1] = np.nan
    found = by_name(detector.score(table(rows)))
    assert np.isnan(found["f1"].p_value)
    assert not found["f1"].is_drift
    assert found["f1:missing"].is_drift
    assert found["f2"].n == 100


def test_one_test_alone_finds_what_it_finds_among_others(make_table):
    reference, window = make_table(700, seed=1), make_table(90, seed=2, shift=0.3)
    how = Settings(level=0.05)
    alone = [BinnedKolmogorovSmirnov.of(reference, place).run(window, how) for place in range(3)]
    among = SketchedDrift().fit(reference).score(window).features
    assert [one.p_value for one in alone] == [one.p_value for one in among if one.statistic_name == "ks"]
    assert [one.effect_size for one in alone] == [one.effect_size for one in among if one.statistic_name == "ks"]


def test_few_rows_and_foreign_sketches_are_refused(acs):
    detector = SketchedDrift().fit(acs[2015])
    with pytest.raises(BadInput, match="the sketch counts 19 rows: at least 20 are needed"):
        detector.score_sketch(detector.sketch(acs[2018].take(slice(0, 19))))
    with pytest.raises(BadInput, match="count in different cells"):
        detector.score_sketch(SketchedDrift(bins=32).fit(acs[2015]).sketch(acs[2018]))
    with pytest.raises(BadInput, match=r"sketched: bins is 4: the least possible is 8"):
        SketchedDrift(bins=4)


def test_an_artifact_of_tests_of_rows_is_refused(make_table, tmp_path):
    reference = make_table(100, seed=1)
    state = Fitted.of(
        reference,
        method="sketched",
        state_version=1,
        params={},
        arrays={"KolmogorovSmirnov.0": np.sort(reference["x0"])},
    )
    state.write(tmp_path / "a")
    with pytest.raises(ArtifactError, match="sketched"):
        SketchedDrift.load(tmp_path / "a")
    for damaged in (np.array([1.0, 0.5, 30.0, 5.0, 5.0]), np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.5, 9.0, 9.0])):
        with pytest.raises(ValueError, match="it holds no"):
            BinnedKolmogorovSmirnov.read(0, damaged, reference.schema.features[0])
