"""The protocols that can be decoded: name -> how its requests and responses are read as tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Final

import numpy as np

from govern.codecs import csv_body, mlflow, openai_tensors, seldon_v1, v1, v2, v2_binary, v2_grpc
from govern.codecs.tensor import Tensor
from govern.errors import DecodeError
from govern.schema import FeatureSchema


@dataclass(frozen=True, slots=True)
class Body:
    """One side of a captured exchange, without content coding.

    Attributes:
        headers: those that the capture kept, names in lower case.
        path: of the request; of a gRPC call its full method, "" when it is not known.
    """

    data: bytes
    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    path: str = ""


@dataclass(frozen=True, slots=True)
class Codec:
    """How one protocol is read.

    Attributes:
        request: the tensors for a frame of the schema; raises DecodeError.
        response: the tensors that the model gave; raises DecodeError.
    """

    request: Callable[[Body, FeatureSchema], Sequence[Tensor]]
    response: Callable[[Body], Sequence[Tensor]]


def _v2_request(body: Body, schema: FeatureSchema) -> Sequence[Tensor]:
    return v2.decode_request(body.data, json_size=v2_binary.json_size(body.headers)).inputs


def _v2_response(body: Body) -> Sequence[Tensor]:
    return v2.decode_response(body.data, json_size=v2_binary.json_size(body.headers)).outputs


def _grpc_request(body: Body, schema: FeatureSchema) -> Sequence[Tensor]:
    _method(body)
    return _joined([one.inputs for one in v2_grpc.decode_requests(body.data, body.content_type)])


def _grpc_response(body: Body) -> Sequence[Tensor]:
    stream = _method(body) == "ModelStreamInfer"
    return _joined([one.outputs for one in v2_grpc.decode_responses(body.data, body.content_type, stream=stream)])


def _method(body: Body) -> str:
    method = body.path.rpartition("/")[2]
    if method not in ("", "ModelInfer", "ModelStreamInfer"):
        raise DecodeError(
            f"gRPC call {body.path}",
            why="it is no inference",
            fix="leave its method out of the capture",
        )
    return method


def _joined(messages: Sequence[Sequence[Tensor]]) -> Sequence[Tensor]:
    """The tensors of a stream's messages, one below the other: its rows are those of all messages."""
    if len(messages) == 1:
        return messages[0]
    parts: dict[str, list[Tensor]] = {}
    for tensor in chain.from_iterable(messages):
        parts.setdefault(tensor.name, []).append(tensor)
    return [_stacked(name, tensors, len(messages)) for name, tensors in parts.items()]


def _stacked(name: str, tensors: Sequence[Tensor], messages: int) -> Tensor:
    first = tensors[0]
    alike = {(tensor.datatype, tensor.data.shape[1:]) for tensor in tensors if tensor.data.ndim}
    if len(tensors) != messages or len(alike) != 1 or any(tensor.data.ndim == 0 for tensor in tensors):
        raise DecodeError(
            f"tensor {name!r} of a stream",
            why=f"it is in {len(tensors)} of {messages} messages, or not of one datatype and row shape in all",
            fix="send every message of a stream with the same tensors",
        )
    return Tensor(name, first.datatype, np.concatenate([tensor.data for tensor in tensors]))


def _csv_response(body: Body) -> Sequence[Tensor]:
    """SageMaker's containers answer rows of CSV with CSV or, as their Accept header says, with JSON."""
    return v1.decode_response(body.data) if "json" in body.content_type else csv_body.decode_response(body.data)


CODECS: Final[dict[str, Codec]] = {
    "v1": Codec(lambda body, schema: v1.decode_request(body.data), lambda body: v1.decode_response(body.data)),
    "v2": Codec(_v2_request, _v2_response),
    "v2-grpc": Codec(_grpc_request, _grpc_response),
    "seldon-v1": Codec(
        lambda body, schema: seldon_v1.decode_request(body.data, schema),
        lambda body: seldon_v1.decode_response(body.data),
    ),
    "openai": Codec(
        lambda body, schema: openai_tensors.decode_request(body.data, schema),
        lambda body: openai_tensors.decode_response(body.data, body.content_type),
    ),
    "csv": Codec(lambda body, schema: csv_body.decode_request(body.data, schema.names), _csv_response),
    "mlflow": Codec(lambda body, schema: mlflow.decode_request(body.data), lambda body: v1.decode_response(body.data)),
}
