"""Open Inference Protocol V2 over REST: JSON inference requests and responses.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md,
"Inference Request JSON Object", "Inference Response JSON Object", "Tensor Data". Tensor elements may come flat
or nested; they are written flat, in row-major order. JSON has no NaN: null stands for it in both directions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np

from govern.codecs.arrays import RANGES, flatten, shape_of, shaped, typed
from govern.codecs.json_body import binary_extension, parse
from govern.codecs.tensor import DTYPES, Tensor
from govern.errors import BadInput, DecodeError

#: The header that announces the binary tensor data extension.
BINARY_HEADER: Final = "inference-header-content-length"

#: What numpy 1.26 can hold.
MAX_DIMENSIONS: Final = 32

Parameters = Mapping[str, object]


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """An inference request.

    Attributes:
        outputs: names of the output tensors asked for; empty = all.
    """

    inputs: tuple[Tensor, ...]
    id: str = ""
    parameters: Mapping[str, object] = {}
    outputs: tuple[str, ...] = ()


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """An inference response."""

    model_name: str
    outputs: tuple[Tensor, ...]
    model_version: str = ""
    id: str = ""
    parameters: Mapping[str, object] = {}


class _WireTensor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, object] | None = None
    data: object = msgspec.UNSET


class _WireOutput(msgspec.Struct, frozen=True):
    name: str


class _WireRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    inputs: list[_WireTensor]
    id: str | None = None
    parameters: dict[str, object] | None = None
    outputs: list[_WireOutput] | None = None


class _WireResponse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    outputs: list[_WireTensor]
    model_name: str = ""
    model_version: str | None = None
    id: str | None = None
    parameters: dict[str, object] | None = None


def decode_request(body: bytes) -> Request:
    """Read an inference request.

    Raises:
        DecodeError: no JSON, a missing field, no tensor, a tensor named twice, an unknown datatype, elements that
            are not of it or not as many as the shape says, the binary tensor data extension.
    """
    wire = parse(body, _WireRequest, what="V2 request")
    return Request(
        inputs=_tensors(wire.inputs, side="input"),
        id=wire.id or "",
        parameters=wire.parameters or {},
        outputs=tuple(output.name for output in wire.outputs or ()),
    )


def decode_response(body: bytes) -> Response:
    """Read an inference response; raises as `decode_request` does."""
    wire = parse(body, _WireResponse, what="V2 response")
    return Response(
        model_name=wire.model_name,
        outputs=_tensors(wire.outputs, side="output"),
        model_version=wire.model_version or "",
        id=wire.id or "",
        parameters=wire.parameters or {},
    )


def encode_request(
    tensors: Sequence[Tensor],
    *,
    request_id: str = "",
    parameters: Parameters | None = None,
    outputs: Sequence[str] = (),
) -> bytes:
    """Write an inference request that asks for `outputs` (all when empty).

    Raises:
        BadInput: a tensor that JSON cannot carry (see `encode_response`).
    """
    return _encode(
        _WireRequest(
            id=request_id or None,
            parameters=dict(parameters) if parameters else None,
            inputs=[_wire(tensor) for tensor in tensors],
            outputs=[_WireOutput(name) for name in outputs] or None,
        )
    )


def encode_response(
    model_name: str, tensors: Sequence[Tensor], *, model_version: str = "", request_id: str = ""
) -> bytes:
    """Write an inference response. NaN and the infinities become null.

    Raises:
        BadInput: a tensor of unknown datatype, or with BYTES elements that are no UTF-8 text.
    """
    return _encode(
        _WireResponse(
            model_name=model_name,
            model_version=model_version or None,
            id=request_id or None,
            outputs=[_wire(tensor) for tensor in tensors],
        )
    )


def _tensors(wires: Sequence[_WireTensor], *, side: str) -> tuple[Tensor, ...]:
    if not wires:
        raise DecodeError(
            f"V2 message has no {side} tensor", why=f"`{side}s` is empty", fix=f"send at least one {side}"
        )
    names = [wire.name for wire in wires]
    for position, name in enumerate(names):
        if name in names[:position]:
            raise DecodeError(
                f"{side} tensor {name!r}", why=f"it comes twice in `{side}s`", fix="name each tensor once"
            )
    return tuple(_tensor(wire, where=f"{side} tensor {wire.name!r}") for wire in wires)


def _tensor(wire: _WireTensor, *, where: str) -> Tensor:
    if wire.datatype not in DTYPES:
        raise DecodeError(
            f"{where}: datatype {wire.datatype!r} is unknown",
            why=f"the protocol has {', '.join(DTYPES)}",
            fix="declare one of them",
        )
    if len(wire.shape) > MAX_DIMENSIONS or not all(0 <= size <= RANGES["INT64"][1] for size in wire.shape):
        raise DecodeError(
            f"{where}: field `shape`",
            why=f"it has more than {MAX_DIMENSIONS} dimensions, or one that is negative or no INT64",
            fix="send the tensor's actual shape; -1 belongs to model metadata only",
        )
    if not isinstance(wire.data, list):
        if "binary_data_size" in (wire.parameters or {}):
            raise binary_extension(where)
        raise DecodeError(
            f"{where}: field `data`",
            why="it is missing" if wire.data is msgspec.UNSET else "it is no list",
            fix="send the elements as a list, flat or nested as the shape says",
        )
    found = shape_of(wire.data, where=where)
    flat = flatten(wire.data, len(found))
    # Empty lists end the nesting early: [[]] is all that JSON can say of shape [1, 0, 4].
    nested = wire.shape if flat else wire.shape[: len(found)]
    if (len(found) > 1 and list(found) != nested) or len(flat) != math.prod(wire.shape):
        raise DecodeError(
            f"{where}: data does not fit shape {wire.shape}",
            why=f"the data is {list(found)}" if len(found) > 1 else f"the data has {len(flat)} elements",
            fix=f"send {math.prod(wire.shape)} elements, or correct the shape",
        )
    return Tensor(wire.name, wire.datatype, shaped(typed(flat, wire.datatype, where=where), wire.shape, where=where))


def _wire(tensor: Tensor) -> _WireTensor:
    if tensor.datatype not in DTYPES:
        raise BadInput(
            f"tensor {tensor.name!r}: datatype {tensor.datatype!r} cannot be sent over V2",
            why=f"the protocol has {', '.join(DTYPES)}",
            fix="send one tensor for each column, each of one datatype",
        )
    elements: list[object] = np.ravel(tensor.data).tolist()
    if tensor.datatype == "BYTES":
        elements = [_text(element, tensor.name) for element in elements]
    return _WireTensor(
        name=tensor.name, shape=list(tensor.data.shape), datatype=tensor.datatype, parameters=None, data=elements
    )


def _text(element: object, name: str) -> str | None:
    if element is None or isinstance(element, str):
        return element
    try:
        if isinstance(element, bytes):
            return element.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(
            f"tensor {name!r}: an element is no UTF-8 text",
            why=str(error),
            fix="encode binary data (base64) before sending it as JSON",
        ) from error
    raise BadInput(
        f"tensor {name!r}: element {element!r}",
        why=f"BYTES holds text, this is {type(element).__name__}",
        fix="turn the elements to text",
    )


def _encode(wire: _WireRequest | _WireResponse) -> bytes:
    try:
        return msgspec.json.encode(wire)
    except UnicodeEncodeError as error:
        raise BadInput("V2 message cannot be written", why=str(error), fix="send valid Unicode text") from error
