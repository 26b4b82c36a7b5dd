"""Detectors of a model's errors: beside river, and on the errors of a real model."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from detectors.online.ddm import DDMDrift, ErrorRate
from govern.detection import NO_ROW
from govern.errors import BadInput
from govern.frame import Frame
from tests.detectors.online.test_run_lengths import alarms

ERT = 200


@pytest.fixture(scope="module")
def people(acs) -> dict[int, Frame]:
    """Year -> 4,000 people with what the model got wrong: 660 of 2015, 670 of 2018."""
    found = {}
    for year, frame in acs.items():
        error = (frame.outputs["predict_proba"] >= 0.5) != (frame.outputs["employed"] == 1.0)
        found[year] = dataclasses.replace(frame, outputs={"error": error.astype(np.float64)})
    return found


@pytest.fixture(scope="module")
def stream(people) -> Frame:
    """1,000 people of all ages, then those of 2018 that the model knows worse: 17 % and 28 % errors."""
    age = people[2018].columns[0]
    other = ((age >= 18) & (age < 30)) | ((age >= 60) & (age < 70))
    return Frame.concat([people[2015].take(slice(0, 1_000)), people[2018].take(np.flatnonzero(other))])


def test_the_statistic_is_rivers(stream):
    """Made by river 0.26.1, `drift.binary.DDM()` fed with the stream's errors: `(p + s - _p_min) / _s_min` after a row,
    p its mean and s = sqrt(p (1 - p) / n); and the row at which `drift_detected` was set, the only one."""
    errors = stream.outputs["error"]
    assert (len(errors), errors[:1_000].sum(), errors[1_000:].sum()) == (2_152, 172, 319)
    tracker = ErrorRate()
    found, _ = tracker.walk(tracker.begin(), errors)
    theirs = {30: 0.9999999999999998, 100: 0.9999999999999998, 500: 2.3358390998159693, 999: 1.7754636734170894,
              1_100: 2.206090577248414, 1_373: 3.0083618573412094}  # fmt: skip
    for row, statistic in theirs.items():
        assert found[row, 0] == pytest.approx(statistic, abs=1e-12)
    assert np.isnan(found[:30]).all()
    assert int(np.flatnonzero(found[:, 0] > 3.0)[0]) == 1_373


def test_a_stream_without_change_runs_as_long_as_expected_however_it_is_cut(people):
    rows = told = 0
    for seed in range(4):
        order = np.random.default_rng((7, seed)).permutation(4_000)
        detector = DDMDrift(output="error", ert=ERT, seed=seed).fit(people[2015].take(order[:1_500]))
        quiet = people[2015].take(order[1_500:])
        told += len(alarms(detector, quiet))
        rows += len(quiet)
    # 50 are expected of 10,000 rows at most, as in test_run_lengths.py; later rows of a run have fewer.
    assert rows / ERT / 4 < told < rows / ERT + 4 * np.sqrt(rows / ERT)

    whole, last = detector.advance(detector.start(), quiet, np.zeros(len(quiet), dtype=np.int64))
    for size in (1, 7, 256):
        memory, first, statistic = detector.start(), NO_ROW, whole.statistic
        for at in range(0, len(quiet), size):
            window = quiet.take(slice(at, at + size))
            scores, memory = detector.advance(memory, window, np.zeros(len(window), dtype=np.int64))
            if first == NO_ROW and scores.alarm:
                first, statistic = at + scores.alarm_row, scores.statistic
        assert detector.pack(memory) == detector.pack(last)
        assert (first, statistic.hex()) == (whole.alarm_row, whole.statistic.hex())


def test_a_run_alarms_in_its_first_rows_with_the_chance_that_was_asked_for(people):
    """Of runs of 300 rows, a share of 1 - (1 - 1 / ERT)^300 alarms, 78 %; discrete statistics may do so less often."""
    order = np.random.default_rng(3).permutation(4_000)
    detector = DDMDrift(output="error", ert=ERT).fit(people[2015].take(order[:2_000]))
    rest, rng, runs = people[2015].take(order[2_000:]), np.random.default_rng(4), 300
    told = sum(detector.score(rest.take(rng.permutation(2_000)[:300])).alarm for _ in range(runs))
    expected = runs * (1 - (1 - 1 / ERT) ** 300)
    assert 0.75 * expected < told < expected + 4 * np.sqrt(expected * (1 - expected / runs))


def test_more_errors_are_found_and_fewer_are_not(people, stream):
    detector = DDMDrift(output="error").fit(people[2015].take(slice(1_000, 4_000)))
    found = alarms(detector, stream)
    assert sum(row < 1_000 for row in found) <= 2
    assert 1_000 <= next(row for row in found if row >= 1_000) < 1_500
    scores = detector.score(stream.take(slice(0, 100)))
    (one,) = scores.features
    assert (one.feature, one.statistic_name, one.n) == ("error", "rise", 100)

    right = dataclasses.replace(stream, outputs={"error": np.zeros((len(stream), 1))})
    better = Frame.concat([stream.take(slice(1_000, 1_100)), right.take(slice(0, 500))])
    assert all(row < 100 for row in alarms(detector, better))


def test_what_is_missing_is_no_error_and_no_success():
    errors = np.random.default_rng(5).integers(0, 2, (200, 1)).astype(np.float64)
    holes = np.insert(errors, 100, np.full((50, 1), np.nan), axis=0)
    tracker = ErrorRate()
    found, known = tracker.walk(tracker.begin(), errors)
    there, same = tracker.walk(tracker.begin(), holes)
    assert same[0].tobytes() == known[0].tobytes()
    assert np.delete(there, np.arange(100, 150), axis=0).tobytes() == found.tobytes()


def test_the_first_error_of_a_model_without_errors_is_no_alarm(people):
    """The article's s_min is 0 then, and river's alarms at it."""
    errors = np.zeros((400, 1))
    errors[200] = 1.0
    found, _ = ErrorRate().walk(ErrorRate().begin(), errors)
    assert np.isnan(found[:200]).all()
    assert found[200, 0] == pytest.approx(1.0)
    assert np.nanmax(found) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((700, 1), 2.0), "output 'error' is 2 in row 0"),
        (np.full((700, 1), -np.inf), "output 'error' is -inf in row 0"),
        (np.full((700, 2), 0.5), "output 'error' has 2 values a row"),
    ],
)
def test_what_is_no_error_is_refused(people, values, message):
    detector = DDMDrift(output="error")
    foreign = dataclasses.replace(people[2015].take(slice(0, 700)), outputs={"error": values})
    with pytest.raises(BadInput, match=message):
        detector.fit(foreign)
    with pytest.raises(BadInput, match=message):
        DDMDrift(output="error", ert=50).fit(people[2015].take(slice(0, 700))).score(foreign)
    with pytest.raises(BadInput, match="no output 'loss'"):
        DDMDrift(output="loss").fit(foreign)
