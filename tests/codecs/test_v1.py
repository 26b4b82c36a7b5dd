from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from govern.codecs import v1
from govern.codecs.tensor import Tensor
from govern.errors import DecodeError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "b", "b64"]), inner, max_size=3),
    max_leaves=20,
)


def decode(**document: object) -> dict[str, tuple[str, object]]:
    tensors = v1.decode_request(json.dumps(document).encode())
    return {tensor.name: (tensor.datatype, tensor.data.tolist()) for tensor in tensors}


def test_rows_of_lists_are_one_matrix() -> None:
    assert decode(instances=[[1, 2.5], [3, 4]]) == {"instances": ("FP64", [[1.0, 2.5], [3.0, 4.0]])}
    assert decode(instances=[[1, 2]]) == {"instances": ("INT64", [[1, 2]])}
    assert decode(instances=[["a", 1], ["b", 2]]) == {"instances": ("MIXED", [["a", 1], ["b", 2]])}


def test_rows_of_objects_are_one_tensor_for_each_key() -> None:
    got = decode(instances=[{"age": 5, "sex": "1", "ok": True}, {"age": 6.5, "ok": False}])
    assert got == {"age": ("FP64", [5.0, 6.5]), "sex": ("BYTES", ["1", None]), "ok": ("BOOL", [True, False])}


def test_columns_by_name_and_without() -> None:
    assert decode(inputs={"a": [1, 2], "b": ["x", "y"]}) == {"a": ("INT64", [1, 2]), "b": ("BYTES", ["x", "y"])}
    assert decode(inputs=[1, 2]) == {"inputs": ("INT64", [1, 2])}


def test_binary_values_are_bytes() -> None:
    assert decode(instances=[{"a": {"b64": "/wA="}}, {"a": {"b64": "aGk="}}]) == {"a": ("BYTES", [b"\xff\x00", "hi"])}
    assert decode(instances=[{"b64": "aGk="}, {"b64": "/w=="}]) == {"instances": ("BYTES", ["hi", b"\xff"])}
    assert decode(inputs={"a": [[{"b64": "aGk="}, 1]]}) == {"a": ("MIXED", [["hi", 1]])}


def test_null_makes_integers_floating() -> None:
    (tensor,) = v1.decode_request(b'{"instances": [1, null, NaN]}')
    assert tensor.datatype == "FP64"
    np.testing.assert_array_equal(tensor.data, [1.0, np.nan, np.nan])


def test_integers_beyond_64_bits_are_floating() -> None:
    assert decode(instances=[2**70]) == {"instances": ("FP64", [float(2**70)])}


def test_predictions() -> None:
    (tensor,) = v1.decode_response(b'{"predictions": [[0.1, 0.9], [0.5, 0.5]]}')
    assert (tensor.name, tensor.datatype, tensor.data.shape) == ("predictions", "FP64", (2, 2))
    (tensor,) = v1.decode_response(b'{"outputs": {"p": [1, 0]}}')
    assert (tensor.name, tensor.data.tolist()) == ("p", [1, 0])


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "neither `instances` nor `inputs`"),
        ({"instances": [1], "inputs": [1]}, "both"),
        ({"instances": []}, "`instances`.*empty"),
        ({"instances": 3}, "`instances`.*no list"),
        ({"inputs": {}}, "names no column"),
        ({"inputs": {"a": 1}}, "`inputs.a`.*no list"),
        ({"instances": [{"a": 1}, [2]]}, r"`instances\[1\]` is no object"),
        ({"instances": [{}, {}]}, "empty objects"),
        ({"instances": [[1, 2], [3]]}, "'instances' is ragged"),
        ({"instances": [{"a": {"b64": "aGk=", "c": 1}}]}, "'a', element 0 is an object.*nothing but \"b64\""),
        ({"instances": [{"a": {"b64": "a"}}]}, "'a', element 0: its `b64` is no base64"),
        ({"instances": [{"a": {"b64": "ü"}}]}, "'a', element 0: its `b64` is no base64"),
        ({"instances": [{"b64": 3}]}, "'instances', element 0: its `b64` is no base64"),
        ({"instances": [1, [2]]}, "element 1 is a list"),
        ([1], "V1 request has not the shape"),
    ],
)
def test_a_wrong_request_is_named(document: object, message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        v1.decode_request(json.dumps(document).encode())


def read(document: object) -> list[Tensor]:
    """The tensors, none when it is refused as it should be; any other error fails the test."""
    try:
        return v1.decode_request(json.dumps(document).encode())
    except DecodeError:
        return []


@given(JSON)
def test_hostile_json_is_refused_or_read(anything: object) -> None:
    for document in (anything, {"instances": anything}, {"inputs": anything}, {"instances": [anything, anything]}):
        assert all(tensor.data.ndim >= 1 for tensor in read(document))


@given(st.binary())
def test_hostile_bytes_are_a_decode_error(junk: bytes) -> None:
    with pytest.raises(DecodeError):
        v1.decode_request(junk)
