"""Label consistency: the share of neighbours by scikit-learn, and what it says of wrong answers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.neighbors import NearestNeighbors

from detectors.adversarial.label_consistency import LabelConsistency
from detectors.coding import Coding
from detectors.outlier.held_out import split
from govern.errors import BadInput


def test_the_share_is_that_of_the_nearest_neighbours(make_table):
    reference, window = make_table(900, seed=1), make_table(100, seed=2)
    detector = LabelConsistency(k=7).fit(reference)
    learned = reference.take(split(len(reference), 0)[0])
    coding = Coding.of(learned, range(5))
    peer = NearestNeighbors(n_neighbors=7).fit(coding.points(learned))
    distances, where = peer.kneighbors(coding.points(window))
    weights = 1.0 / (1.0 + distances / distances[:, -1:]) ** 2
    labels, served = (frame.outputs["predict_proba"][:, 0] > 0.5 for frame in (learned, window))
    expected = (weights * (labels[where] != served[:, None])).sum(axis=1) / weights.sum(axis=1)
    np.testing.assert_allclose(detector.score(window).scores, expected, atol=1e-9)


def test_wrong_answers_are_flagged_and_clean_ones_keep_the_rate(make_table):
    detector = LabelConsistency(false_positive_rate=0.05).fit(make_table(3000, seed=1, categorical=0))
    window = make_table(1000, seed=2, categorical=0)
    p = window.outputs["predict_proba"]
    sure = np.flatnonzero(np.abs(p[:, 0] - 0.5) > 0.4)
    wrong = dataclasses.replace(window, outputs={"predict_proba": 1.0 - p}).take(sure)
    # The threshold is itself a rank among 900 rows.
    assert detector.score(window).flagged.sum() <= binom.ppf(0.999, 1000, 0.05 + 3 * np.sqrt(0.05 * 0.95 / 900))
    assert detector.score(wrong).flagged.mean() > 0.95


def test_rows_that_are_all_the_same_have_neighbours_at_no_distance(make_table):
    reference = make_table(400, seed=1)
    same = reference.take([0] * 400)
    scores = LabelConsistency().fit(same).score(same.take([0]))
    assert scores.scores.tolist() == [0.0]


@pytest.mark.parametrize("params", [{"k": 0}, {"k": 5, "max_reference": 4}, {"false_positive_rate": 1.0}])
def test_bad_parameters(params):
    with pytest.raises(BadInput, match=f"label_consistency: {list(params)[-1]} is"):
        LabelConsistency(**params)
