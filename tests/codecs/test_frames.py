from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from govern.codecs import frames, v1, v2
from govern.codecs.tensor import Tensor
from govern.errors import BadInput, DecodeError
from govern.frame import MISSING, UNSEEN
from govern.schema import Feature, FeatureSchema

ACS = Path(__file__).parents[1] / "data" / "acs_sample.parquet"


def texts(name: str, *values: object) -> Tensor:
    data = np.empty(len(values), dtype=object)
    data[:] = values
    return Tensor(name, "BYTES", data)


def tensors_of_people(**changed: Tensor) -> list[Tensor]:
    given_ = {
        "age": Tensor("age", "INT64", np.array([[30], [40]])),
        "income": Tensor("income", "FP64", np.array([1.5, np.nan])),
        "sex": texts("sex", "2", "3"),
        "note": texts("note", "hello", None),
    }
    return list((given_ | changed).values())


def test_one_tensor_for_each_feature(people: FeatureSchema) -> None:
    frame = frames.to_frame(tensors_of_people(), people, instance_prefix="id")
    assert frame.instance_ids == ("id/0", "id/1")
    assert frame["age"].tolist() == [30.0, 40.0]
    assert frame["age"].dtype == np.float64
    assert np.isnan(frame["income"][1])
    assert frame["sex"].tolist() == [1, UNSEEN]
    assert frame["sex"].dtype == np.int32
    assert frame.unseen == {"sex": {1: "3"}}
    assert frame.row(1) == {"age": 40.0, "income": None, "sex": "3", "note": None}


def test_a_matrix_in_schema_order(flat: FeatureSchema) -> None:
    frame = frames.to_frame([Tensor("input-0", "FP32", np.array([[1, np.nan, 2], [3, 4, 7]], dtype=np.float32))], flat)
    assert frame.row(0) == {"a": 1.0, "b": None, "c": "2"}
    assert frame.unseen == {"c": {1: "7"}}
    assert frame.instance_ids == ()


def test_rows_of_v1(people: FeatureSchema) -> None:
    by_name = (
        b'{"instances": [{"age": 30, "income": 1.5, "sex": 2, "note": "hi"}, {"age": 31, "income": null, "sex": "1"}]}'
    )
    in_order = b'{"instances": [[30, 1.5, 2, "hi"], [31, null, "1", null]]}'
    one, two = (frames.to_frame(v1.decode_request(body), people) for body in (by_name, in_order))
    assert one.row(0) == two.row(0) == {"age": 30.0, "income": 1.5, "sex": "2", "note": "hi"}
    assert one.row(1) == two.row(1) == {"age": 31.0, "income": None, "sex": "1", "note": None}


@pytest.mark.parametrize("value", [1, 1.0, "1", np.float32(1), np.uint8(1)])
def test_a_number_names_the_category_of_its_text(people: FeatureSchema, value: object) -> None:
    data = np.array([value, value]) if not isinstance(value, str) else np.array([value, value], dtype=object)
    frame = frames.to_frame(tensors_of_people(sex=Tensor("sex", "?", data)), people)
    assert frame["sex"].tolist() == [0, 0]


def test_what_is_missing_is_kept_as_missing(people: FeatureSchema) -> None:
    frame = frames.to_frame(
        tensors_of_people(
            age=Tensor("age", "FP64", np.array([np.nan, np.inf])),
            sex=texts("sex", None, ""),
            note=texts("note", "", ""),
        ),
        people,
    )
    assert np.isnan(frame["age"]).all()
    assert frame["sex"].tolist() == [MISSING, MISSING]
    assert frame.row(0)["note"] is None
    assert not frame.unseen


def test_booleans_are_categories_as_json_writes_them() -> None:
    schema = FeatureSchema(
        format_version=1,
        model="m",
        features=(Feature(name="x", kind="categorical", datatype="BOOL", categories=("false", "true")),),
    )
    frame = frames.to_frame([Tensor("x", "BOOL", np.array([True, False]))], schema)
    assert frame["x"].tolist() == [1, 0]
    assert frames.to_tensors(frame)[0].data.tolist() == [[True], [False]]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"agee": Tensor("agee", "INT64", np.array([1, 2]))}, "'agee' is no feature.*did you mean 'age'"),
        ({"age": texts("age", "30", "old")}, "feature 'age', row 1: 'old' is no number"),
        ({"age": texts("age", "30", {"a": 1})}, "feature 'age', row 1: .*dict"),
        ({"age": Tensor("age", "FP64", np.array([30.5, 1]))}, "feature 'age', row 0: 30.5 is no integer"),
        ({"age": Tensor("age", "INT64", np.array([30]))}, "feature 'income' has 2 rows.*'age' has 1"),
        ({"age": Tensor("age", "INT64", np.ones((1, 2)))}, r"'age' has shape \[1, 2\]"),
        ({"age": Tensor("age", "INT64", np.array(3))}, r"'age' has shape \[\]"),
    ],
)
def test_a_wrong_tensor_is_named(people: FeatureSchema, changed: dict[str, Tensor], message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        frames.to_frame(tensors_of_people(**changed), people)


def test_an_absent_feature_is_named(people: FeatureSchema) -> None:
    with pytest.raises(DecodeError, match=r"'note' is absent.*age, income, sex"):
        frames.to_frame(tensors_of_people()[:3], people)


def test_a_matrix_of_another_width_is_refused(flat: FeatureSchema) -> None:
    with pytest.raises(DecodeError, match=r"'x' is no feature.*\[5, 2\] is not \[n, 3\]"):
        frames.to_frame([Tensor("x", "FP64", np.ones((5, 2)))], flat)


def test_no_rows_is_an_error(flat: FeatureSchema) -> None:
    with pytest.raises(DecodeError, match="no rows"):
        frames.to_frame([Tensor("x", "FP64", np.ones((0, 3)))], flat)
    with pytest.raises(DecodeError, match="empty"):
        frames.from_rows([], flat)


def test_rows_by_name(people: FeatureSchema) -> None:
    frame = frames.from_rows([{"age": 30, "income": "12.5", "sex": 1, "note": "x"}, {"age": None}], people)
    assert frame.row(0) == {"age": 30.0, "income": 12.5, "sex": "1", "note": "x"}
    assert frame.row(1) == {"age": None, "income": None, "sex": None, "note": None}
    with pytest.raises(DecodeError, match="feature 'note' is absent"):
        frames.from_rows([{"age": 30, "income": 1, "sex": 1}], people)
    with pytest.raises(DecodeError, match=r"'incone' is no feature.*did you mean 'income'"):
        frames.from_rows([{"age": 30, "incone": 1, "sex": 1}], people)


def test_tensors_for_the_model(people: FeatureSchema) -> None:
    frame = frames.to_frame(tensors_of_people(), people)
    age, income, sex, note = frames.to_tensors(frame)
    assert (age.datatype, age.data.dtype, age.data.tolist()) == ("INT64", np.int64, [[30], [40]])
    assert income.data.shape == (2, 1)
    assert sex.data.tolist() == [["2"], ["3"]]
    assert note.data.tolist() == [["hello"], [""]]


def test_a_model_cannot_be_sent_what_its_datatype_cannot_hold(people: FeatureSchema) -> None:
    frame = frames.from_rows([{"age": None, "income": 1, "sex": 1, "note": ""}], people)
    with pytest.raises(BadInput, match="feature 'age', row 0: the value is missing"):
        frames.to_tensors(frame)
    for datatype, category, message in [
        ("INT8", "300", "does not fit INT8"),
        ("INT8", "blue", "is no INT8"),
    ]:
        feature = Feature(name="x", kind="categorical", datatype=datatype, categories=(category,))
        schema = FeatureSchema(format_version=1, model="m", features=(feature,))
        with pytest.raises(BadInput, match=message):
            frames.to_tensors(frames.from_rows([{"x": category}], schema))


def test_embeddings_keep_their_shape() -> None:
    schema = FeatureSchema(
        format_version=1, model="m", features=(Feature(name="e", kind="embedding", datatype="FP32"),)
    )
    frame = frames.to_frame([Tensor("e", "FP32", np.ones((2, 3), dtype=np.float32))], schema)
    assert frame["e"].shape == (2, 3)
    assert frames.to_tensors(frame)[0].data.shape == (2, 3)
    assert frames.from_rows([{"e": [1, 2, 3]}], schema)["e"].tolist() == [[1.0, 2.0, 3.0]]
    with pytest.raises(DecodeError, match="feature 'e'"):
        frames.from_rows([{"e": [1, 2]}, {"e": [1]}], schema)


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "a": st.none() | st.floats(allow_infinity=False) | st.integers(-(2**53), 2**53),
                "b": st.none() | st.floats(allow_infinity=False),
                "c": st.integers(-5, 5),
            }
        ),
        min_size=1,
        max_size=6,
    )
)
def test_rows_survive_the_way_to_the_model_and_back(rows: list[dict[str, object]]) -> None:
    schema = FeatureSchema(
        format_version=1,
        model="flat",
        features=(
            Feature(name="a", kind="numeric"),
            Feature(name="b", kind="numeric"),
            Feature(name="c", kind="categorical", datatype="INT64", categories=("0", "1", "2")),
        ),
    )
    frame = frames.from_rows(rows, schema)
    sent = v2.encode_request(frames.to_tensors(frame))
    assert frames.to_frame(v2.decode_request(sent).inputs, schema).digest == frame.digest


def test_real_rows() -> None:
    table = pq.read_table(ACS).slice(0, 1000)
    names = table.column_names[1:17]
    schema = FeatureSchema(
        format_version=1,
        model="employment",
        features=tuple(
            Feature(name=name, kind="numeric")
            if name == "AGEP"
            else Feature(
                name=name, kind="categorical", datatype="BYTES", categories=tuple(sorted(set(table[name].to_pylist())))
            )
            for name in names
        ),
    )
    rows = table.select(names).to_pylist()
    frame = frames.from_rows(rows, schema)
    assert [frame.row(i) for i in range(1000)] == rows
    again = frames.to_frame(v2.decode_request(v2.encode_request(frames.to_tensors(frame))).inputs, schema)
    assert again.digest == frame.digest
