"""Power and false alarms as measured on the reference, against scipy and arithmetic."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import beta, ks_2samp

from detectors.drift.ks import KSDrift
from detectors.drift.prediction import PredictionDrift
from detectors.online.cvm import OnlineCVMDrift
from detectors.outlier.mahalanobis import MahalanobisOutlier
from detectors.power import HELD_OUT, WANTED, power
from detectors.shifts import AnswerShift, CategoryShift, LevelShift, of_features, of_outputs
from govern.frame import MISSING


def stored(detector, reference, tmp_path):
    detector.fit(reference).save(tmp_path / "artifact")
    return tmp_path / "artifact"


def test_the_least_shift_is_what_scipy_sees_as_often(make_table, tmp_path):
    reference = make_table(2_000, numeric=1, categorical=0, seed=1)
    path = stored(KSDrift(p_val=0.05), reference, tmp_path)
    found = power(path, reference, [100])
    (sized,) = found.sized
    (curve,) = sized.curves
    assert curve.unit == "sigma"
    assert curve.least is not None
    generator = np.random.default_rng(0)
    learned = round(2_000 * (1 - HELD_OUT))
    seen = [
        ks_2samp(generator.normal(size=learned), generator.normal(curve.least, size=100), method="asymp").pvalue < 0.05
        for _ in range(400)
    ]
    assert np.mean(seen) == pytest.approx(WANTED, abs=0.12)
    assert power(path, reference, [100]).sized[0].curves == sized.curves
    shares = [share for _, share in curve.points]
    assert shares == sorted(shares)
    assert sized.alarms <= 0.12
    assert len(sized.p_values) in (0, sized.trials)


def test_false_alarms_are_as_stated(make_table, tmp_path):
    reference = make_table(600, seed=1)
    drift = power(stored(KSDrift(p_val=0.01), reference, tmp_path), reference, [50, 100], trials=20)
    assert [drift.false_alarms(one, 30_000) for one in drift.sized] == pytest.approx([6.0, 3.0])
    online = power(stored(OnlineCVMDrift(ert=500), reference, tmp_path), reference, [50], trials=2)
    assert online.false_alarms(online.sized[0], 30_000) == pytest.approx(60.0)
    assert online.sized[0].state_bytes > 0
    rows = power(stored(MahalanobisOutlier(contamination=0.02), reference, tmp_path), reference, [50], trials=40)
    assert [one.rows for one in rows.sized] == [1]
    assert rows.false_alarms(rows.sized[0], 30_000) == pytest.approx(600.0)
    assert rows.sized[0].curves[0].least is not None, "a row that lies far out is seen"
    counted = power(stored(KSDrift(correction="none"), reference, tmp_path), reference, [50], trials=40)
    assert np.isnan(counted.stated)
    assert counted.false_alarms(counted.sized[0], 50 * 100) == pytest.approx(counted.sized[0].alarms * 100)
    # 12 windows of 50 rows have no row in common, 6 of 100: too few to say how often there are alarms without change.
    hits = counted.sized[0].alarms * 12
    low, high = counted.sized[0].interval
    assert low == pytest.approx(beta.ppf(0.025, hits, 13 - hits) if hits else 0.0)
    assert high == pytest.approx(beta.ppf(0.975, hits + 1, 12 - hits))
    assert drift.sized[1].interval is None
    assert np.isnan(replace(drift, stated=float("nan")).false_alarms(drift.sized[1], 30_000))


def test_answers_are_what_moves_for_a_detector_of_answers(make_table, tmp_path):
    reference = make_table(800, seed=1)
    found = power(stored(PredictionDrift(), reference, tmp_path), reference, [100], trials=40)
    assert found.sized[0].curves
    assert all(curve.least is not None for curve in found.sized[0].curves)


def test_what_a_reference_is_too_short_for_is_said(make_table, tmp_path):
    reference = make_table(200, seed=1)
    found = power(stored(KSDrift(), reference, tmp_path), reference, [1, 1_000], trials=4)
    assert ["at least" in one.why_not or "rows is needed" in one.why_not for one in found.sized] == [True, True]
    tight = make_table(400, seed=1)
    rows = power(stored(MahalanobisOutlier(contamination=0.01), tight, tmp_path), tight, [50], trials=4)
    assert "rows" in rows.sized[0].why_not


def test_levels_move_by_their_standard_deviation(make_table):
    reference = make_table(5_000, numeric=1, categorical=0, seed=2)
    column = np.round(reference.columns[0] * 3)
    column[:500] = np.nan
    for values, new in ((reference.columns[0], False), (reference.columns[0], True), (column, False)):
        present = values[np.isfinite(values)]
        shift = LevelShift(reference.schema.names[0], 0, present, within=not new)
        rows = type(reference)(schema=reference.schema, columns=(values,))
        moved = shift.move(rows, 0.5, np.random.default_rng(1)).columns[0]
        assert abs(np.nanmean(moved) - present.mean()) / present.std() == pytest.approx(0.5, abs=0.05)
        assert np.array_equal(np.isnan(moved), np.isnan(values))
        assert bool(np.setdiff1d(moved[np.isfinite(moved)], present).size) is new
        order = np.argsort(values[np.isfinite(values)], kind="stable")
        assert (np.diff(moved[np.isfinite(moved)][order][:: len(order) // 10]) >= 0).all(), "rows keep their order"


def test_categories_move_by_the_share(make_table):
    reference = make_table(1_000, numeric=0, categorical=1, seed=2)
    (shift,) = of_features(reference)
    assert isinstance(shift, CategoryShift)
    reference.columns[0][:10] = MISSING
    before = reference.columns[0].copy()
    moved = shift.move(reference, 0.1, np.random.default_rng(1)).columns[0]
    assert np.array_equal(reference.columns[0], before)
    changed = np.flatnonzero(moved != before)
    assert len(changed) == 100
    assert len(set(moved[changed].tolist())) == 1
    assert np.bincount(before[before >= 0]).argmax() not in moved[changed]


def test_answers_of_classes_move_by_the_share(make_table):
    reference = make_table(400, seed=2)
    told = np.eye(3)[np.random.default_rng(0).choice(3, p=[0.6, 0.3, 0.1], size=400)]
    reference = type(reference)(schema=reference.schema, columns=reference.columns, outputs={"p": told})
    (shift,) = of_outputs(reference, ("p",))
    assert isinstance(shift, AnswerShift)
    moved = shift.move(reference, 0.5, np.random.default_rng(1)).outputs["p"]
    assert 100 <= (moved != told).any(axis=1).sum() <= 200
    assert moved[:, 0].sum() < told[:, 0].sum()
