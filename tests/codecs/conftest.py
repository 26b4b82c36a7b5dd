"""A schema with every tabular kind, and the real ACS rows."""

from __future__ import annotations

import pytest

from govern.schema import Feature, FeatureSchema


@pytest.fixture
def people() -> FeatureSchema:
    return FeatureSchema(
        format_version=1,
        model="people",
        features=(
            Feature(name="age", kind="numeric", datatype="INT64"),
            Feature(name="income", kind="numeric"),
            Feature(name="sex", kind="categorical", datatype="BYTES", categories=("1", "2")),
            Feature(name="note", kind="text", datatype="BYTES"),
        ),
    )


@pytest.fixture
def flat() -> FeatureSchema:
    """Two numbers and a category, as one matrix can carry them."""
    return FeatureSchema(
        format_version=1,
        model="flat",
        features=(
            Feature(name="a", kind="numeric"),
            Feature(name="b", kind="numeric", nullable=True),
            Feature(name="c", kind="categorical", datatype="INT64", categories=("0", "1", "2")),
        ),
    )
