from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

from govern.codecs import inference as codec
from govern.codecs import v2
from govern.codecs.packing import MAX_UNPACKED_BYTES
from govern.codecs.tensor import Tensor
from govern.errors import DecodeError
from govern.record import Inference, Payload, Redaction
from govern.schema import FeatureSchema

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
        ({"request": Payload(body_ref="s3://x/y", size=9)}, "lies at s3://x/y"),
        ({"request": Payload(), "redactions": (Redaction(path="$", action="withhold"),)}, r"redacted: \$ \(withhold\)"),
        ({"request": Payload(body=V2_BODY, content_encoding="br")}, "content-encoding 'br'.*gzip only"),
        ({"request": Payload(body=V2_BODY, content_encoding="gzip")}, "is no gzip"),
        ({"request": Payload(body=gzip.compress(V2_BODY)[:-9], content_encoding="gzip")}, "end too early"),
        ({"protocol": "openai"}, "protocol 'openai'.*v1 and v2"),
        ({"protocol": "unknown", "request": Payload(body=b'{"prompt": "hi"}')}, "unknown protocol"),
        ({"protocol": "unknown", "request": Payload(body=b"[1]")}, "unknown protocol"),
        ({"request": Payload(body=b"not json")}, "V2 request is no JSON"),
    ],
)
def test_what_cannot_be_decoded_says_why(flat: FeatureSchema, changed: dict[str, object], message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        codec.decode(inference(**changed), flat)
