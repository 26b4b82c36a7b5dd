"""V2 over gRPC; `test_golden.py` reads what tritonclient and MLServer write."""

from __future__ import annotations

import gzip
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from govern.codecs import open_inference_pb2 as pb
from govern.codecs import v2_grpc
from govern.codecs.protocols import CODECS, Body
from govern.codecs.tensor import DTYPES
from govern.errors import DecodeError
from govern.schema import FeatureSchema

FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}


def framed(*messages: bytes, flag: int = 0) -> bytes:
    return b"".join(struct.pack(">BI", flag, len(one)) + one for one in messages)


def request(**tensor: object) -> pb.ModelInferRequest:
    fields: dict[str, object] = {"name": "x", "datatype": "FP32", "shape": [1]}
    return pb.ModelInferRequest(model_name="m", inputs=[pb.ModelInferRequest.InferInputTensor(**(fields | tensor))])


def contents(**fields: object) -> pb.InferTensorContents:
    return pb.InferTensorContents(**fields)


@given(st.sampled_from(sorted(FIELDS)), st.data())
def test_typed_contents_are_read_back(datatype: str, data: st.DataObject) -> None:
    shape = hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4)
    array = data.draw(hnp.arrays(DTYPES[datatype], shape))
    sent = request(
        datatype=datatype, shape=array.shape, contents=contents(**{FIELDS[datatype]: array.ravel().tolist()})
    )
    for body, content_type in (
        (framed(sent.SerializeToString()), "application/grpc+proto"),
        (sent.SerializeToString(), "application/protobuf"),
        (framed(sent.SerializeToString()), ""),
        (sent.SerializeToString(), ""),
    ):
        ((tensor,),) = [one.inputs for one in v2_grpc.decode_requests(body, content_type)]
        assert tensor.data.dtype == array.dtype
        np.testing.assert_array_equal(tensor.data, array)


@given(st.lists(st.binary(), min_size=1, max_size=5))
def test_bytes_contents_are_read_back(elements: list[bytes]) -> None:
    sent = request(datatype="BYTES", shape=[len(elements)], contents=contents(bytes_contents=elements))
    ((tensor,),) = [one.inputs for one in v2_grpc.decode_requests(framed(sent.SerializeToString()))]
    assert [one.encode() if isinstance(one, str) else one for one in tensor.data.tolist()] == elements


def test_id_parameters_and_outputs() -> None:
    sent = request(contents=contents(fp32_contents=[1]))
    sent.id = "r"
    sent.parameters["a"].int64_param = 3
    sent.parameters["b"].string_param = "x"
    sent.parameters["none"].SetInParent()
    sent.outputs.add(name="y")
    (got,) = v2_grpc.decode_requests(framed(sent.SerializeToString()))
    assert (got.id, got.parameters, got.outputs) == ("r", {"a": 3, "b": "x"}, ("y",))


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_compressed_messages_are_unpacked(pack: object) -> None:
    message = request(contents=contents(fp32_contents=[2])).SerializeToString()
    packed = pack(message)  # type: ignore[operator]
    ((tensor,),) = [one.inputs for one in v2_grpc.decode_requests(framed(packed, flag=1))]
    assert tensor.data.tolist() == [2.0]


def answer(*rows: float, **fields: object) -> bytes:
    y = pb.ModelInferResponse.InferOutputTensor(name="y", datatype="FP32", shape=[len(rows)])
    response = pb.ModelInferResponse(outputs=[y], raw_output_contents=[np.array(rows, "<f4").tobytes()])
    return pb.ModelStreamInferResponse(infer_response=response, **fields).SerializeToString()


def test_the_messages_of_a_stream_are_rows_of_one_frame(flat: FeatureSchema) -> None:
    body = framed(*(request(contents=contents(fp32_contents=[i])).SerializeToString() for i in range(3)))
    (tensor,) = CODECS["v2-grpc"].request(Body(body, "application/grpc"), flat)
    assert tensor.data.tolist() == [0.0, 1.0, 2.0]
    stream = Body(framed(answer(0.5), answer(1.5, 2.5)), "application/grpc", {}, "/inference.X/ModelStreamInfer")
    (output,) = CODECS["v2-grpc"].response(stream)
    assert output.data.tolist() == [0.5, 1.5, 2.5]


def test_an_error_in_a_stream_is_named() -> None:
    body = framed(answer(0.5), answer(error_message="no such model"))
    with pytest.raises(DecodeError, match="message 1 is an error: no such model"):
        v2_grpc.decode_responses(body, stream=True)


def test_unlike_messages_of_a_stream_are_named(flat: FeatureSchema) -> None:
    other = request(datatype="INT64", contents=contents(int64_contents=[1]))
    for second in (other, request(name="z", contents=contents(fp32_contents=[1]))):
        first = request(contents=contents(fp32_contents=[1]))
        body = framed(first.SerializeToString(), second.SerializeToString())
        with pytest.raises(DecodeError, match="tensor 'x' of a stream"):
            CODECS["v2-grpc"].request(Body(body, "application/grpc"), flat)


def test_a_call_that_is_no_inference_is_named(flat: FeatureSchema) -> None:
    with pytest.raises(DecodeError, match="ServerLive: it is no inference"):
        CODECS["v2-grpc"].request(
            Body(b"\x00" * 5, "application/grpc", {}, "/inference.GRPCInferenceService/ServerLive"), flat
        )


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        ({"datatype": "FP16"}, "elements of datatype FP16 in `contents`.*no field.*as raw contents"),
        ({"contents": contents(fp64_contents=[1])}, "'x'.*in fp64_contents instead of fp32_contents"),
        ({"contents": contents(fp32_contents=[1, 2])}, r"'x': data does not fit shape \[1\].*2 elements"),
        ({"shape": [-1]}, "'x': field `shape`"),
        ({"shape": [1] * 33}, "'x': field `shape`"),
        ({"shape": [2**62, 2**62, 0]}, "shape of 3 dimensions"),
        ({"datatype": "FP8"}, "'x': datatype 'FP8' is unknown"),
        ({"datatype": "INT8", "contents": contents(int_contents=[128])}, "'x', element 0: 128 does not fit INT8"),
        ({"datatype": "UINT16", "contents": contents(uint_contents=[2**16])}, "'x', element 0: 65536 does not fit"),
    ],
)
def test_a_wrong_tensor_is_named(tensor: dict[str, object], message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        v2_grpc.decode_requests(framed(request(**tensor).SerializeToString()))


RAW_AND_TYPED = request(contents=contents(fp32_contents=[1]))
RAW_AND_TYPED.raw_input_contents.append(b"\x00" * 4)
TOO_MUCH_RAW = request()
TOO_MUCH_RAW.raw_input_contents.extend([b"", b""])
TWICE = request(contents=contents(fp32_contents=[1]))
TWICE.inputs.append(TWICE.inputs[0])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "V2 gRPC request is empty"),
        (framed(b""), "no input tensor"),
        (b"\x00\x00\x00", "message 0 is cut"),
        (b"\x00\x00\x00\x00\x09abc", "message 0 is cut.*says 9 bytes, 3 follow"),
        (b"\x02\x00\x00\x00\x00", "message 0: flag 2"),
        (framed(b"\xff\xff"), "message 0 is no ModelInferRequest"),
        (framed(b"\x1f\x8bxx", flag=1), "message 0 is no gzip"),
        (framed(b"\xff\xff\xff", flag=1), "message 0 is no deflate"),
        (framed(RAW_AND_TYPED.SerializeToString()), "'x': field `contents`.*raw_input_contents"),
        (framed(TOO_MUCH_RAW.SerializeToString()), "`raw_input_contents`: it has 2 entries for 1"),
        (framed(TWICE.SerializeToString()), "'x': it comes twice"),
    ],
)
def test_a_wrong_body_is_named(body: bytes, message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        v2_grpc.decode_requests(body, "application/grpc")
