"""TensorFlow Serving / KServe V1 JSON: requests and responses without datatypes.

https://www.tensorflow.org/tfx/serving/api_rest#predict_api and
https://kserve.github.io/website/docs/concepts/architecture/data-plane/v1-protocol. Row form: `instances` /
`predictions`, a list with one value, list or object for each row. Columnar form: `inputs` / `outputs`, an object
of name -> list, or one list. Values carry no datatype: it is inferred (`arrays.inferred`).
"""

from __future__ import annotations

import base64
from typing import Final

from govern.codecs.arrays import flatten, inferred, shape_of, shaped, typed
from govern.codecs.json_body import parse
from govern.codecs.tensor import Plain, Tensor, objects, text_or_bytes
from govern.errors import DecodeError

_REQUEST: Final = ("instances", "inputs")
_RESPONSE: Final = ("predictions", "outputs")

#: The one key of an object that stands for bytes.
_BINARY: Final = "b64"


def decode_request(body: bytes) -> list[Tensor]:
    """Read a predict request. Rows without names give one tensor `instances` or `inputs` of shape (n, ...).

    An object row that lacks a key of the other rows has a missing value there.

    Raises:
        DecodeError: no JSON, neither form, no rows, ragged rows, an object inside a row.
    """
    return _decode(body, _REQUEST, what="V1 request")


def decode_response(body: bytes) -> list[Tensor]:
    """Read a predict response; raises as `decode_request` does."""
    return _decode(body, _RESPONSE, what="V1 response")


def plain_request(body: bytes) -> Plain | None:
    """A request's one tensor before it is an array; None for one that only `decode_request` can read.

    Raises:
        DecodeError: no JSON, or ragged rows.
    """
    return _plain(body, _REQUEST, what="V1 request")


def plain_response(body: bytes) -> Plain | None:
    """A response's one tensor; as `plain_request`."""
    return _plain(body, _RESPONSE, what="V1 response")


def _plain(body: bytes, keys: tuple[str, str], *, what: str) -> Plain | None:
    document = parse(body, dict[str, object], what=what)
    rows, columns = keys
    items = document.get(rows)
    if columns in document or not isinstance(items, list):
        return None
    shape = shape_of(items, where=what)
    flat = flatten(items, len(shape))
    if not flat or not {dict, list}.isdisjoint(map(type, flat)):
        return None
    return Plain(((rows, inferred(flat), shape),), shape[0], [flat])


def _decode(body: bytes, keys: tuple[str, str], *, what: str) -> list[Tensor]:
    document = parse(body, dict[str, object], what=what)
    rows, columns = keys
    if (rows in document) == (columns in document):
        raise DecodeError(
            f"{what}: fields",
            why=f"it has {'both' if rows in document else 'neither'} `{rows}` and `{columns}`"
            if rows in document
            else f"it has neither `{rows}` nor `{columns}`",
            fix=f"send rows as `{rows}`, or columns as `{columns}`",
        )
    key = rows if rows in document else columns
    value = document[key]
    if key == columns and isinstance(value, dict):
        if not value:
            raise DecodeError(f"{what}: `{key}` is empty", why="it names no column", fix="send at least one")
        return [column(name, _list(values, f"`{key}.{name}`", what), what) for name, values in value.items()]
    items = _list(value, f"`{key}`", what)
    if key == rows and any(isinstance(item, dict) and not _is_binary(item) for item in items):
        return from_objects(items, key, what)
    return [column(key, items, what)]


def from_objects(items: list[object], key: str, what: str) -> list[Tensor]:
    """One tensor for each key of rows that are objects; `key` is the field that holds them.

    Raises:
        DecodeError: a row that is no object, or rows without keys.
    """
    names: dict[str, None] = {}
    rows: list[dict[str, object]] = []
    for position, item in enumerate(items):
        if not isinstance(item, dict):
            raise DecodeError(
                f"{what}: `{key}[{position}]` is no object",
                why="other rows of the same request are objects",
                fix="send all rows in one form",
            )
        rows.append(item)
        names.update(dict.fromkeys(item))
    if not names:
        raise DecodeError(f"{what}: `{key}` has no values", why="its rows are empty objects", fix="send the features")
    return [column(name, [row.get(name) for row in rows], what) for name in names]


def column(name: str, items: list[object], what: str) -> Tensor:
    """The tensor of a list of values, or of lists of them, of inferred datatype.

    Raises:
        DecodeError: ragged lists, an object among the values.
    """
    where = f"{what}, {name!r}"
    shape = shape_of(items, where=where)
    flat = flatten(items, len(shape))
    if not {dict, list}.isdisjoint(map(type, flat)):  # one look at a large matrix, not one at each of its numbers
        flat = [_value(value, f"{where}, element {position}") for position, value in enumerate(flat)]
    datatype = inferred(flat)
    if datatype != "MIXED":
        return Tensor(name, datatype, shaped(typed(flat, datatype, where=where), shape, where=where))
    return Tensor(name, datatype, shaped(objects(flat), shape, where=where))


def _is_binary(value: object) -> bool:
    return isinstance(value, dict) and value.keys() == {_BINARY}


def _value(value: object, where: str) -> object:
    """A binary value's bytes (TensorFlow Serving's "Encoding binary values"); text, a number or null as it is."""
    if not isinstance(value, (dict, list)):
        return value
    if not isinstance(value, dict) or not _is_binary(value):
        raise DecodeError(
            f"{where} is {'an object' if isinstance(value, dict) else 'a list'}",
            why="rows hold numbers, text, booleans, null, binary values, and lists of equal length of these",
            fix='flatten the row; a binary value is an object with nothing but "b64"',
        )
    try:
        return text_or_bytes(base64.b64decode(value[_BINARY], validate=True))
    except (ValueError, TypeError) as error:
        raise DecodeError(
            f"{where}: its `{_BINARY}` is no base64", why=str(error), fix="encode binary values as base64"
        ) from error


def _list(value: object, where: str, what: str) -> list[object]:
    if not isinstance(value, list) or not value:
        raise DecodeError(
            f"{what}: {where}",
            why="it is empty" if value == [] else "it is no list",
            fix="send a list with one item for each row",
        )
    return value
