"""Tests made together find what each finds alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from detectors.drift import batch
from detectors.drift.categorical import ChiSquared
from detectors.drift.cramer_von_mises import in_order
from detectors.drift.feature_test import Settings
from detectors.drift.numeric import CramerVonMises, KolmogorovSmirnov
from detectors.drift.rates import MissingRate, UnseenRate
from govern.frame import MISSING, UNSEEN


@pytest.mark.parametrize("seed", range(6))
def test_together_as_alone(make_table, seed):
    """Columns with ties, of both samples or of one, with missing values, with none, and windows of all sizes."""
    rng = np.random.default_rng(seed)
    reference = make_table(int(rng.integers(60, 3000)), seed=2 * seed, numeric=9, categorical=4)
    window = make_table(int(rng.integers(20, 1500)), seed=2 * seed + 1, numeric=9, categorical=4, shift=0.2 * seed)
    for frame in (reference, window):
        frame.columns[0][:] = np.round(frame.columns[0], 1)
        frame.columns[2][::7] = np.nan
    window.columns[1][:5] = reference.columns[1][:5]
    window.columns[3][1] = window.columns[3][0]
    window.columns[4][:] = np.nan
    window.columns[9][:4], window.columns[10][:3] = MISSING, UNSEEN
    window.columns[11][:] = 1
    for tail in ("asymptotic", "guarded", "exact") if len(window) < 200 else ("asymptotic", "guarded"):
        how = Settings(level=0.05, tail=tail, draws=199)
        tests = [kind.of(reference, place) for kind in (KolmogorovSmirnov, CramerVonMises) for place in range(9)]
        tests[5:5] = [ChiSquared.of(reference, place) for place in range(9, 13)]
        tests[2:2] = [MissingRate.of(reference, place) for place in range(13)]
        tests[20:20] = [UnseenRate.of(reference, place) for place in range(9, 13)]
        together = [dataclasses.astuple(one) for one in batch.run(tests, window, how)]
        alone = [dataclasses.astuple(test.run(window, how)) for test in tests]
        np.testing.assert_allclose(together, alone, rtol=1e-9, atol=1e-12, equal_nan=True)


def test_whole_numbers_in_the_order_of_the_values():
    values = np.array([-np.inf, -1e308, -2.5, -2.0, -5e-324, -0.0, 0.0, 5e-324, 2.0, 2.5, 1e308, np.inf])
    keys = in_order(values)
    np.testing.assert_array_equal(np.sign(np.diff(keys)), (values[1:] > values[:-1]).astype(int))


def test_blocks_do_not_matter(make_table, monkeypatch):
    reference, window = make_table(500, seed=1, numeric=7), make_table(100, seed=2, numeric=7, shift=0.3)
    tests = [KolmogorovSmirnov.of(reference, place) for place in range(7)]
    whole = batch.run(tests, window, Settings(level=0.05))
    monkeypatch.setattr(batch, "_CELLS", 250)
    assert batch.run(tests, window, Settings(level=0.05)) == whole
