from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from govern import table
from govern.codecs.frames import from_rows
from govern.errors import BadInput
from govern.frame import MISSING, UNSEEN
from govern.schema import Feature, FeatureSchema

ACS = Path(__file__).parent / "data" / "acs_sample.parquet"

Write = Callable[[dict[str, object]], table.Table]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """`write(columns)` is the table read back from a Parquet file of these columns."""

    def through_a_file(columns: dict[str, object]) -> table.Table:
        pq.write_table(pa.table(columns), tmp_path / "t.parquet")
        return table.read(tmp_path / "t.parquet")

    return through_a_file


def feature(read: table.Table, name: str) -> Feature:
    return table.infer_schema(read, "m")[name]


@pytest.mark.parametrize(
    ("values", "kind", "datatype", "categories"),
    [
        ([1.5, 2.5, None, 2.0], "numeric", "FP64", ()),
        ([1, 2, 1, 10], "numeric", "INT64", ()),
        ([10, 2, 10, 2], "categorical", "INT64", ("2", "10")),
        ([10, 2, None, 2], "categorical", "INT64", ("2", "10")),
        (list(range(100)), "numeric", "INT64", ()),
        ([True, False, None, True], "categorical", "BOOL", ("false", "true")),
        (["b10", "b9", "a", "b9", "a", "b10"], "categorical", "BYTES", ("a", "b9", "b10")),
        (["10", "9", "-1", "x", "x", "9", "10", "-1"], "categorical", "BYTES", ("-1", "9", "10", "x")),
        (["a", "", "a", None], "categorical", "BYTES", ("a",)),
        (["a", "b", "c", "d"], "text", "BYTES", ()),
        ([f"text {i}" for i in range(300)], "text", "BYTES", ()),
        (pa.array(["z", "y", "x", "w"]).dictionary_encode(), "categorical", "BYTES", ("w", "x", "y", "z")),
        (pa.array(["b", "a", "b", "a"], pa.large_string()), "categorical", "BYTES", ("a", "b")),
        (pa.array([1, 2, 3], pa.float32()), "numeric", "FP64", ()),
        (pa.array([1, 2, 3]).cast(pa.decimal128(30, 2)), "numeric", "FP64", ()),
    ],
)
def test_kinds_are_inferred(write: Write, values: object, kind: str, datatype: str, categories: tuple[str]) -> None:
    found = feature(write({"x": values}), "x")
    assert (found.kind, found.datatype, found.categories) == (kind, datatype, categories)


def test_ranges_and_missing_values(write: Write) -> None:
    read = write({"a": [3.0, -1.5, None], "b": [1.0, float("nan"), 2.0], "c": [1.0, 2.0, 3.0], "d": ["x", "", "x"]})
    schema = table.infer_schema(read, "m")
    assert [(one.minimum, one.maximum, one.nullable) for one in schema.features] == [
        (-1.5, 3.0, True),
        (1.0, 2.0, True),
        (1.0, 3.0, False),
        (None, None, True),
    ]


def test_what_a_person_says_of_columns(write: Write) -> None:
    read = write({"id": [1, 2], "sex": ["1", "1"], "name": ["a", "b"]})
    schema = table.infer_schema(
        read,
        "m",
        exclude=["id"],
        protected=["sex"],
        pii=["name"],
        titles={"sex": "sex at birth"},
        labels={"sex": {"1": "male"}},
    )
    sex, name = schema.features
    assert (sex.protected, sex.pii, sex.words, sex.label("1")) == (True, False, "sex at birth", "male")
    assert (name.protected, name.pii, name.words) == (False, True, "name")
    assert FeatureSchema.from_yaml(schema.to_yaml()) == schema


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exclude": ["idd"]}, r"excluded column 'idd' is missing.*did you mean 'id'"),
        ({"protected": ["race"]}, "protected column 'race' is missing.*the columns are id, sex"),
        ({"pii": ["race"]}, "personal column 'race' is missing"),
        ({"titles": {"race": ""}}, "column with a title 'race' is missing"),
        ({"labels": {"race": {}}}, "column with labels 'race' is missing"),
    ],
)
def test_a_misspelt_column_is_named(write: Write, options: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        table.infer_schema(write({"id": [1, 2], "sex": ["1", "1"]}), "m", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (pa.array([None, None], pa.string()), "column 'x' has no values"),
        (pa.array([[1], [2]]), "column 'x' has type list"),
        (pa.array([0, 1], pa.timestamp("s")), "column 'x' has type timestamp"),
    ],
)
def test_a_column_that_is_no_feature(write: Write, values: pa.Array, message: str) -> None:
    read = write({"x": values, "y": [1, 2]})
    with pytest.raises(BadInput, match=message):
        table.infer_schema(read, "m")
    assert table.infer_schema(read, "m", exclude=["x"]).names == ("y",)


def test_a_frame_of_the_rows(write: Write) -> None:
    schema = FeatureSchema(
        format_version=1,
        model="m",
        features=(
            Feature(name="c", kind="categorical", datatype="INT64", categories=("1", "2")),
            Feature(name="n", kind="numeric"),
            Feature(name="t", kind="text", datatype="BYTES"),
        ),
    )
    read = write(
        {"n": [1, None, 3], "t": ["a", None, ""], "c": [2, None, 7], "p": [0.25, 0.5, 1.0], "other": [1, 1, 1]}
    )
    frame = table.frame_of(read, schema, {"probability": "p"})
    assert frame["c"].tolist() == [1, MISSING, UNSEEN]
    assert frame.unseen == {"c": {2: "7"}}
    np.testing.assert_array_equal(frame["n"], [1.0, np.nan, 3.0])
    assert [frame.row(i)["t"] for i in range(3)] == ["a", None, None]
    assert frame.outputs["probability"].tolist() == [[0.25], [0.5], [1.0]]


def test_a_table_that_does_not_fit_the_schema(write: Write) -> None:
    schema = FeatureSchema(format_version=1, model="m", features=(Feature(name="n", kind="numeric"),))
    with pytest.raises(BadInput, match=r"feature 'n' is missing.*did you mean 'nn'"):
        table.frame_of(write({"nn": [1]}), schema)
    with pytest.raises(BadInput, match=r"t\.parquet: feature 'n', row 1: 'x' is no number"):
        table.frame_of(write({"n": ["1", "x"]}), schema)
    with pytest.raises(BadInput, match="output column 'p' is missing"):
        table.frame_of(write({"n": [1]}), schema, {"probability": "p"})
    with pytest.raises(BadInput, match="output column 'p' is string"):
        table.frame_of(write({"n": [1], "p": ["yes"]}), schema, {"probability": "p"})


def test_csv(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("age,country,sex\n30,NA,1\n,DE,2\n31,,2\n32,DE,1\n")
    schema = table.infer_schema(table.read(file), "m")
    assert [(one.name, one.kind, one.nullable) for one in schema.features] == [
        ("age", "numeric", True),
        ("country", "categorical", True),
        ("sex", "categorical", False),
    ]
    assert schema["country"].categories == ("DE", "NA")
    frame = table.frame_of(table.read(file), schema)
    assert frame.row(1) == {"age": None, "country": "DE", "sex": "2"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.parquet", b"PAR1 and nothing more", "t.parquet (is damaged|cannot be read)"),
        ("t.parquet", b"", "is no Parquet"),
        ("t.xlsx", b"PK", "is no Parquet.*csv"),
        ("t.csv", b"a,b\n1,2\n1,2,3\n", "t.csv is damaged"),
        ("t.csv", b"a,b\n", "has no rows"),
        ("t.csv", b"a,a\n1,2\n", "column 'a' comes twice"),
        ("t.csv", b"", "t.csv is damaged"),
        ("t.csv.gz", b"a,b\n1,2\n", r"t.csv.gz (is damaged|cannot be read)"),
    ],
)
def test_a_file_that_is_no_table(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=message):
        table.read(tmp_path / name)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"none\.parquet cannot be read"):
        table.read(tmp_path / "none.parquet")
    with pytest.raises(BadInput, match="cannot be read"):
        table.read(tmp_path)


def test_head_and_sample(write: Write) -> None:
    read = write({"x": list(range(1000))})
    assert read.head(3).column("x").tolist() == [0, 1, 2]
    sample = read.sample(100, seed=7).column("x").tolist()
    assert len(set(sample)) == 100
    assert sample == sorted(sample)
    assert sample == read.sample(100, seed=7).column("x").tolist()
    assert sample != read.sample(100, seed=8).column("x").tolist()
    assert len(read.sample(5000, seed=1)) == len(read.head(5000)) == 1000


def test_real_people() -> None:
    people = table.read(ACS)
    schema = table.infer_schema(
        people,
        "employment",
        exclude=["id", "employed", "year", "prediction", "predicted_probability"],
        protected=["SEX", "RAC1P"],
    )
    assert len(schema.features) == 16
    assert [one.name for one in schema.features if one.kind == "numeric"] == ["AGEP"]
    assert schema["SCHL"].categories == tuple(str(level) for level in range(25))
    assert (schema["AGEP"].minimum, schema["AGEP"].maximum) == (0.0, 95.0)
    frame = table.frame_of(people, schema, {"probability": "predicted_probability"})
    assert len(frame) == 8_000
    assert frame.outputs["probability"].shape == (8_000, 1)
    rows = people.head(200).data.select(schema.names).to_pylist()
    assert [frame.row(i) for i in range(200)] == rows
    assert from_rows(rows, schema).digest == frame.take(slice(0, 200)).digest
