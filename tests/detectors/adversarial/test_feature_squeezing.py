"""Feature squeezing: its squeezers against scipy's and numpy's, and what it says of wrong answers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.ndimage import median_filter
from scipy.stats import binom
from sklearn.metrics import roc_auc_score

from detectors.adversarial.feature_squeezing import FeatureSqueezing
from detectors.adversarial.squeezers import Squeezers
from govern.errors import BadInput
from govern.frame import MISSING, UNSEEN, Frame


def _squeezed(frame: Frame, numeric: int, **params: int) -> dict[str, np.ndarray]:
    squeezers = Squeezers.of(frame, tuple(range(numeric)), **{"bits": 0, "cells": 0, "width": 0, **params})
    return {name: np.column_stack(one.columns[:numeric]) for name, one in squeezers(frame).items()}


def test_rounding_leaves_as_many_values_as_bits_say(make_table):
    frame = make_table(500, seed=1)
    before = np.column_stack(frame.columns[:3])
    rounded = _squeezed(frame, 3, bits=2)["bits"]
    spans = np.ptp(before, axis=0)
    assert [len(np.unique(column)) for column in rounded.T] == [4, 4, 4]
    assert (np.abs(rounded - before) <= spans / 6 + 1e-12).all()
    assert (np.ptp(rounded, axis=0) == spans).all()


def test_cells_hold_equal_shares(make_table):
    binned = _squeezed(make_table(800, seed=1), 3, cells=8)["cells"]
    for column in binned.T:
        assert np.unique(column, return_counts=True)[1].tolist() == [100] * 8


def test_the_median_is_scipys(make_table):
    frame = make_table(50, seed=1, numeric=20, categorical=1)
    images = np.column_stack(frame.columns[:20]).reshape(50, 4, 5)
    smooth = _squeezed(frame, 20, width=5)["median"].reshape(50, 4, 5)
    np.testing.assert_array_equal(smooth, [median_filter(image, 3, mode="nearest") for image in images])


def test_what_is_missing_stays_missing(make_table):
    frame = make_table(300, seed=1, numeric=9, missing=0.2)
    gone = np.isnan(np.column_stack(frame.columns[:9]))
    squeezed = _squeezed(frame, 9, bits=3, cells=4, width=3)
    assert list(squeezed) == ["bits", "cells", "median"]
    for values in squeezed.values():
        np.testing.assert_array_equal(np.isnan(values), gone)


def test_wrong_answers_score_higher_and_clean_ones_keep_the_rate(make_table):
    detector = FeatureSqueezing(false_positive_rate=0.05).fit(make_table(3000, seed=1))
    window = make_table(1000, seed=2)
    p = window.outputs["predict_proba"]
    sure = np.flatnonzero(np.abs(p[:, 0] - 0.5) > 0.3)
    wrong = dataclasses.replace(window, outputs={"predict_proba": 1.0 - p}).take(sure)
    clean, attacked = detector.score(window), detector.score(wrong)
    # The threshold is itself a rank among 900 rows.
    assert clean.flagged.sum() <= binom.ppf(0.999, 1000, 0.05 + 3 * np.sqrt(0.05 * 0.95 / 900))
    assert attacked.flagged.mean() > 0.9
    labels = np.repeat([1, 0], [len(sure), len(window)])
    assert roc_auc_score(labels, np.concatenate((attacked.scores, clean.scores))) > 0.95
    assert clean.scores.min() >= 0.0
    assert attacked.scores.max() <= 2.0


def test_missing_and_unseen_values_are_scored(make_table):
    reference, window = make_table(800, seed=1, missing=0.1), make_table(20, seed=2)
    codes = window["c0"].copy()
    codes[:] = [UNSEEN, MISSING] * 10
    odd = dataclasses.replace(window, columns=(np.full(20, np.nan), *window.columns[1:3], codes, window.columns[4]))
    assert np.isfinite(FeatureSqueezing(image_width=3).fit(reference).score(odd).scores).all()


def test_another_number_of_classes_is_refused(make_table):
    detector = FeatureSqueezing().fit(make_table(400, seed=1))
    three = dataclasses.replace(make_table(5), outputs={"predict_proba": np.full((5, 3), 1 / 3)})
    with pytest.raises(BadInput, match="has 3 classes: in the reference it had 2"):
        detector.score(three)


def test_what_cannot_be_squeezed_is_refused(make_table):
    with pytest.raises(BadInput, match="has no numeric feature: categories are not squeezed"):
        FeatureSqueezing().fit(make_table(400, numeric=0))
    with pytest.raises(BadInput, match="image_width is 2: 3 numeric features are no rows of so many pixels"):
        FeatureSqueezing(image_width=2).fit(make_table(400))
    empty = make_table(400)
    blank = dataclasses.replace(empty, columns=(np.full(400, np.nan), *empty.columns[1:]))
    with pytest.raises(BadInput, match="feature 'x0' has no value"):
        FeatureSqueezing().fit(blank)


@pytest.mark.parametrize("params", [{"bits": -1}, {"cells": -1}, {"image_width": -1}, {"epochs": 0}])
def test_bad_parameters(params):
    with pytest.raises(BadInput, match=f"feature_squeezing: {next(iter(params))} is"):
        FeatureSqueezing(**params)


def test_no_squeezer_is_refused():
    with pytest.raises(BadInput, match="without a squeezer there is nothing to compare with"):
        FeatureSqueezing(bits=0, cells=0)
