"""The page of a fit: well-formed, whole, and true to what was measured."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pytest

from detectors.drift.tabular import TabularDrift
from detectors.fit import Job, fit
from detectors.power import Curve, power
from govern.cli import _plots as plots
from govern.cli._power import Measured, least_text
from govern.cli._report import page
from govern.frame import MISSING, Frame
from govern.schema import FORMAT_VERSION, Feature, FeatureSchema


@pytest.fixture(scope="module")
def reference() -> Frame:
    rng = np.random.default_rng(0)
    features = (
        Feature(name="<b>age", kind="numeric"),
        Feature(name="job", kind="categorical", datatype="BYTES", categories=tuple(f"j&{i}" for i in range(30))),
    )
    age, job = rng.normal(40, 9, size=600), rng.integers(30, size=600).astype(np.int32)
    age[:60], job[:6] = np.nan, MISSING
    return Frame(
        schema=FeatureSchema(format_version=FORMAT_VERSION, model="m&m", features=features), columns=(age, job)
    )


def test_the_page_is_whole_and_escapes_what_it_names(reference, tmp_path):
    (done,) = fit([Job("p", "<step>", TabularDrift(), tmp_path / "a")], reference)
    measured = [Measured(done, power(tmp_path / "a", reference, [40, 900], trials=10))]
    text = page(measured, reference, "600 rows of <x>", 0)
    # What is left of HTML that XML would not take is known: the doctype, void elements, bare attributes.
    body = text[text.index("<body>") : text.index("</html>")].replace("class=faint", 'class="faint"')
    tree = ET.fromstring(body.replace("class=number", 'class="number"'))
    said = "".join(tree.itertext())
    for word in (
        "m&m",
        "<step>",
        "<b>age",
        "600 rows of <x>",
        "10.0% missing",
        "1.0% missing",
        "others",
        done.digest[:12],
    ):
        assert word in said
    assert "not measured: a reference of 3,000 rows is needed" in said
    assert "0.0 to " in said, "of 10 windows of 40 rows, an interval"
    assert len(tree.findall(".//svg")) == 2 + 1 + 2, "power by both units, p-values, and each feature"


def test_histograms_count_every_value():
    values = np.append(np.random.default_rng(0).normal(size=5_000), 1e9)
    svg = ET.fromstring(plots.histogram(values))
    assert sum(int(one.text.replace(",", "")) for one in svg.iter("title")) == 5_001
    assert len(svg.findall("rect")) == plots.BINS


def test_a_curve_ends_where_it_says_nothing_new():
    points = [(0.0, 0.05), (0.1, 0.5), (0.2, 1.0), (3.0, 1.0)]
    svg = ET.fromstring(plots.curves([("50 rows", points)], wanted=0.8, label="shift", what="windows"))
    assert len(svg.findall("circle")) == 3
    assert least_text(Curve("share", ((0.0, 0.0), (0.5, 0.1)), None)) == "over 50 % of rows"
    assert least_text(None) == ""
