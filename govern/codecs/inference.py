"""A captured inference to the `Frame` of its rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from govern.codecs.frames import to_frame
from govern.codecs.packing import unpack
from govern.codecs.protocols import CODECS, Body, Codec
from govern.codecs.sniff import protocol_of
from govern.codecs.tensor import Tensor
from govern.errors import DecodeError
from govern.frame import Frame
from govern.record import Inference, Payload
from govern.schema import FeatureSchema

HTTP_OK: Final = 200


def decode(inference: Inference, schema: FeatureSchema) -> Frame:
    """The rows of an inference, named `<inference id>/<row>`, with the model's outputs for them.

    `outputs` holds every numeric tensor of a 200 response that has one entry for each row, as float64 (n, k). A
    response that failed, was cut or cannot be read gives a frame without outputs: the inputs are still judged.

    Raises:
        DecodeError: a request body that is cut, withheld, packed in an unknown way, of a protocol that this
            release does not read, malformed, or not of the schema.
    """
    body = body_of(inference, inference.request, side="request")
    codec = _codec(inference.protocol, body)
    frame = to_frame(codec.request(body, schema), schema, instance_prefix=inference.id)
    return Frame(
        schema=schema,
        columns=frame.columns,
        instance_ids=frame.instance_ids,
        unseen=frame.unseen,
        outputs=_outputs(inference, codec, len(frame)),
    )


def _codec(declared: str, body: Body) -> Codec:
    name = protocol_of(body) if declared in ("", "unknown") else declared
    codec = CODECS.get(name)
    if codec is None:
        raise DecodeError(
            f"inference of protocol {name!r}",
            why=f"this release decodes {', '.join(CODECS)}",
            fix="call the model over one of them, or leave this model without detectors",
        )
    return codec


def request_tensors(inference: Inference, schema: FeatureSchema) -> Sequence[Tensor]:
    """The tensors of the request, as its protocol has them.

    Raises:
        DecodeError: as `decode`, but for what a frame asks of them.
    """
    body = body_of(inference, inference.request, side="request")
    return _codec(inference.protocol, body).request(body, schema)


def response_tensors(inference: Inference) -> Sequence[Tensor]:
    """The tensors of the response.

    Raises:
        DecodeError: its body is cut, withheld, packed in an unknown way, malformed, or of an unknown protocol.
    """
    body = body_of(inference, inference.response, side="response")
    request = Body(inference.request.body, inference.request.content_type, inference.request.headers, inference.path)
    return _codec(inference.protocol, request).response(body)


def outputs_of(inference: Inference, rows: int) -> dict[str, npt.NDArray[np.float64]]:
    """The model's outputs for the rows of a request that could be read."""
    return _outputs(inference, _codec(inference.protocol, body_of(inference, inference.request, side="request")), rows)


def _outputs(inference: Inference, codec: Codec, rows: int) -> dict[str, npt.NDArray[np.float64]]:
    if inference.status_code != HTTP_OK:
        return {}
    try:
        tensors = codec.response(body_of(inference, inference.response, side="response"))
    except DecodeError:
        return {}
    return matrices(tensors, rows)


def matrices(tensors: Iterable[Tensor], rows: int) -> dict[str, npt.NDArray[np.float64]]:
    """The tensors that are outputs for so many rows."""
    return {tensor.name: _matrix(tensor, rows) for tensor in tensors if _is_output(tensor, rows)}


def _is_output(tensor: Tensor, rows: int) -> bool:
    return tensor.data.dtype.kind in "fiub" and tensor.data.ndim > 0 and len(tensor.data) == rows


def _matrix(tensor: Tensor, rows: int) -> npt.NDArray[np.float64]:
    width = tensor.data.size // rows
    return tensor.data.reshape(rows, width).astype(np.float64)


def body_of(inference: Inference, payload: Payload, *, side: str) -> Body:
    """A side of an inference, unpacked.

    Raises:
        DecodeError: it is cut, withheld, or packed in an unknown way.
    """
    if side in inference.truncated:
        raise DecodeError(
            f"{side} body of inference {inference.id} is cut",
            why=f"the capture's limit kept {len(payload.body)} of {payload.size} bytes",
            fix="raise the capture's body limit above the largest request",
        )
    if not payload.body:
        withheld = ", ".join(f"{one.path} ({one.action})" for one in inference.redactions)
        where = f"it lies at {payload.body_ref}" if payload.body_ref else "it was empty on the wire"
        if side in inference.missing:
            where = "the logger that sent the other half never sent this one"
        raise DecodeError(
            f"{side} body of inference {inference.id} is not in the record",
            why=f"it was redacted: {withheld}" if withheld else where,
            fix="detectors need the body in the record: change the capture's settings for this model",
        )
    data = unpack(payload.body, payload.content_encoding, what=f"{side} body")
    return Body(data, payload.content_type, payload.headers, inference.path)
