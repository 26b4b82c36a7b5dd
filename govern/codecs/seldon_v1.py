"""Seldon Core v1's messages as tensors."""

from __future__ import annotations

import math
from typing import Final

from govern.codecs import v1
from govern.codecs.arrays import inferred, shaped, typed
from govern.codecs.seldon_message import Message, decode
from govern.codecs.tensor import MAX_DIMENSIONS, Tensor, objects, text_or_bytes
from govern.errors import DecodeError
from govern.schema import FeatureSchema

#: The tensor of an array, whatever its columns are called.
DATA: Final = "data"


def decode_request(body: bytes, schema: FeatureSchema) -> list[Tensor]:
    """Read a prediction request for a frame of the schema.

    An array is one tensor for each column where its `names` name a feature, else one tensor `data`. `jsonData` is read
    as rows are in V1: a list of objects, one object, or an object of lists. Where the schema has one feature, one
    tensor is of that feature, whatever it is called (`strData`, `binData`).

    Raises:
        DecodeError: see `seldon_message.decode`; ragged arrays, a shape that the values do not have.
    """
    what = "Seldon request"
    message = decode(body, what=what)
    tensors = _tensors(message, what)
    if not set(message.names).isdisjoint(schema.names):
        tensors = _columns(tensors[0], message.names, what)
    if len(tensors) == len(schema.features) == 1 and tensors[0].data.ndim:
        return [Tensor(schema.names[0], tensors[0].datatype, tensors[0].data)]
    return tensors


def decode_response(body: bytes) -> list[Tensor]:
    """Read a prediction response: an array is `data`, and besides one tensor for each column that has a name.

    Raises:
        DecodeError: as `decode_request`.
    """
    what = "Seldon response"
    message = decode(body, what=what)
    tensors = _tensors(message, what)
    if message.names and tensors[0].data.ndim == 2:
        tensors += _columns(tensors[0], message.names, what)
    return tensors


def _tensors(message: Message, what: str) -> list[Tensor]:
    value = message.value
    if message.form == "strData":
        return [Tensor("strData", "BYTES", objects([value]))]
    if isinstance(value, bytes):
        return [Tensor("binData", "BYTES", objects([text_or_bytes(value)]))]
    if message.form == "jsonData":
        return _rows(value, what)
    if not isinstance(value, list) or not value:
        raise DecodeError(f"{what}: `data.{message.form}`", why="it is empty", fix="send at least one row")
    return [v1.column(DATA, value, what) if message.form == "ndarray" else _tensor(value, message.shape, what)]


def _rows(value: object, what: str) -> list[Tensor]:
    if isinstance(value, dict) and value and all(isinstance(one, list) and one for one in value.values()):
        return [v1.column(name, column, what) for name, column in value.items()]
    rows = value if isinstance(value, list) else [value]
    if not rows:
        raise DecodeError(f"{what}: `jsonData`", why="it is empty", fix="send at least one row")
    return v1.from_objects(rows, "jsonData", what)


def _tensor(values: list[object], shape: tuple[int, ...], what: str) -> Tensor:
    where = f"{what}: `data.tensor`"
    if len(shape) > MAX_DIMENSIONS or any(size < 0 for size in shape) or math.prod(shape) != len(values):
        raise DecodeError(
            f"{where}: data does not fit shape {str(list(shape))[:40]}",
            why=f"`values` has {len(values)} elements",
            fix="send as many values as the shape says",
        )
    for position, value in enumerate(values):
        if isinstance(value, (list, dict, str)):
            raise DecodeError(
                f"{where}, element {position} is no number",
                why="`values` are flat numbers",
                fix="send other values as `data.ndarray`",
            )
    datatype = inferred(values)
    flat = objects(values) if datatype == "MIXED" else typed(values, datatype, where=where)
    return Tensor(DATA, datatype, shaped(flat, shape, where=where))


def _columns(tensor: Tensor, names: tuple[str, ...], what: str) -> list[Tensor]:
    data = tensor.data
    if data.ndim != 2 or data.shape[1] != len(names) or len(set(names)) < len(names):
        raise DecodeError(
            f"{what}: `data.names` has {len(names)} names",
            why=f"the array has shape {list(data.shape)}, and each column one name of its own",
            fix="send one name for each column, or none",
        )
    return [Tensor(name, tensor.datatype, data[:, position]) for position, name in enumerate(names)]
