"""Open Inference Protocol V2 over gRPC: ModelInfer and Triton's ModelStreamInfer.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/open_inference_grpc.proto. The
elements of a message's tensors are either all in `raw_input_contents` (`raw_output_contents`), or each in the field
of `contents` that its datatype names; FP16 and BF16 have no such field.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError as ProtobufError

from govern.codecs import content_types, grpc_messages
from govern.codecs import open_inference_pb2 as pb
from govern.codecs.arrays import RANGES, shaped
from govern.codecs.raw import from_raw, to_bytes, to_raw
from govern.codecs.tensor import DTYPES, Tensor, check_head, check_names, objects, text_or_bytes
from govern.codecs.v2 import Request, Response
from govern.errors import DecodeError

#: protobuf's integers are of 4 and 8 bytes, so only smaller ones can be out of range.
_NARROWEST_FIELD_BYTES: Final = 4

_REQUEST: Final = "V2 gRPC request"
_RESPONSE: Final = "V2 gRPC response"

M = TypeVar("M", pb.ModelInferRequest, pb.ModelInferResponse, pb.ModelStreamInferResponse)
WireTensor = pb.ModelInferRequest.InferInputTensor | pb.ModelInferResponse.InferOutputTensor


def decode_requests(body: bytes, content_type: str = "application/grpc") -> list[Request]:
    """Read the requests of a call: one, or as many as its stream had.

    Raises:
        DecodeError: no such messages (see `grpc_messages.split`), no tensor, a tensor named twice, an unknown datatype,
            elements in the wrong field or not as many as the shape says.
    """
    return [request_of(one) for one in _messages(body, content_type, pb.ModelInferRequest, _REQUEST)]


def request_of(message: pb.ModelInferRequest) -> Request:
    """What one message asks; raises what `decode_requests` does."""
    return Request(
        inputs=_tensors(message.inputs, message.raw_input_contents, side="input"),
        id=message.id,
        parameters=_parameters(message.parameters),
        outputs=tuple(output.name for output in message.outputs),
    )


def decode_responses(body: bytes, content_type: str = "application/grpc", *, stream: bool = False) -> list[Response]:
    """Read the responses of a call.

    Args:
        stream: whether it was ModelStreamInfer. Its responses without tensors (the last one of a decoupled model)
            are left out.

    Raises:
        DecodeError: as `decode_requests`, and a response that is an error.
    """
    if not stream:
        messages = _messages(body, content_type, pb.ModelInferResponse, _RESPONSE)
        return [_response(one) for one in messages]
    answers = _messages(body, content_type, pb.ModelStreamInferResponse, _RESPONSE)
    for position, answer in enumerate(answers):
        if answer.error_message:
            raise DecodeError(
                f"{_RESPONSE}, message {position} is an error",
                why=answer.error_message,
                fix="see the model server's log; the request has no outputs",
            )
    return [_response(answer.infer_response) for answer in answers if answer.infer_response.outputs]


def encode_request(tensors: Sequence[Tensor], *, model: str, version: str = "", request_id: str = "") -> bytes:
    """Write a ModelInferRequest, its tensors as raw contents.

    Raises:
        BadInput: a tensor that has no raw form (see `raw.to_raw`).
    """
    message = pb.ModelInferRequest(
        model_name=model, model_version=version, id=request_id, raw_input_contents=[to_raw(one) for one in tensors]
    )
    for one in tensors:
        message.inputs.add(name=one.name, datatype=one.datatype, shape=one.data.shape)
    return message.SerializeToString()


def encode_response(
    model_name: str, tensors: Sequence[Tensor], *, model_version: str = "", request_id: str = "", raw: bool = True
) -> bytes:
    """Write a ModelInferResponse.

    Args:
        raw: as raw contents; else in `contents`, where every tensor's datatype has a field there.

    Raises:
        BadInput: a tensor that has no raw form (see `raw.to_raw`).
    """
    message = pb.ModelInferResponse(model_name=model_name, model_version=model_version, id=request_id)
    for one in tensors:
        message.outputs.add(name=one.name, datatype=one.datatype, shape=one.data.shape)
    if raw or any(one.datatype not in grpc_messages.CONTENTS for one in tensors):
        message.raw_output_contents.extend(to_raw(one) for one in tensors)
        return message.SerializeToString()
    for wire, one in zip(message.outputs, tensors, strict=True):
        elements: list[object] = np.ravel(one.data).tolist()
        if one.datatype == "BYTES":
            elements = [to_bytes(element, one.name) for element in elements]
        getattr(wire.contents, grpc_messages.CONTENTS[one.datatype]).extend(elements)
    return message.SerializeToString()


def _response(message: pb.ModelInferResponse) -> Response:
    return Response(
        model_name=message.model_name,
        outputs=_tensors(message.outputs, message.raw_output_contents, side="output"),
        model_version=message.model_version,
        id=message.id,
        parameters=_parameters(message.parameters),
    )


def _messages(body: bytes, content_type: str, kind: type[M], what: str) -> list[M]:
    pieces = grpc_messages.split(body, content_type, what=what)
    if not pieces:
        raise DecodeError(f"{what} is empty", why="it has no message", fix="send at least one")
    messages: list[M] = []
    for position, piece in enumerate(pieces):
        message = kind()
        try:
            message.ParseFromString(piece)
        except ProtobufError as error:
            raise DecodeError(
                f"{what}, message {position} is no {kind.DESCRIPTOR.name}",
                why=f"{len(piece)} bytes: {error}",
                fix="send the protocol's protobuf messages",
            ) from error
        messages.append(message)
    return messages


def _parameters(wire: Mapping[str, pb.InferParameter]) -> dict[str, object]:
    chosen = {name: parameter.WhichOneof("parameter_choice") for name, parameter in wire.items()}
    return {name: getattr(wire[name], choice) for name, choice in chosen.items() if choice is not None}


def _tensors(wires: Sequence[WireTensor], raw: Sequence[bytes], *, side: str) -> tuple[Tensor, ...]:
    check_names([wire.name for wire in wires], side=side)
    if raw and len(raw) != len(wires):
        raise DecodeError(
            f"V2 gRPC message: field `raw_{side}_contents`",
            why=f"it has {len(raw)} entries for {len(wires)} {side} tensors",
            fix="send the raw contents of every tensor, in their order, or of none",
        )
    tensors: list[Tensor] = []
    for position, wire in enumerate(wires):
        where = f"{side} tensor {wire.name!r}"
        check_head(wire.datatype, wire.shape, where=where)
        data = _typed(wire, where) if not raw else _raw(wire, raw[position], side, where)
        tensors.append(
            content_types.apply(Tensor(wire.name, wire.datatype, data), _parameters(wire.parameters), where=where)
        )
    return tuple(tensors)


def _raw(wire: WireTensor, data: bytes, side: str, where: str) -> npt.NDArray[np.generic]:
    if wire.contents.ListFields():
        raise DecodeError(
            f"{where}: field `contents`",
            why=f"the message has `raw_{side}_contents` too",
            fix="send all tensors of a message in one of the two",
        )
    return from_raw(data, wire.datatype, wire.shape, where=where)


def _typed(wire: WireTensor, where: str) -> npt.NDArray[np.generic]:
    field = grpc_messages.CONTENTS.get(wire.datatype)
    filled = [descriptor.name for descriptor, _ in wire.contents.ListFields()]
    if field is None or any(name != field for name in filled):
        raise DecodeError(
            f"{where}: elements of datatype {wire.datatype} in `contents`",
            why=f"they are in {', '.join(filled) or 'no field'}" + (f" instead of {field}" if field else ""),
            fix=f"send them in {field}" if field else "send them as raw contents, which is their only form",
        )
    values = getattr(wire.contents, field)
    if wire.datatype == "BYTES":
        flat = objects([text_or_bytes(value) for value in values])
    else:
        flat = _numbers(values, wire.datatype, where)
    if len(flat) != math.prod(wire.shape):
        raise DecodeError(
            f"{where}: data does not fit shape {list(wire.shape)}",
            why=f"`contents` has {len(flat)} elements",
            fix=f"send {math.prod(wire.shape)} elements, or correct the shape",
        )
    return shaped(flat, wire.shape, where=where)


def _numbers(values: Sequence[float], datatype: str, where: str) -> npt.NDArray[np.generic]:
    dtype = DTYPES[datatype]
    if dtype.kind not in "iu":
        return np.fromiter(values, dtype=dtype, count=len(values))
    if dtype.itemsize >= _NARROWEST_FIELD_BYTES:
        return np.fromiter(values, dtype=dtype, count=len(values))
    low, high = RANGES[datatype]
    wide = np.fromiter(values, dtype=np.int64, count=len(values))
    outside = np.flatnonzero((wide < low) | (wide > high))
    if outside.size:
        position = int(outside[0])
        raise DecodeError(
            f"{where}, element {position}: {wide[position]} does not fit {datatype}",
            why=f"{datatype} holds {low} to {high}",
            fix="declare a wider datatype, or correct the value",
        )
    return wide.astype(dtype)
