from __future__ import annotations

import gzip
import json
import struct

import numpy as np
import pytest
from google.protobuf.message import Message

from govern.codecs import inference as codec
from govern.codecs import open_inference_pb2 as pb
from govern.codecs import v2
from govern.codecs.packing import MAX_UNPACKED_BYTES
from govern.codecs.tensor import Tensor
from govern.errors import DecodeError
from govern.record import Inference, Payload, Redaction
from govern.schema import Feature, FeatureSchema

V2_BODY = v2.encode_request([Tensor("input-0", "FP64", np.array([[1.0, 2.0, 1.0], [3.0, 4.0, 2.0]]))])
V1_BODY = json.dumps({"instances": [[1, 2, 1], [3, 4, 2]]}).encode()
V2_ANSWER = v2.encode_response(
    "m",
    [
        Tensor("probability", "FP32", np.array([[0.25, 0.75], [0.5, 0.5]], dtype=np.float32)),
        Tensor("label", "BYTES", np.array(["a", "b"], dtype=object)),
        Tensor("batch", "FP64", np.array([1.0, 2.0, 3.0])),
        Tensor("class", "INT64", np.array([1, 0])),
    ],
)


def inference(body: bytes = V2_BODY, answer: bytes = V2_ANSWER, **changed: object) -> Inference:
    fields: dict[str, object] = {
        "id": "0193-a",
        "protocol": "v2",
        "status_code": 200,
        "request": Payload(body=body, size=len(body)),
        "response": Payload(body=answer, size=len(answer)),
    }
    return Inference(**(fields | changed))  # type: ignore[arg-type]


def test_rows_and_outputs(flat: FeatureSchema) -> None:
    frame = codec.decode(inference(), flat)
    assert frame.instance_ids == ("0193-a/0", "0193-a/1")
    assert frame.row(1) == {"a": 3.0, "b": 4.0, "c": "2"}
    assert set(frame.outputs) == {"probability", "class"}
    assert frame.outputs["probability"].dtype == np.float64
    assert frame.outputs["probability"].tolist() == [[0.25, 0.75], [0.5, 0.5]]
    assert frame.outputs["class"].tolist() == [[1.0], [0.0]]


@pytest.mark.parametrize("protocol", ["v1", "unknown", ""])
def test_v1_named_or_sniffed(flat: FeatureSchema, protocol: str) -> None:
    frame = codec.decode(inference(V1_BODY, b'{"predictions": [0.1, 0.9]}', protocol=protocol), flat)
    assert frame.row(0) == {"a": 1.0, "b": 2.0, "c": "1"}
    assert frame.outputs["predictions"].tolist() == [[0.1], [0.9]]


@pytest.mark.parametrize("body", [V2_BODY, b'{"inputs": {"a": [1], "b": [2], "c": [0]}}'])
def test_other_forms_are_sniffed(flat: FeatureSchema, body: bytes) -> None:
    assert codec.decode(inference(body, protocol="unknown"), flat).row(0)["a"] == 1.0


GRPC_REQUEST = pb.ModelInferRequest(
    inputs=[pb.ModelInferRequest.InferInputTensor(name="input-0", datatype="FP64", shape=[2, 3])],
    raw_input_contents=[np.array([[1.0, 2.0, 1.0], [3.0, 4.0, 2.0]]).tobytes()],
)
GRPC_ANSWER = pb.ModelInferResponse(
    outputs=[
        pb.ModelInferResponse.InferOutputTensor(
            name="p", datatype="FP32", shape=[2], contents=pb.InferTensorContents(fp32_contents=[0.25, 0.5])
        )
    ]
)
BINARY_HEAD = json.dumps(
    {"inputs": [{"name": "x", "shape": [2, 3], "datatype": "FP32", "parameters": {"binary_data_size": 24}}]}
).encode()
BINARY_BODY = BINARY_HEAD + np.array([[1, 2, 1], [3, 4, 2]], "<f4").tobytes()
SELDON_BODY = b'{"data": {"ndarray": [[1, 2, "1"], [3, 4, "2"]]}}'
SELDON_ANSWER = b'{"data": {"names": ["p"], "ndarray": [[0.25], [0.5]]}}'


def framed(message: Message) -> Payload:
    data = message.SerializeToString()
    return Payload(body=struct.pack(">BI", 0, len(data)) + data, content_type="application/grpc")


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize(
    ("protocol", "request_half", "response_half"),
    [
        ("v2-grpc", framed(GRPC_REQUEST), framed(GRPC_ANSWER)),
        (
            "v2-grpc",
            Payload(body=b"\0\0\0\0\1\0" + GRPC_REQUEST.SerializeToString(), content_type="application/protobuf"),
            Payload(body=GRPC_ANSWER.SerializeToString(), content_type="application/protobuf"),
        ),
        (
            "v2",
            Payload(body=BINARY_BODY, headers={"inference-header-content-length": str(len(BINARY_HEAD))}),
            Payload(body=v2.encode_response("m", [Tensor("p", "FP64", np.array([0.25, 0.5]))])),
        ),
        (
            "v2",
            Payload(body=gzip.compress(BINARY_BODY)),
            Payload(body=v2.encode_response("m", [Tensor("p", "FP64", np.array([0.25, 0.5]))])),
        ),
        ("seldon-v1", Payload(body=SELDON_BODY), Payload(body=SELDON_ANSWER)),
    ],
    ids=["grpc", "kafka", "binary", "binary-gzip", "seldon"],
)
def test_one_frame_from_every_protocol(
    flat: FeatureSchema, protocol: str, request_half: Payload, response_half: Payload, declared: bool
) -> None:
    record = inference(protocol=protocol if declared else "unknown", request=request_half, response=response_half)
    frame = codec.decode(record, flat)
    assert [frame.row(0), frame.row(1)] == [{"a": 1.0, "b": 2.0, "c": "1"}, {"a": 3.0, "b": 4.0, "c": "2"}]
    assert frame.outputs["p"].tolist() == [[0.25], [0.5]]


@pytest.mark.parametrize("protocol", ["openai", "unknown"])
def test_a_streamed_chat_is_a_row_of_text_with_its_token_counts(protocol: str) -> None:
    words = FeatureSchema(
        format_version=1, model="chat", features=(Feature(name="prompt", kind="text", datatype="BYTES"),)
    )
    chunks = [
        {"choices": [{"index": 0, "delta": {"content": "hello"}}]},
        {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}},
    ]
    answer = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    record = inference(
        protocol=protocol,
        request=Payload(body=json.dumps({"messages": [{"role": "user", "content": "hi"}]}).encode()),
        response=Payload(body=answer.encode(), content_type="text/event-stream"),
    )
    frame = codec.decode(record, words)
    assert frame.row(0) == {"prompt": "hi"}
    assert {name: values.tolist() for name, values in frame.outputs.items()} == {
        "prompt_tokens": [[5.0]],
        "completion_tokens": [[1.0]],
        "total_tokens": [[6.0]],
    }


@pytest.mark.parametrize(
    "changed",
    [
        {"status_code": 500},
        {"truncated": ("response",)},
        {"response": Payload()},
        {"response": Payload(body=b"oops")},
        {"response": Payload(body=V2_ANSWER, content_encoding="br")},
    ],
)
def test_inputs_are_judged_without_a_readable_answer(flat: FeatureSchema, changed: dict[str, object]) -> None:
    frame = codec.decode(inference(**changed), flat)
    assert len(frame) == 2
    assert frame.outputs == {}


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZIP"])
def test_gzip_is_unpacked(flat: FeatureSchema, encoding: str) -> None:
    packed = Payload(body=gzip.compress(V2_BODY), content_encoding=encoding)
    answer = Payload(body=gzip.compress(V2_ANSWER), content_encoding=encoding)
    frame = codec.decode(inference(request=packed, response=answer), flat)
    assert "probability" in frame.outputs


def test_a_bomb_is_refused(flat: FeatureSchema) -> None:
    bomb = gzip.compress(b" " * (MAX_UNPACKED_BYTES + 1), compresslevel=1)
    with pytest.raises(DecodeError, match=f"larger than {MAX_UNPACKED_BYTES} bytes"):
        codec.decode(inference(request=Payload(body=bomb, content_encoding="gzip")), flat)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"truncated": ("request",), "request": Payload(body=b"{", size=900)}, "0193-a is cut.*kept 1 of 900 bytes"),
        ({"request": Payload()}, "not in the record.*empty on the wire"),
        ({"request": Payload(), "missing": ("request",)}, "not in the record.*never sent this one"),
        ({"request": Payload(body_ref="s3://x/y", size=9)}, "lies at s3://x/y"),
        ({"request": Payload(), "redactions": (Redaction(path="$", action="withhold"),)}, r"redacted: \$ \(withhold\)"),
        ({"request": Payload(body=V2_BODY, content_encoding="lzma")}, "content-encoding 'lzma'"),
        ({"request": Payload(body=V2_BODY, content_encoding="br")}, "request body is no br"),
        ({"request": Payload(body=V2_BODY, content_encoding="gzip")}, "is no gzip"),
        ({"request": Payload(body=gzip.compress(V2_BODY)[:-9], content_encoding="gzip")}, "end too early"),
        ({"protocol": "soap"}, "protocol 'soap'.*v1, v2, v2-grpc, seldon-v1, openai"),
        ({"protocol": "unknown", "request": Payload(body=b'{"query": "hi"}')}, "unknown protocol"),
        ({"protocol": "unknown", "request": Payload(body=b"[1]")}, "unknown protocol"),
        ({"request": Payload(body=b"not json")}, "V2 request is no JSON"),
        ({"protocol": "v2-grpc", "request": Payload(body=b"\0\0\0\0\x09x", content_type="application/grpc")}, "is cut"),
        ({"protocol": "seldon-v1", "request": Payload(body=b"{}")}, "Seldon request: fields"),
        ({"protocol": "openai", "request": Payload(body=b'{"prompt": "hi"}')}, "no feature of the schema of 'flat'"),
    ],
)
def test_what_cannot_be_decoded_says_why(flat: FeatureSchema, changed: dict[str, object], message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        codec.decode(inference(**changed), flat)
