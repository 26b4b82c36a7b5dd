"""MLServer's content types; `test_golden.py` reads what MLServer writes."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from govern.codecs import v2
from govern.codecs.tensor import Tensor
from govern.errors import DecodeError


def read(content_type: object, data: list[object], datatype: str = "BYTES") -> Tensor:
    parameters = {"content_type": content_type}
    wire = {"name": "x", "shape": [len(data), 1], "datatype": datatype, "data": data, "parameters": parameters}
    (tensor,) = v2.decode_request(json.dumps({"inputs": [wire]}).encode()).inputs
    return tensor


def test_base64_is_bytes_and_what_is_none_stays() -> None:
    assert read("base64", ["/wA=", "YQ==", "no base64", "ü", None]).data.ravel().tolist() == [
        b"\xff\x00",
        "a",
        "no base64",
        "ü",
        None,
    ]


def test_times_are_seconds_since_the_epoch() -> None:
    tensor = read("datetime", ["1970-01-01T00:00:01Z", "1970-01-01T01:00:00+01:00", "1970-01-02", None, ""])
    assert tensor.datatype == "FP64"
    np.testing.assert_array_equal(tensor.data, [[1.0], [0.0], [86400.0], [math.nan], [math.nan]])


def test_pandas_objects_are_of_the_datatype_that_they_have() -> None:
    assert read("pd_json", ["1", "2.5"]).data.tolist() == [[1.0], [2.5]]
    assert read("pd_json", ["true"]).datatype == "BOOL"
    assert read("pd_json", ['"a"', "1"]).datatype == "MIXED"
    assert read("pd_json", ['{"a": 1}']).data.tolist() == [['{"a": 1}']]


@pytest.mark.parametrize("content_type", ["np", "pd", "str", "hg_json", "mine", 3, None])
def test_other_content_types_change_nothing(content_type: object) -> None:
    assert read(content_type, ["1", "a"]).data.tolist() == [["1"], ["a"]]


@pytest.mark.parametrize(
    ("content_type", "data", "datatype", "message"),
    [
        ("datetime", ["2026-13-01"], "BYTES", "'x', element 0: '2026-13-01' is no time"),
        ("datetime", [1.0], "FP64", "'x': content type 'datetime' on datatype FP64"),
        ("base64", [1], "INT8", "'x': content type 'base64' on datatype INT8"),
        ("pd_json", ["1", "{"], "BYTES", "'x', element 1 is no JSON"),
    ],
)
def test_a_wrong_element_is_named(content_type: str, data: list[object], datatype: str, message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        read(content_type, data, datatype)
