"""How long a stream without change runs until it alarms, on real people, and how soon a real change is found."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from detectors.online import calibration
from detectors.online.adwin import LEAST, AdwinDrift
from detectors.online.calibration import calibrate
from detectors.online.cvm import OnlineCVMDrift
from detectors.online.detector import OnlineDrift
from detectors.online.fet import OnlineFETDrift
from detectors.online.ks import IncrementalKSDrift
from detectors.online.lsdd import OnlineLSDDDrift
from detectors.online.mmd import OnlineMMDDrift
from detectors.online.page_hinkley import PageHinkleyDrift
from govern.detection import NO_ROW
from govern.errors import BadInput
from govern.frame import Frame

ERT = 200
#: Rows of each stream without change: the fixture's 4,000 people of a year, less the reference.
REFERENCE_ROWS = 1_500

ONLINE = [
    OnlineCVMDrift, IncrementalKSDrift, OnlineFETDrift, OnlineMMDDrift, OnlineLSDDDrift, PageHinkleyDrift, AdwinDrift,
]  # fmt: skip


#: What the streams are watched by: all sixteen features would take longer and show nothing else.
NAMES = ("AGEP", "SCHL", "MAR", "RELP", "ESP")


def chosen(frame: Frame, names: tuple[str, ...] = NAMES) -> Frame:
    """Of these features alone."""
    kept = [at for at, feature in enumerate(frame.schema.features) if feature.name in names]
    schema = msgspec.structs.replace(frame.schema, features=tuple(frame.schema.features[at] for at in kept))
    return Frame(schema, tuple(frame.columns[at] for at in kept))


def alarms(detector: OnlineDrift, stream: Frame, size: int = 50) -> list[int]:
    """Rows at which it alarms; it starts anew after each, and so does the window, so that none is untold."""
    memory, at, found = detector.start(), 0, []
    while at < len(stream):
        window = stream.take(slice(at, at + size))
        scores, after = detector.advance(memory, window, np.zeros(len(window), dtype=np.int64))
        if scores.alarm_row == NO_ROW:
            memory, at = after, at + size
        else:
            found.append(at + scores.alarm_row)
            memory, at = detector.start(), at + scores.alarm_row + 1
    return found


@pytest.mark.parametrize("online", ONLINE)
def test_a_stream_without_change_runs_as_long_as_expected_however_it_is_cut(online, acs):
    rows = told = 0
    people = chosen(acs[2015])
    for seed in range(3):
        order = np.random.default_rng((7, seed)).permutation(4_000)
        detector = online(ert=ERT, seed=seed).fit(people.take(order[:REFERENCE_ROWS]))
        stream = people.take(order[REFERENCE_ROWS:])
        told += len(alarms(detector, stream))
        rows += len(stream)
    # 37 alarms are expected of 7,500 rows: a Poisson number is within 3 standard deviations of it. What a reference of
    # 1,500 rows gets wrong makes the number more uneven, hence 4; and a discrete statistic may alarm less often.
    assert told < rows / ERT + 4 * np.sqrt(rows / ERT)
    assert told > rows / ERT / 4

    stream = stream.take(slice(0, 400))
    times = np.zeros(400, dtype=np.int64)
    whole, last = detector.advance(detector.start(), stream, times)
    for size in (1, 7, 256):
        memory, first, statistic = detector.start(), NO_ROW, whole.statistic
        for at in range(0, 400, size):
            piece = slice(at, at + size)
            scores, memory = detector.advance(memory, stream.take(piece), times[piece])
            if first == NO_ROW and scores.alarm:
                first, statistic = at + scores.alarm_row, scores.statistic
        assert detector.pack(memory) == detector.pack(last)
        assert (first, statistic.hex()) == (whole.alarm_row, whole.statistic.hex())


@pytest.mark.parametrize("online", ONLINE)
def test_a_real_change_is_found_soon(online, acs):
    """The stream turns from all people to those with a job, who are of other ages and schooling."""
    order = np.random.default_rng(5).permutation(4_000)
    people, later = chosen(acs[2015]), chosen(acs[2018])
    detector = online(ert=1_000, seed=0).fit(people.take(order[:2_500]))
    employed = acs[2018].outputs["employed"][:, 0] == 1.0
    before, after = people.take(order[2_500:2_600]), later.take(np.flatnonzero(employed)[:400])
    found = alarms(detector, Frame.concat([before, after]))
    # One false alarm in 100 rows has a chance of 10 %, two of less than 1 %.
    assert sum(row < 100 for row in found) <= 1
    changed = [row for row in found if row >= 100]
    assert changed[0] < 250
    # The change stays, and so does the alarm; but where the stream is compared with itself.
    assert online is AdwinDrift or len(changed) >= 3


def with_missing(frame: Frame, share: float, seed: int) -> Frame:
    """The age alone, of which a share is missing."""
    missing = np.random.default_rng(seed).random(len(frame)) < share
    feature = next(one for one in frame.schema.features if one.name == "AGEP")
    schema = msgspec.structs.replace(frame.schema, features=(feature,))
    return Frame(schema, (np.where(missing, np.nan, frame.columns[frame.schema.features.index(feature)]),))


def test_where_values_are_missing_the_run_time_is_kept_too(acs):
    """Also of a stream in which none are; nothing is told at rows at which some streams have no statistic yet."""
    rows = told = 0
    for seed in range(3):
        order = np.random.default_rng((8, seed)).permutation(4_000)
        people = with_missing(acs[2015].take(order), 0.5, seed)
        detector = AdwinDrift(ert=50, seed=seed).fit(people.take(slice(0, REFERENCE_ROWS)))
        assert np.isinf(detector.thresholds[: 2 * LEAST]).all()
        assert not np.isnan(detector.thresholds).any()
        first = int(np.argmax(np.isfinite(detector.thresholds)))
        assert np.isfinite(detector.thresholds[first:]).all()
        for stream in (people, with_missing(acs[2015].take(order), 0.0, seed)):
            stream = stream.take(slice(REFERENCE_ROWS, 4_000))
            told += len(alarms(detector, stream))
            rows += len(stream)
        # Nothing is told before the first statistic, and it starts anew after each alarm.
        expected = rows / (50 + first)
    assert expected / 2 < told < expected + 4 * np.sqrt(expected)


def test_a_reference_by_which_it_would_never_alarm_is_refused(acs):
    with pytest.raises(BadInput, match="no stream of 300 rows of the reference has values enough"):
        AdwinDrift().fit(with_missing(acs[2015], 0.95, 0))


def test_thresholds_fall_as_survivors_grow_fewer_and_then_stay(acs):
    detector = OnlineCVMDrift(ert=ERT, windows=20).fit(acs[2015].take(slice(0, 600)))
    limits = detector.thresholds
    assert np.isinf(limits[:19]).all()
    assert np.isfinite(limits[19:]).all()
    assert limits[19] > limits[-1]
    assert len(set(limits[40:])) == 1


class Mean:
    """Of the last ten rows: the first is as large as any later one, the next ones hardly differ from it."""

    horizon = 30

    def __init__(self, reference):
        self.centre = reference.mean()

    def prepare(self, rows):
        return rows - self.centre

    def simulate(self, prepared):
        sums = np.cumsum(np.vstack((np.zeros((1, 1)), prepared)), axis=0)
        found = np.full((len(prepared), 1), np.nan)
        found[9:] = sums[10:] - sums[:-10]
        return found


def test_each_row_alarms_with_the_same_chance():
    """Memoryless: of streams without change, equal shares of those left alarm in the first rows and in later ones."""
    streams = 6_000
    rng = np.random.default_rng(2)
    reference = rng.normal(size=(5_000, 1))
    limits = calibrate(lambda apart: Mean(np.delete(reference, apart, axis=0)), reference, horizon=30, ert=100, seed=0)
    told, constant = np.zeros(30), np.zeros(30)
    mean = Mean(reference)
    for _ in range(streams):
        path = mean.simulate(mean.prepare(rng.normal(size=(30, 1))))[:, 0]
        for count, threshold in ((told, limits), (constant, limits[-1])):
            over = np.flatnonzero(path > threshold)
            count[over[:1]] += 1
    left = streams - np.concatenate(([0], np.cumsum(told)[:-1]))
    assert not told[:9].any()
    for part in (slice(9, 11), slice(11, 15), slice(15, 20), slice(20, 30)):
        expected = left[part].sum() / 100
        assert abs(told[part].sum() - expected) < 4 * np.sqrt(expected) + 0.2 * expected
    # With one threshold for all rows, those at which the window is first full would have about three times their share.
    assert constant[9] > 2 * streams / 100


def test_streams_that_cannot_alarm_are_forgotten_and_nothing_else(monkeypatch):
    reference = np.random.default_rng(3).normal(size=(3_000, 1))

    def limits():
        return calibrate(
            lambda apart: Mean(np.delete(reference, apart, axis=0)), reference, horizon=30, ert=5_000, seed=0
        )

    few = limits()
    # Room for all streams, 10,000 of them, instead of 2,000.
    monkeypatch.setattr(calibration, "STREAMS_MIN", 10_000)
    assert few.tobytes() == limits().tobytes()


def test_after_an_alarm_it_starts_anew(acs):
    detector = OnlineCVMDrift(ert=ERT, windows=20).fit(acs[2015].take(slice(0, 600)))
    old = acs[2015].columns[0] > 70
    stream = acs[2015].take(np.flatnonzero(old)[:60])
    first, after = detector.advance(detector.start(), stream.take(slice(0, 30)), np.zeros(30, dtype=np.int64))
    assert first.alarm_row == 19
    assert after.rows == 10
    assert detector.score(stream.take(slice(20, 60))).alarm_row == 19
    # Ten rows are known, ten more fill the window again.
    assert detector.advance(after, stream.take(slice(30, 60)), np.zeros(30, dtype=np.int64))[0].alarm_row == 9


def test_parameters_that_say_nothing_are_refused(acs):
    with pytest.raises(BadInput, match="windows is 'wide'"):
        OnlineCVMDrift(windows="wide")
    with pytest.raises(BadInput, match="the least possible is 5"):
        OnlineCVMDrift(windows="3,20")
    with pytest.raises(BadInput, match="ert is 10"):
        OnlineCVMDrift(ert=10)
    with pytest.raises(BadInput, match="has 200 rows: at least 300 are needed"):
        OnlineCVMDrift().fit(acs[2015].take(slice(0, 200)))
