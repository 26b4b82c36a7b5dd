"""A baseline that moves along: its test is the named detector's, and it learns what is to be learned."""

from __future__ import annotations

import dataclasses

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from detectors.baseline.detector import MovingBaselineDrift
from detectors.baseline.kept import TimeOfWeek, Trailing
from detectors.baseline.rows import Rows
from detectors.drift.ks import KSDrift
from detectors.drift.mmd import MMDDrift
from detectors.drift.prediction import PredictionDrift
from detectors.drift.tabular import TabularDrift
from detectors.memory import Memory
from govern.detection import Detector, WindowScores
from govern.errors import BadInput
from govern.frame import Frame
from govern.record import FeatureResult

HOUR_NS = 3600 * 10**9
#: 2025-12-01T00:00:00Z, a Monday.
MONDAY_NS = 1764547200 * 10**9


def at(hours: float, rows: int) -> npt.NDArray[np.int64]:
    """Times of rows that come evenly within an hour, so many hours after that Monday."""
    return MONDAY_NS + int(hours * HOUR_NS) + np.arange(rows, dtype=np.int64) * (HOUR_NS // max(rows, 1))


def windows(frame: Frame, size: int) -> list[Frame]:
    return [frame.take(slice(first, first + size)) for first in range(0, len(frame) - size + 1, size)]


def run(detector: MovingBaselineDrift, stream: list[Frame], every_h: float = 1.0) -> tuple[list[WindowScores], Memory]:
    memory, told = detector.start(), []
    for number, window in enumerate(stream):
        found, memory = detector.advance(memory, window, at(number * every_h, len(window)))
        told.append(found)
    return told, memory


def moving(scores: WindowScores, baseline: str) -> tuple[FeatureResult, ...]:
    """The results against the moving baseline, as its test called them."""
    return tuple(
        msgspec.structs.replace(one, signal=one.signal.removesuffix(baseline).removesuffix("_"))
        for one in scores.features
        if one.signal.endswith(baseline)
    )


def fixed(scores: WindowScores, baseline: str) -> tuple[FeatureResult, ...]:
    return tuple(one for one in scores.features if not one.signal.endswith(baseline))


@pytest.mark.parametrize(
    ("detector", "oracle"),
    [
        ("ks", KSDrift(p_val=0.025)),
        ("tabular", TabularDrift(p_val=0.025)),
        ("mmd", MMDDrift(p_val=0.025)),
        ("prediction_drift", PredictionDrift(p_val=0.025)),
    ],
)
def test_it_says_what_its_test_says_of_the_window_before_and_of_the_reference(acs, detector: str, oracle: Detector):
    people = acs[2018]
    reference, *stream = windows(people.take(slice(0, 2000)), 500)
    told, _ = run(
        MovingBaselineDrift(detector=detector, baseline="previous", exclude_alarms=False).fit(reference), stream
    )
    for number, found in enumerate(told):
        against = [type(oracle)(p_val=0.025).fit(reference).score(stream[number])]
        assert fixed(found, "previous") == against[0].features
        if number:
            against.append(type(oracle)(p_val=0.025).fit(stream[number - 1]).score(stream[number]))
            assert moving(found, "previous") == against[1].features
        assert found.alarm == any(one.alarm for one in against)
        if not np.isnan(found.p_value):
            assert found.p_value == min(1.0, 2 * min(one.p_value for one in against))
            assert found.alarm == (found.p_value < found.threshold == 0.05)


@pytest.mark.parametrize("baseline", ["previous", "trailing", "time_of_week"])
def test_real_people_in_random_order_alarm_no_more_often_than_they_should(acs, baseline: str):
    """Windows that are judged share no row with each other, nor do their baselines."""
    people, level = acs[2015], 0.05
    detector = MovingBaselineDrift(baseline=baseline, with_reference=False, p_val=level, size=20_000)
    detector.fit(people.take(slice(0, 500)))
    alarms = judged = 0
    for seed in range(4):
        order = np.random.default_rng(seed).permutation(len(people))
        for pair in windows(people.take(order), 200):
            _, memory = detector.advance(detector.start(), pair.take(slice(0, 100)), at(3, 100))
            found, _ = detector.advance(memory, pair.take(slice(100, 200)), at(3 + 7 * 24, 100))
            alarms, judged = alarms + found.alarm, judged + bool(found.features)
    assert judged == 80
    assert alarms <= binom.ppf(0.999, judged, level)


def _drifting(make_table, count: int) -> list[Frame]:
    """Windows of which each is a little further from the first, and none far from the one before."""
    return [make_table(300, seed=10 + number, shift=0.06 * number) for number in range(count)]


def test_what_creeps_in_is_told_by_the_reference_and_not_learned_as_an_alarm_for_ever(make_table):
    stream = [*_drifting(make_table, 30), *(make_table(300, seed=100 + n, shift=1.8) for n in range(15))]
    reference = make_table(1500, seed=1)
    for_ever = [TabularDrift().fit(reference).score(window).alarm for window in stream]
    assert all(for_ever[12:])
    alone, _ = run(MovingBaselineDrift(baseline="previous", with_reference=False).fit(reference), stream)
    assert sum(one.alarm for one in alone) <= binom.ppf(0.999, len(stream), 0.05)
    stuck, _ = run(
        MovingBaselineDrift(baseline="previous", with_reference=False, exclude_alarms=True).fit(reference), stream
    )
    assert all(one.alarm for one in stuck[1:]), "why that is not the default: this stream begins with a false alarm"
    both, _ = run(MovingBaselineDrift(baseline="previous").fit(reference), stream)
    assert all(one.alarm for one in both[14:])
    late = [one.label for found in both[14:] for one in found.features if one.is_drift]
    assert late.count("x0") == len(both[14:])
    assert late.count("x0:previous") <= 3


@pytest.mark.parametrize("exclude_alarms", [True, False])
def test_a_step_stays_an_alarm_unless_it_is_learned(make_table, exclude_alarms: bool):
    stream = [make_table(200, seed=20 + n, shift=0.0 if n < 4 else 2.0) for n in range(10)]
    detector = MovingBaselineDrift(baseline="trailing", size=400, with_reference=False, exclude_alarms=exclude_alarms)
    told, memory = run(detector.fit(make_table(600, seed=1)), stream)
    assert [one.alarm for one in told[:5]] == [False] * 4 + [True]
    assert all(one.alarm for one in told[5:]) == exclude_alarms
    assert told[-1].alarm == exclude_alarms
    (x0, *_) = memory.arrays[2:]
    assert (float(x0.mean()) < 0.5) == exclude_alarms


def test_before_there_are_rows_enough_it_says_nothing(make_table):
    detector = MovingBaselineDrift(with_reference=False, min_rows=100).fit(make_table(600, seed=1))
    told, _ = run(detector, [make_table(40, seed=n, shift=3.0 * n) for n in range(4)])
    assert [bool(one.features) for one in told] == [False, False, False, True]
    assert [one.alarm for one in told] == [False, False, False, True]
    assert told[0].threshold == 0.05


def test_a_feature_without_values_makes_no_baseline_and_stops_nothing(make_table):
    empty = make_table(100, seed=2, missing=1.0)
    detector = MovingBaselineDrift(detector="ks", baseline="previous", with_reference=False, signals=False)
    told, _ = run(
        detector.fit(make_table(600, seed=1)), [empty, make_table(100, seed=3), make_table(100, seed=4, shift=3.0)]
    )
    assert [bool(one.features) for one in told] == [False, False, True]
    assert told[2].alarm


def test_excluded_times_are_judged_and_not_learned(make_table):
    christmas = "2025-12-01T01:00:00Z/2025-12-01T02:30:00+00:00, 2025-12-05T00:00:00Z/2025-12-06T00:00:00Z"
    stream = [make_table(100, seed=n) for n in range(4)]
    detector = MovingBaselineDrift(exclude=christmas, with_reference=False, exclude_alarms=False).fit(
        make_table(600, seed=1)
    )
    told, memory = run(detector, stream)
    assert [bool(one.features) for one in told] == [False, True, True, True]
    times, _, x0, *_ = memory.arrays
    assert times.tolist() == [*at(0, 100), *at(2, 100)[50:], *at(3, 100)]
    assert x0.tolist() == [*stream[0]["x0"], *stream[2]["x0"][50:], *stream[3]["x0"]]


def _by_hour(make_table, number: int, *, every_h: int, more: float = 0.0) -> Frame:
    """The nights are two standard deviations apart from the days."""
    night = number * every_h % 24 < 12
    return make_table(100, seed=1000 + number, shift=(2.0 if night else 0.0) + more)


def test_nights_are_compared_with_nights(make_table):
    fortnight = [_by_hour(make_table, n, every_h=12) for n in range(3 * 14)]
    reference = make_table(600, seed=1)
    made = {"with_reference": False, "hours": 12, "size": 8400}
    told, memory = run(MovingBaselineDrift(baseline="time_of_week", **made).fit(reference), fortnight, 12)
    assert not any(one.features for one in told[:14]), "no slot has been seen before"
    assert all(one.features for one in told[14:])
    assert sum(one.alarm for one in told) <= binom.ppf(0.999, 28, 0.05)
    before, _ = run(MovingBaselineDrift(baseline="previous", **made).fit(reference), fortnight, 12)
    assert before[1].alarm, "what the window before does not know of"
    detector = MovingBaselineDrift(baseline="time_of_week", **made).fit(reference)
    day = _by_hour(make_table, 43, every_h=12, more=2.0)
    found, _ = detector.advance(memory, day, at(43 * 12, 100))
    assert found.alarm, "a day that is like a night"


def test_a_window_over_two_slots_is_compared_with_the_same_mix_of_both(make_table):
    detector = MovingBaselineDrift(baseline="time_of_week", with_reference=False, hours=12, size=14_000)
    detector.fit(make_table(600, seed=1))
    memory = detector.start()
    for hour, shift in ((3, 2.0), (15, 0.0)):
        _, memory = detector.advance(memory, make_table(200, seed=hour, shift=shift), at(hour, 200))
    night, day = make_table(60, seed=5, shift=2.0), make_table(20, seed=6)
    times = np.concatenate([at(7 * 24 + 3, 60), at(7 * 24 + 15, 20)])
    found, _ = detector.advance(memory, Frame.concat([night, day]), times)
    assert found.features
    assert not found.alarm
    swapped = np.concatenate([at(7 * 24 + 3, 20), at(7 * 24 + 15, 60)])
    assert detector.advance(memory, Frame.concat([night, day]), swapped)[0].alarm
    unknown = np.concatenate([at(7 * 24 + 3, 60), at(8 * 24 + 15, 20)])
    assert not detector.advance(memory, Frame.concat([night, day]), unknown)[0].features


def test_the_present_week_is_no_baseline_of_itself(make_table):
    detector = MovingBaselineDrift(baseline="time_of_week", with_reference=False).fit(make_table(600, seed=1))
    told, _ = run(detector, [make_table(100, seed=n) for n in range(5)])
    assert not any(one.features for one in told)


@settings(max_examples=25, deadline=None)
@given(
    cuts=st.lists(st.integers(20, 90), min_size=1, max_size=8),
    baseline=st.sampled_from(["trailing", "time_of_week"]),
    gap_min=st.integers(1, 110),
)
def test_what_is_kept_is_bounded_and_does_not_depend_on_how_the_stream_is_cut(cuts, baseline, gap_min):
    rng = np.random.default_rng(7)
    numbers = np.arange(sum(cuts), dtype=np.int64)
    stream = Rows(
        MONDAY_NS + numbers * gap_min * (HOUR_NS // 60),
        rng.integers(0, 2**63, len(numbers)).astype(np.uint64),
        (numbers,),
    )
    kept_by = Trailing(100) if baseline == "trailing" else TimeOfWeek(hours=24, weeks=3, sample=10)
    kept, place = stream.take(slice(0, 0)), 0
    for cut in cuts:
        kept = kept_by.learn(kept, stream.take(slice(place, place + cut)))
        place += cut
    assert len(kept) <= (100 if baseline == "trailing" else 7 * 5 * 10)
    if baseline == "trailing":
        assert kept.values[0].tolist() == numbers[-100:].tolist()
        return
    # Of each day the lowest ranks, and of days the newest 28 up to the last window's middle row.
    days = (stream.times - MONDAY_NS) // (24 * HOUR_NS)
    middle = int(days[len(numbers) - cuts[-1] + cuts[-1] // 2])
    lowest = [
        int(row)
        for day in range(middle - 27, int(days[-1]) + 1)
        for row in sorted(numbers[days == day], key=lambda row: stream.ranks[row])[:10]
    ]
    assert kept.values[0].tolist() == sorted(lowest)


def test_an_output_of_another_width_is_refused(make_table):
    detector = MovingBaselineDrift(detector="prediction_drift", baseline="trailing", with_reference=False)
    detector.fit(make_table(300, seed=1))
    window = make_table(100, seed=2)
    wider = dataclasses.replace(window, outputs={"predict_proba": np.repeat(window.outputs["predict_proba"], 2, 1) / 2})
    _, memory = detector.advance(detector.start(), window, at(0, 100))
    with pytest.raises(BadInput):
        detector.advance(memory, wider, at(1, 100))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"baseline": "yesterday"}, "baseline is 'yesterday'"),
        ({"detector": "nobody"}, "detector is 'nobody'"),
        ({"detector": "isolation_forest"}, "no native drift detector"),
        ({"detector": "adwin"}, "judges each window by itself"),
        ({"detector": "moving_baseline"}, "judges each window by itself"),
        ({"detector": "alibi_detect.KSDrift"}, "no native drift detector"),
        ({"size": 10}, "size is 10"),
        ({"min_rows": 5}, "min_rows is 5"),
        ({"baseline": "time_of_week", "hours": 5}, "hours is 5: slots divide a day"),
        ({"baseline": "time_of_week", "weeks": 0}, "weeks is 0"),
        ({"baseline": "time_of_week", "hours": 1}, "168 slots with 4 weeks"),
        ({"exclude": "2025-12-24"}, "exclude names '2025-12-24'"),
        ({"exclude": "2025-12-24T00:00:00/2025-12-27T00:00:00"}, "names no time zone"),
        ({"exclude": "2025-12-27T00:00:00Z/2025-12-24T00:00:00Z"}, "ends before it begins"),
    ],
)
def test_parameters_that_cannot_be_are_refused(params: dict[str, object], message: str):
    with pytest.raises(BadInput, match=message):
        MovingBaselineDrift(**params)


def test_how_much_to_keep_is_said(make_table):
    with pytest.raises(BadInput, match="size is 5000") as caught:
        MovingBaselineDrift(baseline="time_of_week", hours=1)
    assert "keep at least 10080 rows" in caught.value.fix
    MovingBaselineDrift(baseline="time_of_week", hours=1, size=10080)
