from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from detectors.drift.correction import corrected_threshold, require_correction
from govern.errors import BadInput

P_VALUES = st.lists(st.floats(1e-9, 1.0), min_size=1, max_size=40).map(np.array)


@given(P_VALUES, st.floats(0.001, 0.5))
def test_fdr_rejects_what_scipys_adjusted_p_values_reject(p_values, level):
    threshold = corrected_threshold(p_values, level, "fdr")
    adjusted = false_discovery_control(p_values, method="bh")
    undecided = np.isclose(adjusted, level, rtol=1e-9)
    assert ((p_values < threshold) == (adjusted < level))[~undecided].all() or undecided.any()


def test_fdr_steps_up():
    # By hand: steps 0.0125, 0.025, 0.0375, 0.05; the third smallest is below its step, the second is not.
    assert corrected_threshold(np.array([0.9, 0.03, 0.001, 0.0371]), 0.05, "fdr") == pytest.approx(0.0375)


@given(P_VALUES, st.floats(0.001, 0.5))
def test_holm_steps_down(p_values, level):
    """By the definition: in order, until the first that is not below level over the number of those that are left."""
    order, rejected = np.argsort(p_values, kind="stable"), set()
    for left, at in zip(range(len(p_values), 0, -1), order, strict=True):
        if not p_values[at] < level / left:
            break
        rejected.add(int(at))
    threshold = corrected_threshold(p_values, level, "holm")
    assert set(np.flatnonzero(p_values < threshold).tolist()) == rejected
    assert rejected >= set(np.flatnonzero(p_values < corrected_threshold(p_values, level, "bonferroni")).tolist())


def test_fdr_without_a_rejection():
    assert corrected_threshold(np.array([0.5, 0.9]), 0.05, "fdr") == 0.025


def test_bonferroni_and_none():
    p_values = np.array([0.5, 0.001, np.nan, 0.2])
    assert corrected_threshold(p_values, 0.05, "bonferroni") == 0.0125
    assert corrected_threshold(p_values, 0.05, "none") == 0.05


def test_an_untested_feature_still_counts():
    assert corrected_threshold(np.array([0.02, np.nan]), 0.05, "fdr") == 0.025


def test_unknown_correction():
    with pytest.raises(BadInput, match="known are bonferroni, holm, fdr, none"):
        require_correction("sidak", method="ks")
