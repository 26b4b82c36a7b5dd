"""Seldon Core v1's messages and feedback, in the forms of its reference
(https://docs.seldon.io/projects/seldon-core/en/latest/reference/apis/external-prediction.html)."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from govern.codecs import seldon_v1
from govern.codecs.frames import to_frame
from govern.codecs.seldon_message import Feedback, decode_feedback
from govern.codecs.tensor import Tensor
from govern.errors import DecodeError
from govern.schema import Feature, FeatureSchema

TEXT = FeatureSchema(format_version=1, model="words", features=(Feature(name="review", kind="text", datatype="BYTES"),))


def read(schema: FeatureSchema, **document: object) -> dict[str, tuple[str, object]]:
    return shown(seldon_v1.decode_request(json.dumps(document).encode(), schema))


def answer(**document: object) -> dict[str, tuple[str, object]]:
    return shown(seldon_v1.decode_response(json.dumps(document).encode()))


def shown(tensors: list[Tensor]) -> dict[str, tuple[str, object]]:
    return {tensor.name: (tensor.datatype, tensor.data.tolist()) for tensor in tensors}


@given(hnp.arrays(float, hnp.array_shapes(min_dims=2, max_dims=3, max_side=4), elements=st.floats(-1e9, 1e9)))
def test_both_forms_of_an_array_are_the_same_tensor(array: object) -> None:
    values = array.tolist()  # type: ignore[attr-defined]
    tensor = {"shape": array.shape, "values": array.ravel().tolist()}  # type: ignore[attr-defined]
    assert answer(data={"ndarray": values}) == {"data": ("FP64", values)} == answer(data={"tensor": tensor})


def test_an_array_without_feature_names_is_one_tensor(flat: FeatureSchema) -> None:
    for names in ([], ["f0", "f1", "f2"]):
        assert read(flat, data={"names": names, "ndarray": [[1, 2, "1"]]}) == {"data": ("MIXED", [[1, 2, "1"]])}
    frame = to_frame(seldon_v1.decode_request(b'{"data": {"ndarray": [[1, null, "1"]]}}', flat), flat)
    assert frame.row(0) == {"a": 1.0, "b": None, "c": "1"}


def test_columns_are_found_by_name(flat: FeatureSchema) -> None:
    tensor = {"shape": [2, 3], "values": [1, 10.5, 100, 2, 20, 200]}
    body = json.dumps({"data": {"names": ["c", "b", "a"], "tensor": tensor}}).encode()
    frame = to_frame(seldon_v1.decode_request(body, flat), flat)
    assert [frame.row(0), frame.row(1)] == [{"a": 100.0, "b": 10.5, "c": "1"}, {"a": 200.0, "b": 20.0, "c": "2"}]


def test_text_json_and_bytes(flat: FeatureSchema) -> None:
    assert read(flat, strData="hello") == {"strData": ("BYTES", ["hello"])}
    assert read(TEXT, strData="hello") == {"review": ("BYTES", ["hello"])}
    assert read(TEXT, binData="/wA=") == {"review": ("BYTES", [b"\xff\x00"])}
    row, columns = {"a": 1, "b": 2, "c": "1"}, {"a": [1, 2], "b": [3, 4], "c": ["1", "2"]}
    one = {"a": ("INT64", [1]), "b": ("INT64", [2]), "c": ("BYTES", ["1"])}
    assert read(flat, jsonData=row) == one == read(flat, jsonData=[row])
    assert read(flat, jsonData=columns)["c"] == ("BYTES", ["1", "2"])


def test_a_response_has_its_matrix_and_its_named_columns() -> None:
    assert answer(data={"names": ["no", "yes"], "ndarray": [[0.25, 0.75]]}, meta={"puid": "p"}) == {
        "data": ("FP64", [[0.25, 0.75]]),
        "no": ("FP64", [0.25]),
        "yes": ("FP64", [0.75]),
    }


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "Seldon request: fields: it has no values"),
        ({"data": {}}, "it has no values"),
        ({"data": {"ndarray": [[1]]}, "strData": "x"}, "it has ndarray and strData"),
        ({"data": {"ndarray": []}}, "`data.ndarray`: it is empty"),
        ({"data": {"ndarray": [[1], [1, 2]]}}, "'data' is ragged"),
        ({"data": {"ndarray": 3}}, r"\$\.data\.ndarray"),
        ({"data": {"tensor": {"shape": [2, 2], "values": [1, 2, 3]}}}, r"shape \[2, 2\].*3 elements"),
        ({"data": {"tensor": {"shape": [-1, -3], "values": [1, 2, 3]}}}, r"shape \[-1, -3\]"),
        ({"data": {"tensor": {"shape": [1], "values": ["a"]}}}, "element 0 is no number"),
        ({"data": {"names": ["a", "b"], "ndarray": [[1, 2, 3]]}}, r"has 2 names: the array has shape \[1, 3\]"),
        ({"data": {"names": ["a", "a"], "ndarray": [[1, 2]]}}, "one name of its own"),
        ({"data": {"names": ["a"], "ndarray": [1]}}, r"the array has shape \[1\]"),
        ({"data": {"tftensor": {"dtype": "DT_FLOAT"}}}, "it has no values.*data.ndarray"),
        ({"binData": "x"}, "field `binData`"),
        ({"jsonData": []}, "`jsonData`: it is empty"),
        ({"jsonData": "a"}, r"`jsonData\[0\]` is no object"),
        ([1], "Seldon request has not the shape"),
    ],
)
def test_a_wrong_request_is_named(flat: FeatureSchema, document: object, message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        seldon_v1.decode_request(json.dumps(document).encode(), flat)


@pytest.mark.parametrize(
    ("document", "feedback"),
    [
        (
            {"request": {"data": {"ndarray": [[1]]}, "meta": {"puid": "q"}}, "reward": 1},
            Feedback(puid="q", reward=1.0, truth=""),
        ),
        (
            {"response": {"meta": {"puid": "p"}}, "request": {"meta": {"puid": "q"}}, "truth": {"strData": "yes"}},
            Feedback(puid="p", reward=0.0, truth="yes"),
        ),
        ({"truth": {"data": {"ndarray": [[1]]}}}, Feedback(puid="", reward=0.0, truth="1")),
        (
            {"truth": {"data": {"tensor": {"shape": [1, 2], "values": [0, 1.5]}}}, "reward": 0.5},
            Feedback(puid="", reward=0.5, truth="[0,1.5]"),
        ),
        ({"truth": {"jsonData": {"é": [1]}}}, Feedback(puid="", reward=0.0, truth='{"é":[1]}')),
        ({"truth": {"binData": "/wA="}}, Feedback(puid="", reward=0.0, truth="/wA=")),
    ],
)
def test_feedback(document: dict[str, object], feedback: Feedback) -> None:
    found = decode_feedback(json.dumps(document).encode())
    assert msgspec.structs.replace(found, truth_json=b"") == feedback
    assert json.loads(found.truth_json or b"null") == document.get("truth")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "Seldon feedback: fields: it has neither `reward` nor `truth`"),
        ({"reward": "1"}, r"\$\.reward"),
        ({"truth": {}}, "Seldon feedback: `truth`: fields: it has no values"),
    ],
)
def test_wrong_feedback_is_named(document: dict[str, object], message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        decode_feedback(json.dumps(document).encode())
