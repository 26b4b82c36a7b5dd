from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from govern.codecs import v2
from govern.codecs.tensor import DTYPES, Tensor
from govern.errors import BadInput, DecodeError

SAMPLES = Path(__file__).parents[1] / "data"


def body_of(sample: str) -> bytes:
    return (SAMPLES / sample).read_bytes().split(b"\r\n\r\n", 1)[1]


def request(**tensor: object) -> bytes:
    return json.dumps({"inputs": [{"name": "x", "shape": [2], "datatype": "FP64", "data": [1, 2]} | tensor]}).encode()


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    datatype = draw(st.sampled_from(sorted(DTYPES)))
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4))
    if datatype == "BYTES":
        elements: st.SearchStrategy[object] = st.text(st.characters(exclude_categories=["Cs"])) | st.none()
        data = draw(hnp.arrays(object, shape, elements=elements))
    elif datatype.startswith(("FP", "BF")):
        data = draw(hnp.arrays(DTYPES[datatype], shape, elements={"allow_infinity": False}))
    else:
        data = draw(hnp.arrays(DTYPES[datatype], shape))
    return Tensor(draw(st.text(st.characters(exclude_categories=["Cs"]), min_size=1)), datatype, data)


def same(left: Tensor, right: Tensor) -> bool:
    equal_nan = left.data.dtype.kind == "f"
    return (
        (left.name, left.datatype, left.data.dtype, left.data.shape)
        == (right.name, right.datatype, right.data.dtype, right.data.shape)
    ) and bool(np.array_equal(left.data, right.data, equal_nan=equal_nan))


@given(st.lists(tensors(), min_size=1, max_size=3, unique_by=lambda tensor: tensor.name))
def test_what_is_written_is_read_back(sent: list[Tensor]) -> None:
    got = v2.decode_request(v2.encode_request(sent, request_id="r", parameters={"p": 1}, outputs=["y"]))
    assert (got.id, got.parameters, got.outputs) == ("r", {"p": 1}, ("y",))
    assert all(same(left, right) for left, right in zip(sent, got.inputs, strict=True))
    answer = v2.decode_response(v2.encode_response("m", sent, model_version="3", request_id="r"))
    assert (answer.model_name, answer.model_version, answer.id) == ("m", "3", "r")
    assert all(same(left, right) for left, right in zip(sent, answer.outputs, strict=True))


@given(tensors())
def test_nested_data_is_the_same_tensor(tensor: Tensor) -> None:
    data = tensor.data.astype(object)
    if tensor.data.dtype.kind == "f":
        data[np.isnan(tensor.data)] = None
    wire = {"name": tensor.name, "shape": data.shape, "datatype": tensor.datatype, "data": data.tolist()}
    (got,) = v2.decode_request(json.dumps({"inputs": [wire]}).encode()).inputs
    assert same(tensor, got)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(sorted(DTYPES)),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["inputs", "outputs", "instances", "name", "shape", "datatype", "data", "parameters", "b64"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=30,
)


def read(document: object) -> tuple[Tensor, ...]:
    """The tensors, none when it is refused as it should be; any other error fails the test."""
    try:
        return v2.decode_request(json.dumps(document).encode()).inputs
    except DecodeError:
        return ()


@given(JSON, st.sampled_from(sorted(DTYPES)), st.lists(st.integers(-1, 2**70), max_size=40))
def test_hostile_json_is_refused_or_read(anything: object, datatype: str, shape: list[int]) -> None:
    wire = {"name": "x", "shape": shape, "datatype": datatype, "data": anything}
    for document in (anything, {"inputs": anything}, {"inputs": [anything]}, {"inputs": [wire]}):
        assert all(tensor.data.dtype == DTYPES[tensor.datatype] for tensor in read(document))


@given(st.binary())
def test_hostile_bytes_are_a_decode_error(junk: bytes) -> None:
    with pytest.raises(DecodeError):
        v2.decode_request(junk)


DEEP = b"[" * 100_000


@pytest.mark.parametrize(
    "junk",
    [DEEP, b'{"inputs":' + DEEP, b'{"inputs":[{"data":' + DEEP, b'{"x":' * 50_000, b'{"inputs": NaN' + DEEP, b""],
)
def test_deep_and_broken_nesting_is_a_decode_error(junk: bytes) -> None:
    with pytest.raises(DecodeError, match="V2 request"):
        v2.decode_request(junk)


def test_the_messages_that_kserve_logged() -> None:
    (x,) = v2.decode_request(body_of("kserve-logger-request.http")).inputs
    assert (x.name, x.datatype, x.data.tolist()) == ("x", "FP64", [[1.0, 2.0, 3.0, 4.0]])
    answer = v2.decode_response(body_of("kserve-logger-response.http"))
    assert (answer.model_name, answer.id) == ("m", "x")
    assert answer.outputs[0].data.tolist() == [[0.1, 0.9]]


def test_nan_is_missing_in_a_floating_tensor() -> None:
    (x,) = v2.decode_request(request(shape=[4], data=[float("nan"), None, float("-inf"), 2])).inputs
    np.testing.assert_array_equal(x.data, [np.nan, np.nan, np.nan, 2.0])


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_nan_is_refused_in_an_integer_tensor(missing: object) -> None:
    with pytest.raises(DecodeError, match=r"'x', element 1: null is not of datatype INT32"):
        v2.decode_request(request(datatype="INT32", data=[1, missing]))


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        ({"datatype": "FP65"}, r"input tensor 'x': datatype 'FP65' is unknown"),
        ({"shape": [3]}, r"data does not fit shape \[3\].*2 elements"),
        ({"shape": [2, 1], "data": [[1, 2]]}, r"data does not fit shape \[2, 1\].*\[1, 2\]"),
        ({"shape": [-1]}, "field `shape`.*negative"),
        ({"data": [[1], [2, 3]]}, "ragged.*item 1 is a list of 2"),
        ({"data": [[1], 2]}, "ragged.*item 1 is an integer"),
        ({"data": ["1", "2"]}, "element 0: '1' is not of datatype FP64.*it is text"),
        ({"data": [1, True]}, "element 1: True is not of datatype FP64.*a boolean"),
        ({"data": [1, {"a": 1}]}, "element 1: .* is not of datatype FP64.*an object"),
        ({"datatype": "INT8", "data": [1, 128]}, "element 1: 128 does not fit INT8.*-128 to 127"),
        ({"datatype": "UINT8", "data": [-1, 1]}, "element 0: -1 does not fit UINT8"),
        ({"datatype": "INT64", "data": [1, 2.5]}, "element 1: 2.5 is not of datatype INT64.*no exact integer"),
        ({"datatype": "FP16", "data": [1, 70000]}, "element 1: 70000 does not fit FP16"),
        ({"datatype": "FP32", "data": [1e300, 1]}, "element 0: 1e[+]300 does not fit FP32"),
        ({"data": [10**400, 1]}, "is no JSON|does not fit FP64"),
        ({"datatype": "BYTES", "data": ["a", 1]}, "element 1: 1 is not of datatype BYTES.*an integer"),
        ({"datatype": "BOOL", "data": [True, 1]}, "element 1: 1 is not of datatype BOOL"),
        ({"data": "1,2"}, "field `data`.*no list"),
        ({"name": 3}, r"\$\.inputs\[0\]\.name"),
        ({"shape": "2"}, r"\$\.inputs\[0\]\.shape"),
        ({"shape": [1] * 33, "data": [1]}, "field `shape`.*more than 32 dimensions"),
        ({"shape": [10**4000, 10**4000]}, "field `shape`"),
        ({"shape": [2**62, 2**62, 0], "data": []}, "shape of 3 dimensions"),
    ],
)
def test_a_wrong_tensor_is_named(tensor: dict[str, object], message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        v2.decode_request(request(**tensor))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "missing required field `inputs`"),
        ([], "Expected `object`"),
        ({"inputs": []}, "no input tensor"),
        ({"inputs": [{"name": "x", "shape": [1], "datatype": "FP32"}]}, "field `data`.*missing"),
        ({"inputs": [{"name": "x", "shape": [0], "datatype": "FP32", "data": []}] * 2}, "'x'.*twice"),
    ],
)
def test_a_wrong_request_is_named(document: object, message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        v2.decode_request(json.dumps(document).encode())


def test_a_lone_surrogate_beside_nan_does_not_slip_through() -> None:
    with pytest.raises(DecodeError, match="surrogates"):
        v2.decode_request(b'{"inputs":[{"name":"\\ud800","shape":[1],"datatype":"FP64","data":[NaN]}]}')


def test_utf8_bytes_are_sent_as_text_and_other_bytes_refused() -> None:
    sent = Tensor("x", "BYTES", np.array([b"caf\xc3\xa9"], dtype=object))
    assert v2.decode_request(v2.encode_request([sent])).inputs[0].data.tolist() == ["café"]
    with pytest.raises(BadInput, match="'x': an element is no UTF-8 text"):
        v2.encode_request([Tensor("x", "BYTES", np.array([b"\xff"], dtype=object))])
    with pytest.raises(BadInput, match="BYTES holds text"):
        v2.encode_request([Tensor("x", "BYTES", np.array([3], dtype=object))])
    with pytest.raises(BadInput, match="surrogates"):
        v2.encode_request([Tensor("x", "BYTES", np.array(["\ud800"], dtype=object))])
    with pytest.raises(BadInput, match="'MIXED' cannot be sent"):
        v2.encode_request([Tensor("x", "MIXED", np.array([1, "a"], dtype=object))])


def test_a_scalar_tensor_is_read() -> None:
    (x,) = v2.decode_request(request(shape=[], data=[7])).inputs
    assert x.data.shape == ()
    assert float(x.data) == 7.0
