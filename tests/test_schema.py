from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from govern.codecs.tensor import DTYPES
from govern.errors import BadInput
from govern.schema import DATATYPES, Feature, FeatureSchema

TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)


@st.composite
def features(draw: st.DrawFn, name: str) -> Feature:
    kind = draw(st.sampled_from(["numeric", "categorical", "text", "image", "embedding"]))
    categories = draw(st.lists(TEXT, min_size=1, max_size=4, unique=True)) if kind == "categorical" else []
    return Feature(
        name=name,
        kind=kind,  # type: ignore[arg-type]
        title=draw(st.just("") | TEXT),
        categories=tuple(categories),
        labels={category: draw(TEXT) for category in categories[:2]},
        minimum=draw(st.none() | st.floats(allow_nan=False, allow_infinity=False)),
        nullable=draw(st.booleans()),
        protected=draw(st.booleans()),
        pii=draw(st.booleans()),
    )


@st.composite
def schemas(draw: st.DrawFn) -> FeatureSchema:
    names = draw(st.lists(TEXT, min_size=1, max_size=5, unique=True))
    return FeatureSchema(format_version=1, model=draw(TEXT), features=tuple(draw(features(name)) for name in names))


@given(schemas())
def test_the_yaml_form_says_it_all(schema: FeatureSchema) -> None:
    again = FeatureSchema.from_yaml(schema.to_yaml())
    assert again == schema
    assert again.digest == schema.digest


@given(st.text(max_size=40) | st.binary(max_size=20).map(lambda data: data.decode("latin-1")))
def test_any_text_is_refused_with_bad_input(text: str) -> None:
    with pytest.raises(BadInput):
        FeatureSchema.from_yaml(text)


GOOD = """\
format_version: 1
model: m
features:
- {name: a, kind: numeric}
- {name: b, kind: categorical, categories: ['1', '2'], labels: {'1': one}}
"""


def test_names_positions_and_words() -> None:
    schema = FeatureSchema.from_yaml(GOOD)
    assert schema.names == ("a", "b")
    assert (schema.index("b"), schema["b"].words) == (1, "b")
    assert (schema["b"].label("1"), schema["b"].label("2")) == ("one", "2")
    with pytest.raises(BadInput, match=r"feature 'c' is not in the schema of 'm'.*it has a, b"):
        schema["c"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("format_version: 1", "format_version: 2", "format_version is 2"),
        ("format_version: 1\n", "", "missing required field `format_version`"),
        ("name: b", "name: a", r"features \['a'\]"),
        ("kind: numeric", "kind: number", r"'number'.*\$\.features\[0\]\.kind"),
        ("kind: numeric", "kind: categorical", "'a': categories"),
        ("kind: categorical", "kind: numeric", "'b': categories"),
        ("['1', '2']", "[1, 2]", r"Expected `str`, got `int`.*categories\[0\]"),
        ("['1', '2']", "['1', '1']", "'b': category '1' comes twice"),
        ("name: a,", "name: a, nulable: true,", "unknown field `nulable`"),
        ("name: a,", "name: a, datatype: FLOAT,", "'a': datatype 'FLOAT'"),
        ("- {name: a", "- {name: a: b", "schema is no YAML"),
        ("name: a,", "name: a, title: 2026-02-31,", "schema is no YAML"),
    ],
)
def test_a_wrong_schema_is_named(old: str, new: str, message: str) -> None:
    assert GOOD.count(old) == 1
    with pytest.raises(BadInput, match=message):
        FeatureSchema.from_yaml(GOOD.replace(old, new))


def test_no_features() -> None:
    with pytest.raises(BadInput, match="features are empty"):
        FeatureSchema.from_yaml("{format_version: 1, model: m, features: []}")


def test_the_digest_changes_with_any_field() -> None:
    schema = FeatureSchema.from_yaml(GOOD)
    for old, new in [("numeric", "text"), ("'2'", "'3'"), ("one", "two"), ("model: m", "model: n")]:
        assert FeatureSchema.from_yaml(GOOD.replace(old, new)).digest != schema.digest


def test_files(tmp_path: Path) -> None:
    file = tmp_path / "schema.yaml"
    with pytest.raises(BadInput, match=r"schema\.yaml cannot be read"):
        FeatureSchema.load(file)
    file.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(BadInput, match=r"schema\.yaml cannot be read"):
        FeatureSchema.load(file)
    file.write_text(GOOD)
    assert FeatureSchema.load(file).names == ("a", "b")


def test_the_datatypes_are_those_of_tensors() -> None:
    assert tuple(DTYPES) == DATATYPES
