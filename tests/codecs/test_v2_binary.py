"""V2's binary tensor data; `test_golden.py` reads what tritonclient writes."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from govern.codecs import v2, v2_binary
from govern.codecs.tensor import DTYPES
from govern.errors import DecodeError

FIXED = sorted(set(DTYPES) - {"BYTES", "BF16"})


def message(*tensors: tuple[dict[str, object], bytes]) -> tuple[bytes, int]:
    inputs = [{"name": f"x{i}", **head} for i, (head, _) in enumerate(tensors)]
    head = json.dumps({"inputs": inputs}).encode()
    return head + b"".join(data for _, data in tensors), len(head)


def binary(datatype: str, shape: list[int], data: bytes, **more: object) -> tuple[dict[str, object], bytes]:
    return {"datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(data)}} | more, data


@given(st.data())
def test_arrays_are_read_back(data: st.DataObject) -> None:
    kinds = data.draw(st.lists(st.sampled_from(FIXED), min_size=1, max_size=4))
    arrays = [
        data.draw(hnp.arrays(DTYPES[datatype], hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4)))
        for datatype in kinds
    ]
    body, size = message(
        *(
            binary(kind, list(array.shape), array.astype(array.dtype.newbyteorder("<")).tobytes())
            for kind, array in zip(kinds, arrays, strict=True)
        )
    )
    for json_size in (size, None):
        got = v2.decode_request(body, json_size=json_size)
        for sent, tensor in zip(arrays, got.inputs, strict=True):
            assert tensor.data.dtype == sent.dtype
            np.testing.assert_array_equal(tensor.data, sent)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])) | st.binary(), max_size=6))
def test_bytes_are_read_back(elements: list[str | bytes]) -> None:
    raw = [one.encode() if isinstance(one, str) else one for one in elements]
    body, size = message(binary("BYTES", [len(raw)], b"".join(struct.pack("<I", len(one)) + one for one in raw)))
    (tensor,) = v2.decode_request(body, json_size=size).inputs
    back: list[str | bytes] = tensor.data.tolist()
    assert [one.encode() if isinstance(one, str) else one for one in back] == raw


@given(st.lists(st.integers(0, 2**16 - 1), min_size=1, max_size=8))
def test_bf16_is_the_upper_half_of_an_fp32(halves: list[int]) -> None:
    body, size = message(binary("BF16", [len(halves)], np.array(halves, "<u2").tobytes()))
    (tensor,) = v2.decode_request(body, json_size=size).inputs
    np.testing.assert_array_equal(tensor.data, np.array([half << 16 for half in halves], np.uint32).view(np.float32))


def test_tensors_in_json_and_behind_it_side_by_side() -> None:
    body, size = message(
        binary("FP32", [1], struct.pack("<f", 1.5)),
        ({"datatype": "INT8", "shape": [2], "data": [1, 2]}, b""),
        binary("BYTES", [1], b"\x01\x00\x00\x00a"),
    )
    assert [one.data.tolist() for one in v2.decode_request(body, json_size=size).inputs] == [[1.5], [1, 2], ["a"]]


ONE = binary("FP32", [1], b"\x00" * 4)


@pytest.mark.parametrize(
    ("tensor", "message_text"),
    [
        (binary("FP32", [2], b"\x00" * 4), r"'x0': data does not fit shape \[2\].*4 bytes, 2 elements of FP32 are 8"),
        (binary("BF16", [2], b"\x00" * 8), "2 elements of BF16 are 4"),
        (binary("BYTES", [1], b"\x05\x00\x00\x00ab"), "'x0', element 0 is cut.*says 5 bytes, 2 follow"),
        (binary("BYTES", [1], b"\x05\x00"), "'x0', element 0 is cut"),
        (binary("BYTES", [2], b"\x00" * 4), r"'x0': data does not fit shape \[2\].*1 elements"),
        (binary("FP32", [-1], b""), "'x0': field `shape`"),
        (binary("FP33", [1], b""), "'x0': datatype 'FP33' is unknown"),
        (({**ONE[0], "parameters": {"binary_data_size": 5}}, ONE[1]), "parameter `binary_data_size` is 5.*4 bytes"),
        (({**ONE[0], "parameters": {"binary_data_size": -4}}, ONE[1]), "parameter `binary_data_size` is -4"),
        (({**ONE[0], "parameters": {"binary_data_size": "4"}}, ONE[1]), "parameter `binary_data_size` is 4"),
        (({**ONE[0], "parameters": {"binary_data_size": True}}, ONE[1]), "parameter `binary_data_size` is True"),
        (({"datatype": "FP32", "shape": [1], "data": [1.0]}, b"1234"), "4 bytes too many behind its JSON|is no JSON"),
        ((ONE[0], b"\x00" * 9), "V2 request has 5 bytes too many behind its JSON"),
        (({"datatype": "FP32", "shape": [1]}, b""), "'x0': field `data`.*missing"),
    ],
)
def test_a_wrong_tensor_is_named(tensor: tuple[dict[str, object], bytes], message_text: str) -> None:
    body, size = message(tensor)
    for json_size in (size, None):
        with pytest.raises(DecodeError, match=message_text):
            v2.decode_request(body, json_size=json_size)


@pytest.mark.parametrize("value", ["-1", "x", "1.5", "", "9" * 5000, "٣"])
def test_a_header_that_is_no_number_is_named(value: str) -> None:
    with pytest.raises(DecodeError, match="header inference-header-content-length is"):
        v2_binary.json_size({v2_binary.HEADER: value})


def test_a_json_size_beyond_the_body_is_named() -> None:
    body, size = message(ONE)
    with pytest.raises(DecodeError, match=f"content-length is {len(body) + 1}.*has {len(body)} bytes"):
        v2.decode_request(body, json_size=len(body) + 1)
    with pytest.raises(DecodeError, match="is no JSON"):
        v2.decode_request(body, json_size=size - 1)
