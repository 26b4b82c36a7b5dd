"""Open Inference Protocol V2 over REST: inference requests and responses, as JSON or with binary tensor data.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md,
"Inference Request JSON Object", "Inference Response JSON Object", "Tensor Data". Tensor elements may come flat
or nested; they are written flat, in row-major order. JSON has no NaN: null stands for it in both directions.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from govern.codecs import content_types, v2_binary
from govern.codecs.arrays import flatten, shape_of, shaped, typed
from govern.codecs.json_body import parse
from govern.codecs.raw import from_raw, to_raw
from govern.codecs.tensor import DTYPES, Plain, Tensor, check_head, check_names
from govern.errors import BadInput, DecodeError

#: In the JSON of a message with binary data.
_BINARY: Final = f'"{v2_binary.SIZE}"'.encode()

Parameters = Mapping[str, object]


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """An inference request.

    Attributes:
        outputs: names of the output tensors asked for; empty = all.
        binary: output -> whether its data are wanted as raw bytes, where the request says so of that one.
    """

    inputs: tuple[Tensor, ...]
    id: str = ""
    parameters: Mapping[str, object] = {}
    outputs: tuple[str, ...] = ()
    binary: Mapping[str, bool] = {}

    def wants_binary(self, output: str) -> bool:
        """Whether an answer over REST has this tensor's data behind its JSON."""
        return self.binary.get(output, self.parameters.get(v2_binary.OUTPUT) is True)


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """An inference response."""

    model_name: str
    outputs: tuple[Tensor, ...]
    model_version: str = ""
    id: str = ""
    parameters: Mapping[str, object] = {}


class _WireTensor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):  # JSON has no cycles
    name: str
    shape: tuple[int, ...]
    datatype: str
    parameters: dict[str, object] | None = None
    data: object = msgspec.UNSET


class _WireOutput(msgspec.Struct, frozen=True, omit_defaults=True):
    name: str
    parameters: dict[str, object] | None = None


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


def decode_request(body: bytes, *, json_size: int | None = None) -> Request:
    """Read an inference request, with binary tensor data behind its JSON if it has any.

    Args:
        json_size: value of the header `v2_binary.HEADER`, None when there is none.

    Raises:
        DecodeError: no JSON, a missing field, no tensor, a tensor named twice, an unknown datatype, elements that
            are not of it, of its content type, or not as many as the shape says.
    """
    what = "V2 request"
    head, tail = v2_binary.split(body, json_size, what=what)
    wire = parse(head, _WireRequest, what=what)
    inputs = _tensors(wire.inputs, tail, side="input")
    tail.end(what=what)
    return Request(
        inputs=inputs,
        id=wire.id or "",
        parameters=wire.parameters or {},
        outputs=tuple(output.name for output in wire.outputs or ()),
        binary={
            output.name: output.parameters[v2_binary.WANTED] is True
            for output in wire.outputs or ()
            if output.parameters is not None and v2_binary.WANTED in output.parameters
        },
    )


def decode_response(body: bytes, *, json_size: int | None = None) -> Response:
    """Read an inference response; takes and raises what `decode_request` does."""
    what = "V2 response"
    head, tail = v2_binary.split(body, json_size, what=what)
    wire = parse(head, _WireResponse, what=what)
    outputs = _tensors(wire.outputs, tail, side="output")
    tail.end(what=what)
    return Response(
        model_name=wire.model_name,
        outputs=outputs,
        model_version=wire.model_version or "",
        id=wire.id or "",
        parameters=wire.parameters or {},
    )


def plain_request(body: bytes) -> Plain | None:
    """A request's tensors before they are arrays; None for one that only `decode_request` can read.

    Raises:
        DecodeError: no JSON, or a missing field.
    """
    return None if _BINARY in body else _plain(parse(body, _WireRequest, what="V2 request").inputs)


def plain_response(body: bytes) -> Plain | None:
    """A response's tensors; as `plain_request`."""
    return None if _BINARY in body else _plain(parse(body, _WireResponse, what="V2 response").outputs)


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


def encode_binary_request(
    tensors: Sequence[Tensor], *, request_id: str = "", parameters: Parameters | None = None
) -> tuple[bytes, int]:
    """Write an inference request with its tensors as raw bytes behind the JSON, and ask for an answer of that form.

    Returns:
        The body, and the size of its JSON: the value of the header `v2_binary.HEADER`.

    Raises:
        BadInput: a tensor that has no raw form (see `raw.to_raw`).
    """
    raw = [to_raw(tensor) for tensor in tensors]
    head = _encode(
        _WireRequest(
            id=request_id or None,
            parameters={v2_binary.OUTPUT: True, **(parameters or {})},
            inputs=[_raw_head(tensor, data) for tensor, data in zip(tensors, raw, strict=True)],
        )
    )
    return b"".join((head, *raw)), len(head)


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


def encode_binary_response(
    model_name: str,
    tensors: Sequence[Tensor],
    *,
    binary: Collection[str],
    model_version: str = "",
    request_id: str = "",
) -> tuple[bytes, int]:
    """Write an inference response with the tensors that `binary` names as raw bytes behind the JSON.

    Returns:
        The body, and the size of its JSON.

    Raises:
        BadInput: a tensor that has no such form (see `raw.to_raw` and `encode_response`).
    """
    raw = {tensor.name: to_raw(tensor) for tensor in tensors if tensor.name in binary}
    head = _encode(
        _WireResponse(
            model_name=model_name,
            model_version=model_version or None,
            id=request_id or None,
            outputs=[
                _raw_head(tensor, raw[tensor.name]) if tensor.name in raw else _wire(tensor) for tensor in tensors
            ],
        )
    )
    return b"".join((head, *raw.values())), len(head)


def _raw_head(tensor: Tensor, data: bytes) -> _WireTensor:
    return _WireTensor(
        name=tensor.name,
        shape=tensor.data.shape,
        datatype=tensor.datatype,
        parameters={v2_binary.SIZE: len(data)},
    )


def _plain(wires: Sequence[_WireTensor]) -> Plain | None:
    data = [wire.data for wire in wires if isinstance(wire.data, list)]
    kinds = tuple([(wire.name, wire.datatype, wire.shape) for wire in wires])
    sizes = _sizes(kinds)
    if not sizes or len(data) < len(wires) or [True for wire in wires if wire.parameters]:
        return None
    if [len(elements) for elements in data] != sizes or isinstance(data[0][0], list):
        shapes = [wire.shape for wire in wires]
        found = [shape_of(elements, where=wire.name) for elements, wire in zip(data, wires, strict=True)]
        if any(len(one) > 1 and one != shape for one, shape in zip(found, shapes, strict=True)):
            return None
        data = [flatten(elements, len(one)) for elements, one in zip(data, found, strict=True)]
        if [len(elements) for elements in data] != sizes:
            return None
    return Plain(kinds, wires[0].shape[0], data)


@lru_cache(maxsize=256)  # the messages of one client are of few shapes
def _sizes(kinds: tuple[tuple[str, str, tuple[int, ...]], ...]) -> list[int]:
    """How many elements each tensor has; none unless all have as many rows, and at least one."""
    heights = {shape[:1] for _, _, shape in kinds}
    sizes = [math.prod(shape) for _, _, shape in kinds]
    return sizes if len(heights) == 1 and min(sizes) > 0 and sum(heights.pop()) > 0 else []


def _tensors(wires: Sequence[_WireTensor], tail: v2_binary.Tail, *, side: str) -> tuple[Tensor, ...]:
    check_names([wire.name for wire in wires], side=side)
    return tuple(_tensor(wire, tail, where=f"{side} tensor {wire.name!r}") for wire in wires)


def _tensor(wire: _WireTensor, tail: v2_binary.Tail, *, where: str) -> Tensor:
    check_head(wire.datatype, wire.shape, where=where)
    parameters = wire.parameters or {}
    if wire.data is msgspec.UNSET and v2_binary.SIZE in parameters:
        data = from_raw(tail.take(parameters[v2_binary.SIZE], where=where), wire.datatype, wire.shape, where=where)
    else:
        data = _elements(wire, where=where)
    return content_types.apply(Tensor(wire.name, wire.datatype, data), parameters, where=where)


def _elements(wire: _WireTensor, *, where: str) -> npt.NDArray[np.generic]:
    if not isinstance(wire.data, list):
        raise DecodeError(
            f"{where}: field `data`",
            why="it is missing" if wire.data is msgspec.UNSET else "it is no list",
            fix="send the elements as a list, flat or nested as the shape says",
        )
    found = shape_of(wire.data, where=where)
    flat = flatten(wire.data, len(found))
    # Empty lists end the nesting early: [[]] is all that JSON can say of shape [1, 0, 4].
    nested = wire.shape if flat else wire.shape[: len(found)]
    if (len(found) > 1 and found != nested) or len(flat) != math.prod(wire.shape):
        raise DecodeError(
            f"{where}: data does not fit shape {list(wire.shape)}",
            why=f"the data is {list(found)}" if len(found) > 1 else f"the data has {len(flat)} elements",
            fix=f"send {math.prod(wire.shape)} elements, or correct the shape",
        )
    return shaped(typed(flat, wire.datatype, where=where), wire.shape, where=where)


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
        name=tensor.name, shape=tensor.data.shape, datatype=tensor.datatype, parameters=None, data=elements
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
