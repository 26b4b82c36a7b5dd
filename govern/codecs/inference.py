"""A captured inference to the `Frame` of its rows."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from govern.codecs import v1, v2
from govern.codecs.frames import to_frame
from govern.codecs.json_body import parse
from govern.codecs.packing import unpack
from govern.codecs.tensor import Tensor
from govern.errors import DecodeError
from govern.frame import Frame
from govern.record import Inference, Payload
from govern.schema import FeatureSchema

_HTTP_OK: Final = 200


def decode(inference: Inference, schema: FeatureSchema) -> Frame:
    """The rows of an inference, named `<inference id>/<row>`, with the model's outputs for them.

    `outputs` holds every numeric tensor of a 200 response that has one entry for each row, as float64 (n, k). A
    response that failed, was cut or cannot be read gives a frame without outputs: the inputs are still judged.

    Raises:
        DecodeError: a request body that is cut, withheld, packed in an unknown way, of a protocol that this
            release does not read, malformed, or not of the schema.
    """
    body = _body(inference, inference.request, side="request")
    protocol = _protocol(inference.protocol, body)
    tensors = list(v2.decode_request(body).inputs) if protocol == "v2" else v1.decode_request(body)
    frame = to_frame(tensors, schema, instance_prefix=inference.id)
    return Frame(
        schema=schema,
        columns=frame.columns,
        instance_ids=frame.instance_ids,
        unseen=frame.unseen,
        outputs=_outputs(inference, protocol, len(frame)),
    )


def _protocol(declared: str, body: bytes) -> str:
    if declared in ("v1", "v2"):
        return declared
    if declared not in ("", "unknown"):
        raise DecodeError(
            f"inference of protocol {declared!r}",
            why="this release decodes v1 and v2 (JSON over REST)",
            fix="call the model over one of them, or leave this model without detectors",
        )
    document = parse(body, object, what="request")
    if isinstance(document, dict):
        inputs = document.get("inputs")
        if isinstance(inputs, list) and any(isinstance(item, dict) and "datatype" in item for item in inputs):
            return "v2"
        if "instances" in document or "inputs" in document:
            return "v1"
    raise DecodeError(
        "request of unknown protocol",
        why="it has neither V2's tensors in `inputs` nor V1's `instances`",
        fix="call the model over V1 or V2, or name the protocol where the capture is configured",
    )


def _outputs(inference: Inference, protocol: str, rows: int) -> dict[str, npt.NDArray[np.float64]]:
    if inference.status_code != _HTTP_OK:
        return {}
    try:
        body = _body(inference, inference.response, side="response")
        tensors = list(v2.decode_response(body).outputs) if protocol == "v2" else v1.decode_response(body)
    except DecodeError:
        return {}
    return {tensor.name: _matrix(tensor, rows) for tensor in tensors if _is_output(tensor, rows)}


def _is_output(tensor: Tensor, rows: int) -> bool:
    return tensor.data.dtype.kind in "fiub" and tensor.data.ndim > 0 and len(tensor.data) == rows


def _matrix(tensor: Tensor, rows: int) -> npt.NDArray[np.float64]:
    width = tensor.data.size // rows
    return tensor.data.reshape(rows, width).astype(np.float64)


def _body(inference: Inference, payload: Payload, *, side: str) -> bytes:
    if side in inference.truncated:
        raise DecodeError(
            f"{side} body of inference {inference.id} is cut",
            why=f"the capture's limit kept {len(payload.body)} of {payload.size} bytes",
            fix="raise the capture's body limit above the largest request",
        )
    if not payload.body:
        withheld = ", ".join(f"{one.path} ({one.action})" for one in inference.redactions)
        where = f"it lies at {payload.body_ref}" if payload.body_ref else "it was empty on the wire"
        raise DecodeError(
            f"{side} body of inference {inference.id} is not in the record",
            why=f"it was redacted: {withheld}" if withheld else where,
            fix="detectors need the body in the record: change the capture's settings for this model",
        )
    return unpack(payload.body, payload.content_encoding, what=f"{side} body")
