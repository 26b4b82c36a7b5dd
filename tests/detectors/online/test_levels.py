"""Cumulative sums and the adaptive window against the same in plain Python."""

from __future__ import annotations

import json
from itertools import chain

import numpy as np
import pytest
from scipy.stats import bernoulli, norm

from detectors import artifacts
from detectors.memory import Memory
from detectors.online.adwin import BUCKETS, LEAST, SIZES, AdwinDrift, Buckets
from detectors.online.levels import Cusum
from detectors.online.page_hinkley import PageHinkleyDrift
from detectors.online.traces import MOST, Traces
from govern.artifact import MANIFEST
from govern.errors import ArtifactError, BadInput
from govern.frame import MISSING, UNSEEN, Frame
from tests.detectors.online.test_run_lengths import chosen


@pytest.fixture(scope="module")
def reference():
    return np.random.default_rng(1).normal(size=(500, 2))


def test_numbers_are_ranks_of_one_scale_and_categories_indicators(reference):
    table = np.column_stack((reference * [1.0, 1e6], np.repeat([0, 1, 1, 2, 3], 100)))
    table[0, 2] = 4
    traces = Traces(table, [0, 0, 6])
    found = traces.of(table)
    # Unseen, missing, four of their own, and the rare: one of 500 has category 4, none 5.
    assert traces.owners.tolist() == [0, 1, 2, 2, 2, 2, 2, 2, 2]
    assert traces.binary.tolist() == [False] * 2 + [True] * 7
    assert found[:, :2].mean(axis=0) == pytest.approx([0.0, 0.0], abs=1e-12)
    assert found[:, :2].std(axis=0) == pytest.approx([1.0, 1.0], abs=1e-12)
    assert found[:, 2:].sum(axis=0).tolist() == [0, 0, 200, 100, 100, 99, 1]
    assert traces.shares[2] == traces.shares[3] == pytest.approx(0.5 / 501)
    wild = traces.of(np.array([[1e300, np.nan, -1], [-np.inf, 0.0, -2], [0.0, 0.0, 5]]))
    assert wild[0, 0] == -wild[1, 0] == pytest.approx(np.sqrt(3), rel=1e-4)
    assert np.isnan(wild[0, 1])
    assert wild[:, 2:].argmax(axis=1).tolist() == [1, 0, 6]


def test_a_feature_has_only_so_many_traces_and_two_values_have_one(reference):
    codes = np.random.default_rng(4).integers(0, 1_000, 500)
    assert len(Traces(codes[:, None].astype(float), [1_000]).owners) == 3
    assert len(Traces((codes[:, None] % 90).astype(float), [90]).owners) <= 3 + MOST
    assert len(Traces((codes[:, None] % 2).astype(float), [2]).owners) == 3
    numbers = Traces((codes[:, None] % 2) * 7.0, [0])
    assert numbers.of(np.array([[0.0], [7.0], [np.nan]])).ravel().tolist()[:2] == [0.0, 1.0]
    assert numbers.binary.tolist() == [True]


def test_cumulative_sums_are_pages(reference):
    rng = np.random.default_rng(2)
    table = np.column_stack((reference[:, 0], np.repeat([0, 1, 2, 2, 2], 100)))
    stream = np.column_stack((rng.normal(0.4, 1.0, size=80), rng.choice([-1, 0, 1, 2], 80, p=[0.05, 0.5, 0.3, 0.15])))
    stream[5:9, 0] = np.nan
    tracker = Cusum(table, [0, 3], 0.25)
    found = tracker.simulate(tracker.prepare(stream))
    traces = Traces(table, [0, 3])
    expected = np.zeros((80, 2))
    for trace, values in enumerate(traces.of(stream).T):
        for sign in (1, -1):
            share = max(traces.shares[trace], 0.001)
            other = np.sin(max(0.0, 2 * np.arcsin(np.sqrt(share)) + sign * 0.5) / 2) ** 2 if trace else np.nan
            other = min(max(other, share / 1000), 20 * share) if trace else np.nan
            total = lowest = 0.0
            for row, value in enumerate(values):
                if trace:
                    total += np.log(other / share if value else (1 - other) / (1 - share))
                elif not np.isnan(value):
                    total += norm.logpdf(value, sign * 0.5) - norm.logpdf(value)
                lowest = min(lowest, total)
                at = row, traces.owners[trace]
                expected[at] = max(expected[at], total - lowest)
    assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("slack", [0.1, 0.2, 1.0])
def test_one_row_that_is_rare_in_the_reference_is_no_change_and_some_are(slack):
    """Of 50,000 rows none has a missing or unseen category, and one a number: no calibration has seen what these do."""
    codes = np.repeat([0.0, 1.0, 2.0, 3.0], 12_500)
    flags = np.zeros(50_000)
    flags[0] = 1.0
    tracker = Cusum(np.column_stack((codes, flags)), [4, 0], slack)
    quiet = np.tile([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [3.0, 0.0]], (100, 1))
    for column, value in ((0, -1.0), (0, -2.0), (1, 1.0)):
        stream = quiet.copy()
        stream[200, column] = value
        found = tracker.simulate(tracker.prepare(stream))[:, column]
        before = found[:200].max()
        assert found.max() - before <= np.log(20.0)
        stream[200:300:5, column] = value
        assert tracker.simulate(tracker.prepare(stream))[:, column].max() - before > 20.0


def test_the_best_cut_is_found_between_buckets(reference):
    rng = np.random.default_rng(3)
    numbers = np.concatenate((np.zeros(90), np.full(60, 0.8))) + rng.normal(size=150)
    stream = np.column_stack((numbers, np.concatenate((rng.random(90) < 0.2, rng.random(60) < 0.6))))
    table = np.column_stack((reference[:, 0], np.repeat([0, 0, 0, 0, 1], 100)))
    tracker = Buckets(table, [0, 2])
    found = tracker.simulate(tracker.prepare(stream))
    traces = Traces(table, [0, 2])
    assert traces.binary.tolist() == [False, True, True, True]
    for feature, trace in ((0, 0), (1, 3)):
        sizes: list[list[list[float]]] = [[] for _ in range(10)]
        for row, value in enumerate(traces.of(stream)[:, trace].tolist()):
            sizes[0].insert(0, [value])
            for size in range(9):
                if len(sizes[size]) > BUCKETS:
                    last = sizes[size].pop()
                    sizes[size + 1].insert(0, sizes[size].pop() + last)
            newest_first = [bucket for size in sizes for bucket in size]
            best, n = 0.0, row + 1
            for cut in range(1, len(newest_first)):
                parts = [np.array(list(chain(*part))) for part in (newest_first[:cut], newest_first[cut:])]
                recent, before = (len(part) for part in parts)
                if min(recent, before) < LEAST:
                    continue
                if feature:
                    both = np.concatenate(parts)
                    ratio = sum(bernoulli.logpmf(part, part.mean()).sum() for part in parts)
                    ratio -= bernoulli.logpmf(both, both.mean()).sum()
                else:
                    ratio = (parts[0].mean() - parts[1].mean()) ** 2 * recent * before / n / 2
                if not feature or 0 < both.sum() < n:
                    best = max(best, ratio + np.log(recent * before / n))
            if n < 2 * LEAST:
                assert np.isnan(found[row, feature])
            else:
                assert found[row, feature] == pytest.approx(best - np.log(max(1, np.log2(n / 4 / LEAST))), abs=1e-9)
        assert sum(len(bucket) for size in sizes for bucket in size) == 150
        assert found[-1, feature] > 1.5 * found[89, feature]


def test_a_stream_of_19_rows_has_no_cut_with_enough_on_both_sides(reference):
    tracker = Buckets(reference, [0, 0])
    found = tracker.simulate(tracker.prepare(reference[:300]))
    assert np.isnan(found[:19]).all()
    assert np.isfinite(found[19:]).all()


def few(frame):
    """A number and two categories, which take less time to fit."""
    return chosen(frame, ("AGEP", "MAR", "CIT"))


def test_a_category_never_seen_is_found_and_told_by_its_feature(acs):
    """A feature that is all missing, and one that takes values which the schema does not list."""
    frame = few(acs[2015].take(slice(0, 1_200)))
    names = [feature.name for feature in frame.schema.features]
    detectors = [made(ert=1_000).fit(frame.take(slice(0, 1_000))) for made in (PageHinkleyDrift, AdwinDrift)]
    for code, name in ((MISSING, "MAR"), (UNSEEN, "CIT")):
        columns = list(frame.columns)
        at = names.index(name)
        columns[at] = np.concatenate((columns[at][:1_100], np.full(100, code, dtype=np.int32)))
        changed = Frame(frame.schema, tuple(columns)).take(slice(1_060, None))
        for detector in detectors:
            told = detector.score(changed)
            assert told.alarm
            assert 40 <= told.alarm_row < 65
            assert [one.feature for one in told.features if one.is_drift] == [name]
            assert [one.n for one in told.features] == [told.alarm_row + 1] * len(told.features)


@pytest.mark.parametrize(("online", "current"), [(AdwinDrift, 3), (PageHinkleyDrift, 2)])
def test_an_artifact_of_a_former_version_is_refused(online, current, acs, tmp_path):
    online().fit(few(acs[2015].take(slice(0, 700)))).save(tmp_path / "a")
    path = tmp_path / "a" / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), "state_version": current - 1}))
    with pytest.raises(
        ArtifactError,
        match=rf"'{online.method}' is {current - 1}: this release reads version {current} .fit it again",
    ):
        artifacts.load(tmp_path / "a")


def test_memory_of_numeric_features_alone_is_refused(acs):
    """As former versions kept it: the worker is told, instead of going on with sums of other things."""
    frame = few(acs[2015].take(slice(0, 700)))
    for detector, arrays in (
        (PageHinkleyDrift(), (np.zeros((3, 1)),)),
        (AdwinDrift(), (np.zeros((1, SIZES, BUCKETS + 1)), np.zeros((1, SIZES), dtype=np.int64))),
    ):
        detector.fit(frame)
        with pytest.raises(BadInput, match="what it remembered cannot be read"):
            detector.unpack(detector.pack(Memory(5, arrays)))


def test_what_it_remembers_does_not_grow_with_the_stream(reference):
    tracker = Buckets(reference, [0, 0])
    stream = np.random.default_rng(4).normal(size=(40_000, 2))
    _, few = tracker.walk(tracker.begin(), stream[:10])
    _, many = tracker.walk(few, stream[10:])
    assert tracker.accepts(many, 40_000)
    assert [array.shape for array in many] == [array.shape for array in few]
    assert (many[1] << np.arange(many[1].shape[1])).sum(axis=1).tolist() == [40_000, 40_000]
    assert many[0].sum() == pytest.approx(Traces(reference, [0, 0]).of(stream).sum(), rel=1e-9)


def test_a_slack_that_would_never_settle_is_refused():
    with pytest.raises(BadInput, match=r"slack is 0\.01"):
        PageHinkleyDrift(slack=0.01)
