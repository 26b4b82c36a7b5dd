"""Sketches: what is counted, how parts add up, and how near a quantile is."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from detectors.drift.binned import Guide, cut
from detectors.drift.sketch import Cells, Sketch
from detectors.drift.sketched import SketchedDrift
from govern.errors import BadInput
from govern.frame import MISSING, UNSEEN, Frame
from govern.schema import FORMAT_VERSION, Feature, FeatureSchema

NUMBERS = arrays(np.float64, st.integers(1, 60), elements=st.floats(width=64))


def one_column(values: np.ndarray) -> Frame:
    schema = FeatureSchema(format_version=FORMAT_VERSION, model="one", features=(Feature(name="x", kind="numeric"),))
    return Frame(schema=schema, columns=(values,))


@pytest.fixture(scope="module")
def cells(acs) -> Cells:
    return SketchedDrift().fit(acs[2015]).cells


@given(NUMBERS, NUMBERS, st.integers(2, 40))
def test_counts_are_numpys(reference, column, bins):
    """Of every float there is: infinite, subnormal, either zero, not a number."""
    known = np.sort(reference[~np.isnan(reference)])
    edges = cut(known, bins) if len(known) else np.empty(0)
    assert len(edges) < bins
    assert (np.diff(edges) > 0).all() if not np.isinf(edges).any() else True
    column = np.concatenate((column, edges, [0.0, -0.0, np.nan, np.inf, -np.inf]))
    counts, ends = np.zeros(2 + len(edges), dtype=np.int64), np.array([np.inf, -np.inf])
    Guide.of(edges).count(column, counts, ends)
    values = column[~np.isnan(column)]
    expected = np.bincount(edges.searchsorted(values, side="right"), minlength=len(edges) + 1)
    assert counts.tolist() == [len(column) - len(values), *expected]
    assert ends.tolist() == [values.min(), values.max()]


@pytest.mark.parametrize("shape", ["normal", "lognormal", "cauchy", "two far apart", "whole numbers", "half zeros"])
def test_counts_are_numpys_of_many(shape):
    rng = np.random.default_rng(1)
    values = {
        "normal": rng.normal(1e6, 1.0, 5000),
        "lognormal": np.exp(5 * rng.normal(size=5000)),
        "cauchy": rng.standard_cauchy(5000),
        "two far apart": rng.normal(size=5000) + np.where(rng.random(5000) < 0.5, 0, 1e9),
        "whole numbers": rng.integers(0, 90, 5000).astype(np.float64),
        "half zeros": np.where(rng.random(5000) < 0.5, 0.0, rng.exponential(size=5000)),
    }[shape]
    edges = cut(np.sort(values[:3000]), 256)
    counts = np.zeros(2 + len(edges), dtype=np.int64)
    Guide.of(edges).count(values, counts, np.array([np.inf, -np.inf]))
    assert counts[1:].tolist() == np.bincount(edges.searchsorted(values, "right"), minlength=len(edges) + 1).tolist()


def test_bins_have_equal_shares_and_what_comes_often_has_its_own():
    rng = np.random.default_rng(2)
    values = np.sort(rng.normal(size=10_000))
    counts = np.diff(values.searchsorted(cut(values, 100)), prepend=0, append=10_000)
    assert counts.tolist() == [99, *[100] * 98, 101]
    often = cut(np.sort(np.append(values, np.zeros(5000))), 100)
    assert often[np.flatnonzero(often == 0.0)[0] + 1] == np.nextafter(0.0, 1.0)
    assert cut(np.array([1.0, 1.0, 3.0]), 8).tolist() == [1.0, np.nextafter(1.0, 2.0), 3.0, np.nextafter(3.0, 4.0)]


def test_what_is_missing_and_what_is_unseen(make_table):
    rows = make_table(100, seed=2, missing=0.1, nullable=True)
    rows.columns[3][:7], rows.columns[3][7:9] = MISSING, UNSEEN
    sketch = SketchedDrift().fit(make_table(500, seed=1)).sketch(rows)
    assert sketch.rows == 100
    assert sketch.of("x0")[0] == np.isnan(rows["x0"]).sum() > 0
    codes = rows["c0"]
    assert sketch.of("c0").tolist() == [2, 7, *np.bincount(codes[codes >= 0], minlength=5)]
    assert sketch.of("x1").sum() == sketch.of("c1").sum() == 100


@given(st.data())
def test_parts_add_up_to_the_whole_in_any_order(acs, cells, data):
    """Bit for bit, however rows are cut, and whichever two sketches are merged next."""
    whole = acs[2018].take(slice(0, 300))
    column = whole["AGEP"].copy()
    column[::9], column[3:5], column[7] = np.nan, (0.0, -0.0), np.inf
    whole = dataclasses.replace(whole, columns=(column, *whole.columns[1:]))
    order = np.array(data.draw(st.permutations(range(300))))
    at = sorted(data.draw(st.lists(st.integers(0, 300), max_size=6)))
    parts = [cells.empty().update(whole.take(rows)) for rows in np.split(order, at)]
    while len(parts) > 1:
        one = parts.pop(data.draw(st.integers(0, len(parts) - 1)))
        other = parts.pop(data.draw(st.integers(0, len(parts) - 1)))
        parts.append(one.merge(other))
    assert parts[0].pack() == cells.empty().update(whole).pack()


def test_a_sketch_is_a_value(acs, cells):
    first = cells.empty().update(acs[2018].take(slice(0, 50)))
    before = first.pack()
    second = first.update(acs[2018].take(slice(50, 90)))
    first.merge(second)
    assert first.pack() == before
    assert (second.rows, cells.empty().rows) == (90, 0)
    back = cells.unpack(before)
    assert back.pack() == before
    assert back.merge(second).pack() == second.merge(first).pack()


@given(NUMBERS, NUMBERS, st.floats(0, 1), st.integers(4, 40))
def test_a_quantile_lies_between_its_bounds(reference, column, q, bins):
    reference, column = (np.nan_to_num(one) for one in (reference, column))
    cells = Cells(one_column(reference).schema, {0: cut(np.sort(reference), bins)})
    low, high = cells.empty().update(one_column(np.append(column, np.nan))).quantile("x", q)
    assert low <= np.quantile(column, q, method="inverted_cdf") <= high


def test_bounds_are_as_tight_as_said(acs):
    """Each age has a bin of its own: quantiles are exact, but at ages unknown before. A probability is off by a bin."""
    cells = SketchedDrift().fit(acs[2015]).cells
    ages = cells.empty().update(acs[2018])
    assert ages.rank_error("AGEP") == np.mean(~np.isin(acs[2018]["AGEP"], acs[2015]["AGEP"])) < 0.01
    for q in (0.0, 0.1, 0.5, 0.9):
        exact = np.quantile(acs[2018]["AGEP"], q, method="inverted_cdf")
        assert ages.quantile("AGEP", q) == (exact, exact)
    before, after = (np.ascontiguousarray(acs[year].outputs["predict_proba"][:, 0]) for year in (2015, 2018))
    sketch = Cells(one_column(before).schema, {0: cut(np.sort(before), 256)}).empty().update(one_column(after))
    error = sketch.rank_error("x")
    assert 1 / 256 < error < 0.02
    for q in (0.05, 0.5, 0.95):
        low, high = sketch.quantile("x", q)
        assert np.mean((after >= low) & (after <= high)) <= error


def test_a_quantile_of_nothing(cells):
    assert all(math.isnan(one) for one in cells.empty().quantile("AGEP", 0.5))
    assert cells.empty().rank_error("AGEP") == 0.0


def test_what_cannot_be_asked(cells):
    sketch = cells.empty()
    with pytest.raises(BadInput, match="feature 'SEX' has no numbers: it is categorical"):
        sketch.quantile("SEX", 0.5)
    with pytest.raises(BadInput, match=r"q is 1\.5"):
        sketch.quantile("AGEP", 1.5)
    text = FeatureSchema(format_version=1, model="t", features=(Feature(name="note", kind="text"),))
    with pytest.raises(BadInput, match="feature 'note' is not counted: it is text"):
        Cells(text, {}).empty().of("note")


def test_sketches_of_other_cells_are_refused(acs, cells):
    other = SketchedDrift(bins=16).fit(acs[2015]).cells.empty()
    with pytest.raises(BadInput, match="count in different cells"):
        cells.empty().merge(other)
    for foreign in (other.pack(), b"", cells.empty().pack()[:-3]):
        with pytest.raises(BadInput, match="sketch: what it remembered cannot be read"):
            cells.unpack(foreign)
    full = cells.empty().update(acs[2018])
    with pytest.raises(BadInput, match="sketch: what it remembered"):
        cells.unpack(Sketch(cells, full.rows + 1, full.counts, full.ends).pack())
