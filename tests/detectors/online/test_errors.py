"""Detectors of a model's errors: beside river, and on the errors of a real model."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from detectors.online.calibration import calibrate
from detectors.online.ddm import DDMDrift, ErrorRate
from detectors.online.eddm import EDDMDrift, ErrorDistance
from detectors.online.hddm_a import HDDMADrift, MeanRise
from detectors.online.hddm_w import HDDMWDrift, WeightedRise
from govern.detection import NO_ROW
from govern.errors import BadInput
from govern.frame import Frame
from tests.detectors.online.test_run_lengths import alarms

ERT = 200
ONLINE = [DDMDrift, EDDMDrift, HDDMADrift, HDDMWDrift]


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


#: Made by river 0.23.0 from the stream's errors, one by one, of detectors that are kept from alarming: the statistic
#: after a row by the detector's own numbers; and the first row at which the detector as it comes alarms.
#:
#: - `EDDM`, whose `_p2s_prime_max` is forgotten until the 30th error: 1 - (p + 2 s) / `_p2s_prime_max`, p and s those
#:   of `_error_distances`. As it comes, EDDM keeps the largest of the first few distances; alarms: 179, 342, 502, 691.
#: - `HDDM_A`: 2 (`_z` - `_x_min`) / sqrt(1 / `_x_min.n` - 1 / `_z.n`).
#: - `HDDM_W`, with a mean that takes 0 for a value and a first squared weight of 1 (`SampleInfo`):
#:   2 (`_s2_incr.ewma` - `_s1_incr.ewma`) / sqrt(`_s1_incr.ibc` + `_s2_incr.ibc`).
RIVERS = {
    "eddm": (ErrorDistance(0.5), 0.1, None,
        {29: np.nan, 100: np.nan, 500: 0.09103988721456602, 999: 0.0834741835442172, 1_100: 0.12372276299136642,
         1_373: 0.20906597298398943, 2_000: 0.26501967822874495, 2_117: 0.2766698106007234}),
    "hddm_a": (MeanRise(), np.sqrt(2 * np.log(2 / 0.001)), 1_158,
        {29: 0.0, 500: 1.5344728915398673, 999: 0.0, 1_100: 2.7743458607536926, 1_373: 4.647085226317067,
         1_484: 5.334424755553722, 2_000: 4.997352337553971, 2_151: 4.854570794639334}),
    "hddm_w": (WeightedRise(0.05), np.sqrt(2 * np.log(1 / 0.001)), 1_797,
        {29: 0.0, 100: 1.6797440701795068, 500: 1.834057746655972, 999: 0.47586212558447205, 1_100: 2.0175696973195065,
         1_373: 2.588209689006015, 1_798: 4.028337541833337, 2_151: 0.9539511749302405}),
}  # fmt: skip


@pytest.mark.parametrize("name", RIVERS)
def test_the_statistics_of_its_successors_are_rivers(name, stream):
    tracker, bound, alarm, theirs = RIVERS[name]
    found, _ = tracker.walk(tracker.begin(), stream.outputs["error"])
    for row, statistic in theirs.items():
        assert found[row, 0] == pytest.approx(statistic, abs=1e-9, nan_ok=True)
    assert alarm in (None, int(np.flatnonzero(found[:, 0] > bound)[0]))


@pytest.mark.parametrize("online", ONLINE)
def test_a_stream_without_change_runs_as_long_as_expected_however_it_is_cut(people, online):
    rows = told = 0
    expected = 0.0
    for seed in range(3):
        order = np.random.default_rng((7, seed)).permutation(4_000)
        detector = online(output="error", ert=ERT, seed=seed).fit(people[2015].take(order[:1_500]))
        quiet = people[2015].take(order[1_500:])
        told += len(alarms(detector, quiet))
        rows += len(quiet)
        # Nothing is told before the first statistic, of eddm after 31 errors; and it starts anew after each alarm.
        expected += len(quiet) / (ERT + int(np.argmax(np.isfinite(detector.thresholds))))
    # 37 are expected of 7,500 rows at most, as in test_run_lengths.py; later rows of a run have fewer.
    assert expected / 4 < told < expected + 4 * np.sqrt(expected)

    whole, last = detector.advance(detector.start(), quiet, np.zeros(len(quiet), dtype=np.int64))
    for size in (7, 256):
        memory, first, statistic = detector.start(), NO_ROW, whole.statistic
        for at in range(0, len(quiet), size):
            window = quiet.take(slice(at, at + size))
            scores, memory = detector.advance(memory, window, np.zeros(len(window), dtype=np.int64))
            memory = detector.unpack(detector.pack(memory))
            if first == NO_ROW and scores.alarm:
                first, statistic = at + scores.alarm_row, scores.statistic
        assert detector.pack(memory) == detector.pack(last)
        assert (first, statistic.hex()) == (whole.alarm_row, whole.statistic.hex())


@pytest.mark.parametrize("online", [DDMDrift, HDDMADrift, HDDMWDrift])
def test_a_run_alarms_in_its_first_rows_with_the_chance_that_was_asked_for(people, online):
    """Of runs of 300 rows, a share of 1 - (1 - 1 / ERT)^300 alarms, 78 %; discrete statistics may do so less often."""
    order = np.random.default_rng(3).permutation(4_000)
    detector = online(output="error", ert=ERT).fit(people[2015].take(order[:2_000]))
    rest, rng, runs = people[2015].take(order[2_000:]), np.random.default_rng(4), 300
    told = sum(detector.score(rest.take(rng.permutation(2_000)[:300])).alarm for _ in range(runs))
    expected = runs * (1 - (1 - 1 / ERT) ** 300)
    assert 0.75 * expected < told < expected + 4 * np.sqrt(expected * (1 - expected / runs))


def test_later_rows_alarm_no_more_often_than_was_asked_for():
    """The lowest mean of `hddm_w` goes on falling, so that by thresholds of the first 300 rows later ones alarm too
    often. Where every other row is an error, it has the furthest to fall."""
    rng, tracker = np.random.default_rng(6), WeightedRise(0.05)
    reference = rng.integers(0, 2, (4_000, 1)).astype(np.float64)
    streams = [tracker.simulate(rng.integers(0, 2, (3_000, 1)).astype(np.float64))[:, 0] for _ in range(500)]

    def told_of_expected(horizon: int) -> float:
        """Alarms from the 1,000th row on, of runs without one before, by those that were asked for."""
        limits = calibrate(lambda apart: tracker, reference, horizon=horizon, ert=1_000, seed=0, long_runs=True)
        limits = limits[np.minimum(np.arange(3_000), horizon - 1)]
        firsts = [int(np.argmax(np.append(path > limits, True))) for path in streams]
        late = [row for row in firsts if row >= 1_000]
        return sum(row < 3_000 for row in late) / (sum(row - 1_000 for row in late) / 1_000)

    assert 0.7 < told_of_expected(3_000) < 1.4
    assert told_of_expected(300) > 1.6


@pytest.mark.parametrize("online", ONLINE)
def test_more_errors_are_found_and_fewer_are_not(people, stream, online):
    detector = online(output="error").fit(people[2015].take(slice(1_000, 4_000)))
    # In the fixture's own order hddm_w alarms 5 times before the change: of 300 orders of those rows two gave 6.
    rng = np.random.default_rng(9)
    stream = stream.take(np.concatenate((rng.permutation(1_000), rng.permutation(np.arange(1_000, len(stream))))))
    found = alarms(detector, stream)
    assert sum(row < 1_000 for row in found) <= 2
    assert 1_000 <= next(row for row in found if row >= 1_000) < 1_500
    scores = detector.score(stream.take(slice(0, 100)))
    (one,) = scores.features
    assert (one.feature, one.statistic_name, one.n) == ("error", detector.statistic_name, 100)

    right = dataclasses.replace(stream, outputs={"error": np.zeros((len(stream), 1))})
    better = Frame.concat([stream.take(slice(1_000, 1_100)), right.take(slice(0, 500))])
    assert all(row < 100 for row in alarms(detector, better))


@pytest.mark.parametrize("tracker", [ErrorRate(), ErrorDistance(0.5), MeanRise(), WeightedRise(0.05)])
def test_what_is_missing_is_no_error_and_no_success(tracker):
    errors = np.random.default_rng(5).integers(0, 2, (200, 1)).astype(np.float64)
    holes = np.insert(errors, 100, np.full((50, 1), np.nan), axis=0)
    found, known = tracker.walk(tracker.begin(), errors)
    there, same = tracker.walk(tracker.begin(), holes)
    assert same[0].tobytes() == known[0].tobytes()
    assert np.delete(there, np.arange(100, 150), axis=0).tobytes() == found.tobytes()
    assert np.isfinite(found[-1, 0])
    assert np.isnan(tracker.walk(tracker.begin(), np.full((5, 1), np.nan))[0]).all()


def test_the_first_error_of_a_model_without_errors_is_no_alarm():
    """For `ddm`, the article's s_min is 0 then, and river's alarms at it. For `hddm_w`, it makes river's mean 1."""
    errors = np.zeros((400, 1))
    errors[200] = 1.0
    found, _ = ErrorRate().walk(ErrorRate().begin(), errors)
    assert np.isnan(found[:200]).all()
    assert found[200, 0] == pytest.approx(1.0)
    assert np.nanmax(found) == pytest.approx(1.0)
    found, _ = WeightedRise(0.05).walk(WeightedRise(0.05).begin(), errors)
    assert not found[:200].any()
    assert found[:, 0].max() < np.sqrt(2 * np.log(1 / 0.001))


def test_eddm_counts_losses_from_a_bound_on_and_needs_errors(people):
    losses = np.random.default_rng(8).random((2_000, 1))
    above = ErrorDistance(0.8)
    found, known = above.walk(above.begin(), losses)
    there, same = ErrorDistance(0.5).walk(above.begin(), (losses >= 0.8).astype(np.float64))
    assert found.tobytes() == there.tobytes()
    assert known[0].tobytes() == same[0].tobytes()
    rare = dataclasses.replace(people[2015], outputs={"error": (np.arange(4_000) % 200 == 0)[:, None].astype(float)})
    with pytest.raises(BadInput, match=r"'error' is an error in 0\.50% of the reference's rows"):
        EDDMDrift(output="error").fit(rare)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: EDDMDrift(error_from=0.0), "error_from is 0"),
        (lambda: HDDMWDrift(decay=0.001), "decay is 0.001"),
    ],
)
def test_parameters_that_say_nothing_are_refused(made, message):
    with pytest.raises(BadInput, match=message):
        made()


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
