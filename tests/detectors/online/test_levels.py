"""Cumulative sums and the adaptive window against the same in plain Python."""

from __future__ import annotations

import json
from itertools import chain

import numpy as np
import pytest

from detectors import artifacts
from detectors.online.adwin import BUCKETS, LEAST, AdwinDrift, Buckets
from detectors.online.levels import Cusum, Ranks
from detectors.online.page_hinkley import PageHinkleyDrift
from govern.artifact import MANIFEST
from govern.errors import ArtifactError, BadInput


@pytest.fixture(scope="module")
def reference():
    return np.random.default_rng(1).normal(size=(500, 2))


def test_ranks_have_one_scale_and_forget_how_wild_a_value_is(reference):
    ranks = Ranks(reference * [1.0, 1e6])
    found = ranks.of(reference * [1.0, 1e6])
    assert found.mean(axis=0) == pytest.approx([0.0, 0.0], abs=1e-12)
    assert found.std(axis=0) == pytest.approx([1.0, 1.0], abs=1e-4)
    wild = ranks.of(np.array([[1e300, np.nan], [-np.inf, 0.0]]))
    assert wild[0, 0] == -wild[1, 0] == pytest.approx(np.sqrt(3))
    assert np.isnan(wild[0, 1])


def test_cumulative_sums_are_pages(reference):
    stream = np.random.default_rng(2).normal(0.4, 1.0, size=(80, 2))
    stream[5:9, 1] = np.nan
    tracker = Cusum(reference, 0.25)
    found = tracker.simulate(tracker.prepare(stream))
    ranks = Ranks(reference).of(stream)
    for feature in range(2):
        up = down = lowest_up = lowest_down = 0.0
        for row, rank in enumerate(ranks[:, feature]):
            if not np.isnan(rank):
                up, down = up + rank - 0.25, down - rank - 0.25
                lowest_up, lowest_down = min(lowest_up, up), min(lowest_down, down)
            assert found[row, feature] == pytest.approx(max(up - lowest_up, down - lowest_down), abs=1e-9)


def test_the_best_cut_is_found_between_buckets(reference):
    stream = np.concatenate((np.zeros(90), np.full(60, 0.8))) + np.random.default_rng(3).normal(size=150)
    tracker = Buckets(reference[:, :1])
    found = tracker.simulate(tracker.prepare(stream[:, None]))[:, 0]
    sizes: list[list[list[float]]] = [[] for _ in range(10)]
    for row, rank in enumerate(Ranks(reference[:, :1]).of(stream[:, None])[:, 0].tolist()):
        sizes[0].insert(0, [rank])
        for size in range(9):
            if len(sizes[size]) > BUCKETS:
                last = sizes[size].pop()
                sizes[size + 1].insert(0, sizes[size].pop() + last)
        newest_first = [bucket for size in sizes for bucket in size]
        best = -1.0
        for cut in range(1, len(newest_first)):
            recent, before = (list(chain(*part)) for part in (newest_first[:cut], newest_first[cut:]))
            if min(len(recent), len(before)) >= LEAST:
                apart = abs(np.mean(recent) - np.mean(before))
                best = max(best, apart * np.sqrt(len(recent) * len(before) / (row + 1)))
        if best < 0:
            assert np.isnan(found[row])
        else:
            assert found[row] == pytest.approx(best, abs=1e-9)
    assert sum(len(bucket) for size in sizes for bucket in size) == 150
    assert found[-1] > 1.5 * found[89]


def test_a_stream_of_61_rows_has_no_cut_with_enough_on_both_sides(reference):
    tracker = Buckets(reference)
    found = tracker.simulate(tracker.prepare(reference[:300]))
    assert np.isnan(found[:61]).all()
    assert np.isfinite(found[61:]).all()


def test_an_artifact_of_version_1_is_refused(acs, tmp_path):
    AdwinDrift().fit(acs[2015].take(slice(0, 700))).save(tmp_path / "a")
    path = tmp_path / "a" / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), "state_version": 1}))
    with pytest.raises(
        ArtifactError, match=r"state_version of 'adwin' is 1: this release reads version 2 .fit it again"
    ):
        artifacts.load(tmp_path / "a")


def test_what_it_remembers_does_not_grow_with_the_stream(reference):
    tracker = Buckets(reference)
    stream = np.random.default_rng(4).normal(size=(40_000, 2))
    _, few = tracker.walk(tracker.begin(), stream[:10])
    _, many = tracker.walk(few, stream[10:])
    assert tracker.accepts(many, 40_000)
    assert [array.shape for array in many] == [array.shape for array in few]
    assert (many[1] << np.arange(many[1].shape[1])).sum(axis=1).tolist() == [40_000, 40_000]
    assert many[0].sum() == pytest.approx(Ranks(reference).of(stream).sum(), rel=1e-9)


def test_a_slack_that_would_never_settle_is_refused():
    with pytest.raises(BadInput, match=r"slack is 0\.01"):
        PageHinkleyDrift(slack=0.01)
