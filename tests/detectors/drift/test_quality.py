"""Data quality against the schema: each check finds what it is for, and clean windows raise no alarm."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import msgspec
import numpy as np
import pytest
from scipy.stats import binom, hypergeom

from detectors.drift.checks import RangeCheck, UnseenCheck, beyond_extremes, row_digests
from detectors.drift.feature_test import Settings
from detectors.drift.quality import DataQuality
from detectors.drift.rates import UnseenRate, compare, compare_new, having, seldom
from govern.frame import MISSING, UNSEEN, Frame
from govern.schema import Feature, FeatureSchema

#: Makes a window of 200 rows worse: takes its columns, changes them in place.
Spoil = Callable[[dict[str, np.ndarray]], None]


def people(rows: int, seed: int, *, bounds: bool = True) -> Frame:
    """An income with a range, whole years of age, a job, a remark."""
    rng = np.random.default_rng(seed)
    income, age = rng.lognormal(10, 1, rows), rng.integers(18, 90, rows).astype(np.float64)
    job = rng.choice(3, rows, p=[0.6, 0.3, 0.1]).astype(np.int32)
    job[rng.random(rows) < 0.02] = MISSING
    remark = np.array([f"remark {number}" for number in rng.integers(0, 10**6, rows)], dtype=object)
    low, high = (float(income.min()), float(income.max())) if bounds else (None, None)
    features = (
        Feature(name="income", kind="numeric", minimum=low, maximum=high),
        Feature(name="age", kind="numeric", datatype="UINT8"),
        Feature(name="job", kind="categorical", datatype="BYTES", categories=("a", "b", "c"), nullable=True),
        Feature(name="remark", kind="text", datatype="BYTES"),
    )
    schema = FeatureSchema(format_version=1, model="people", features=features)
    return Frame(schema=schema, columns=(income, age, job, remark))


def window_of(reference: Frame, rows: int, seed: int, spoil: Spoil | None = None) -> Frame:
    frame = people(rows, seed)
    columns = {name: column.copy() for name, column in zip(frame.schema.names, frame.columns, strict=True)}
    if spoil is not None:
        spoil(columns)
    return Frame(schema=reference.schema, columns=tuple(columns.values()))


def put(name: str, rows: slice, value: object) -> Spoil:
    return lambda columns: columns[name].__setitem__(rows, value)


def repeat(columns: dict[str, np.ndarray]) -> None:
    for column in columns.values():
        column[1:6] = column[0]


@pytest.fixture(scope="module")
def reference() -> Frame:
    return people(3000, seed=1)


@pytest.fixture(scope="module")
def detector(reference) -> DataQuality:
    return DataQuality().fit(reference)


@pytest.mark.parametrize(
    ("spoil", "label"),
    [
        (put("income", slice(0, 6), np.nan), "income:missing"),
        (put("income", slice(0, 6), 1e9), "income:range"),
        (put("income", slice(0, 6), -1.0), "income:range"),
        (put("age", slice(0, 6), 30.5), "age:type"),
        (put("age", slice(0, 6), 256.0), "age:type"),
        (put("age", slice(0, 6), -1.0), "age:type"),
        (put("job", slice(0, 30), MISSING), "job:missing"),
        (put("job", slice(0, 6), UNSEEN), "job:unseen"),
        (put("remark", slice(0, 6), None), "remark:missing"),
        (put("age", slice(None), 30.0), "age:constant"),
        (put("job", slice(None), 0), "job:constant"),
        (put("income", slice(None), 30_000.0), "income:constant"),
        (repeat, "*:duplicate"),
    ],
)
def test_each_check_finds_what_it_is_for(reference, detector, spoil, label):
    found = detector.score(window_of(reference, 200, 2, spoil))
    assert [one.label for one in found.features if one.is_drift] == [label]
    assert found.alarm


def test_what_the_reference_does_is_no_alarm(reference, detector):
    clean = detector.score(window_of(reference, 200, 2))
    assert [one.label for one in clean.features] == [
        *("income:missing", "income:range", "income:constant", "*:duplicate"),
        *("age:missing", "age:type", "age:constant"),
        *("job:missing", "job:unseen", "job:constant", "remark:missing"),
    ]
    assert not clean.alarm
    assert clean.threshold == pytest.approx(0.05 / 11)
    # As many gaps as come by chance; one income beyond all that were seen.
    for spoil in (put("job", slice(0, 8), MISSING), put("income", slice(0, 1), 1e9)):
        assert not detector.score(window_of(reference, 200, 2, spoil)).alarm


def test_clean_windows_alarm_at_most_as_often_as_said():
    """At every size, with bounds that the reference itself has set; no correction, so each check stands alone."""
    alarms, checks = 0, 0
    for seed in range(15):
        reference = people(400, seed=2 * seed)
        found = DataQuality(correction="none").fit(reference).score(window_of(reference, 20 * (1 + seed), 2 * seed + 1))
        alarms += sum(one.is_drift for one in found.features)
        checks += len(found.features)
    assert alarms <= binom.ppf(0.999, checks, 0.05)


@pytest.mark.parametrize(("n", "m"), [(1, 5), (20, 200), (700, 1000)])
def test_beyond_extremes_is_hypergeometric(n, m):
    """At most one of the n among k + 1 drawn of both."""
    for k in range(1, min(m, 40) + 1):
        assert beyond_extremes(k, m, n) == pytest.approx(float(hypergeom.cdf(1, n + m, n, k + 1)), rel=1e-8)


def test_a_range_of_the_reference_is_left_as_often_as_said():
    """Of 1,200 references that set the bounds; with Fisher's test, a tenth of the windows of their size alarm."""
    rows = np.random.default_rng(7).random((1200, 2, 400))
    alarms = 0
    for reference, window in rows:
        bounds = {"minimum": float(reference.min()), "maximum": float(reference.max())}
        schema = FeatureSchema(format_version=1, model="m", features=(Feature(name="x", kind="numeric", **bounds),))
        before, after = (Frame(schema=schema, columns=(column,)) for column in (reference, window))
        alarms += RangeCheck.of(before, 0).run(after, Settings(level=0.05)).p_value < 0.05
    assert 0.01 * len(rows) < alarms <= binom.ppf(0.999, len(rows), 0.05)


@pytest.mark.parametrize("size", [20, 200, 1000])
def test_what_a_learned_schema_lacks_comes_no_more_often_than_said(acs, size):
    """Ages as categories: of 700 people some 90, of which a few have one person, and others are lacking."""
    ages = acs[2015]["AGEP"].astype(np.int64)
    rng, level, alarms, of_counts = np.random.default_rng(5), 0.05, 0, 0
    for _ in range(300):
        drawn = rng.permutation(ages)[: 700 + size]
        reference, window = learned(drawn[:700], drawn[700:])
        check = UnseenCheck.of(reference, 0)
        outcome = check.run(window, Settings(level=level))
        alarms += outcome.p_value < level
        counts = having(window["age"] == UNSEEN)
        of_counts += compare((0, 700), counts, alternative="greater").p_value < level
        assert outcome == UnseenRate.of(reference, 0).run(window, Settings(level=level))
        assert UnseenCheck.read(0, check.state(), reference.schema.features[0]) == check
        assert UnseenCheck.read(0, check.state()[:2], reference.schema.features[0]).once == 0
    assert alarms <= binom.ppf(0.999, 300, level)
    # Fisher's test of the counts as they are takes what the draw left out for a change.
    assert of_counts > binom.ppf(0.999, 300, level) or size == 20


def test_a_schema_that_lists_more_than_the_reference_has_is_taken_at_its_word():
    listed = tuple(map(str, range(30)))
    schema = FeatureSchema(
        format_version=1, model="m", features=(Feature(name="c", kind="categorical", categories=listed),)
    )
    reference = Frame(schema, (np.arange(290, dtype=np.int32) // 10,))
    assert seldom(reference, 0) == (0, 0)
    window = Frame(schema, (np.array([UNSEEN] * 3 + [0] * 97, dtype=np.int32),))
    outcome = UnseenRate.of(reference, 0).run(window, Settings(level=0.05))
    assert outcome.p_value == pytest.approx(hypergeom.sf(2, 390, 3, 100))


def test_new_rows_that_come_together_count_as_fewer():
    alone = compare_new((0, 700), (12, 200), (5, 0)).p_value
    assert alone == pytest.approx(hypergeom.sf(11, 900, 18, 200))
    assert alone < compare_new((0, 700), (12, 200), (5, 20)).p_value < 1.0
    assert compare_new((0, 700), (1, 200), (5, 20)).p_value == 1.0


def learned(reference: np.ndarray, window: np.ndarray) -> tuple[Frame, Frame]:
    """Frames of one category, whose schema lists those of the reference."""
    known = np.unique(reference)
    codes = np.full(int(max(reference.max(), window.max())) + 1, UNSEEN, dtype=np.int32)
    codes[known] = np.arange(len(known))
    feature = Feature(name="age", kind="categorical", categories=tuple(map(str, known)))
    schema = FeatureSchema(format_version=1, model="m", features=(feature,))
    return Frame(schema, (codes[reference],)), Frame(schema, (codes[window],))


def test_a_reference_without_values_says_nothing_of_a_range():
    features = (Feature(name="x", kind="numeric", minimum=0.0), Feature(name="y", kind="numeric"))
    schema = FeatureSchema(format_version=1, model="m", features=features)
    detector = DataQuality().fit(Frame(schema=schema, columns=(np.full(200, np.nan), np.arange(200.0))))
    window = Frame(schema=schema, columns=(np.full(50, -1.0), np.arange(50.0)))
    assert not detector.score(window).alarm


def test_a_column_that_hardly_ever_changes_may_be_constant():
    schema = FeatureSchema(format_version=1, model="m", features=(Feature(name="x", kind="numeric"),))
    reference = Frame(schema=schema, columns=((np.arange(2000) < 20).astype(float),))
    detector = DataQuality().fit(reference)
    found = {one.label: one for one in detector.score(Frame(schema=schema, columns=(np.zeros(50),))).features}
    assert found["x:constant"].statistic == 1.0
    assert 0.5 < found["x:constant"].p_value < 0.75  # 0.99 ** 50 is 0.61
    assert not found["x:constant"].is_drift
    assert not found["*:duplicate"].is_drift  # nearly every row equals another here, in the reference too


def test_equal_rows_have_equal_digests(reference):
    twice = Frame.concat([reference, reference.take([5, 4])])
    digests = row_digests(twice)
    assert digests[-2:].tolist() == digests[[5, 4]].tolist()
    assert len(set(digests[:-2].tolist())) == 3000
    zeros = dataclasses.replace(reference, columns=(np.zeros(3000), *reference.columns[1:]))
    minus = dataclasses.replace(reference, columns=(np.full(3000, -0.0), *reference.columns[1:]))
    assert (row_digests(zeros) == row_digests(minus)).all()


def test_a_schema_without_bounds_has_no_range(reference):
    free = people(100, seed=1, bounds=False)
    assert not any(one.signal == "range" for one in DataQuality().fit(free).score(free).features)
    narrowed = msgspec.structs.replace(free.schema.features[0], minimum=1e5)
    schema = msgspec.structs.replace(free.schema, features=(narrowed, *free.schema.features[1:]))
    bound = DataQuality().fit(dataclasses.replace(free, schema=schema)).score(free)
    # Most of the reference is out of the range that a person wrote: then a window's rows may be, too.
    assert next(one for one in bound.features if one.signal == "range").n == 100
    assert not bound.alarm
