"""The detector whose centre moves along: what it begins with, what it learns, and what it forgets."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import pytest

from detectors.coding import Coding
from detectors.outlier.held_out import split
from detectors.outlier.mahalanobis import MahalanobisOutlier
from detectors.outlier.online_mahalanobis import REACH, Moments, OnlineMahalanobisOutlier
from govern.errors import BadInput
from govern.frame import Frame

WINDOW = 100


def flagged(detector: OnlineMahalanobisOutlier, stream: Frame) -> npt.NDArray[np.bool_]:
    """Of each row, when the stream is judged window by window."""
    memory, found = detector.start(), []
    for start in range(0, len(stream), WINDOW):
        window = stream.take(slice(start, start + WINDOW))
        scores, memory = detector.advance(memory, window, np.zeros(len(window), dtype=np.int64))
        found.append(scores.flagged)
    return np.concatenate(found)


def moving(stream: Frame, distance: float) -> Frame:
    """The stream, its first number moving away by this many standard deviations from its first row to its last."""
    first = stream.columns[0] + np.linspace(0.0, distance, len(stream))
    return dataclasses.replace(stream, columns=(first, *stream.columns[1:]))


def test_it_begins_as_the_detector_that_does_not_move(acs):
    """But for the directions in which the reference hardly varies, of which neither knows much."""
    still, online = (one(seed=3).fit(acs[2015]) for one in (MahalanobisOutlier, OnlineMahalanobisOutlier))
    ours, theirs = online.score(acs[2018]), still.score(acs[2018])
    np.testing.assert_allclose(ours.scores, theirs.scores, rtol=0.05)
    assert (ours.flagged != theirs.flagged).mean() < 0.002


def test_its_distances_are_those_of_the_inverse_covariance(make_table):
    """With the variance that every direction is granted."""
    reference, window = make_table(900, seed=1, categorical=0), make_table(200, seed=2, categorical=0)
    online = OnlineMahalanobisOutlier(seed=3).fit(reference)
    learned, _ = split(len(reference), 3)
    coding = Coding.of(reference.take(learned), range(3))
    known, points = coding.points(reference.take(learned)), coding.points(window)
    offsets = points - known.mean(axis=0)
    terms = offsets * (offsets @ np.linalg.inv(np.cov(known.T, ddof=0) + np.eye(3) / len(learned)))
    np.testing.assert_allclose(online.score(window).scores, np.sqrt(terms.sum(axis=1)), rtol=1e-10)
    np.testing.assert_allclose(online.start().parts(points), np.maximum(terms, 0.0), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("at_most", [np.inf, 150.0])
def test_moments_are_those_of_all_rows_by_their_weights(make_table, at_most):
    reference = make_table(900, seed=1)
    points = Coding.of(reference, range(5)).points(reference)
    memory, weights = Moments.of(points[:400]), np.ones(400)
    for start, stop in ((400, 401), (401, 500), (500, 900)):
        memory = memory.with_points(points[start:stop], at_most=at_most)
        weights = np.concatenate((weights * min(1.0, at_most / weights.sum()), np.ones(stop - start)))
    assert float(memory.count) == pytest.approx(weights.sum())
    np.testing.assert_allclose(memory.centre, np.average(points, axis=0, weights=weights), atol=1e-12)
    np.testing.assert_allclose(memory.covariance, np.cov(points.T, aweights=weights, ddof=0), atol=1e-12)
    assert (memory.covariance == memory.covariance.T).all()


def test_it_follows_what_moves_slowly(make_table):
    reference, stream = make_table(2000, seed=1), moving(make_table(12_000, seed=2), 6.0)
    online = OnlineMahalanobisOutlier(max_n=1000, seed=3).fit(reference)
    still = MahalanobisOutlier(seed=3).fit(reference).score(stream).flagged
    assert still[-2000:].mean() > 0.5
    assert flagged(online, stream)[-2000:].mean() <= 0.03


def test_no_more_is_flagged_for_having_learned_while_nothing_changes(make_table):
    """Rare categories are far out: were they not learned for that, they would be ever further out. The guarantee is on
    average over references, as for the detector that does not move.
    """
    rates = []
    for seed in range(8):
        reference, stream = make_table(2000, seed=seed), make_table(10_000, seed=100 + seed)
        online = OnlineMahalanobisOutlier(contamination=0.02, max_n=1000, seed=seed).fit(reference)
        rates.append(flagged(online, stream)[-5000:].mean())
    assert 0.005 < np.mean(rates) <= 0.02


def test_a_wild_value_moves_the_centre_no_further_than_a_strange_one(make_table):
    reference = make_table(2000, seed=1, categorical=0)
    online = OnlineMahalanobisOutlier(seed=3).fit(reference)
    row = reference.take([0])
    centres = []
    for value in (30.0, 3e8):
        wild = dataclasses.replace(row, columns=(np.array([value]), *(np.zeros(1) for _ in row.columns[1:])))
        found, memory = online.advance(online.start(), wild, np.zeros(1, dtype=np.int64))
        assert found.flagged.all()
        centres.append(memory.centre)
    learned, _ = split(len(reference), 3)
    assert np.abs(centres[1] - online.start().centre).max() <= 1.1 * REACH * online.threshold / len(learned)
    np.testing.assert_allclose(*centres, atol=1e-3)


def test_forgetting_by_too_few_rows_is_refused():
    with pytest.raises(BadInput, match="max_n is 10: the least possible is 50"):
        OnlineMahalanobisOutlier(max_n=10)
