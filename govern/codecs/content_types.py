"""MLServer's content types: what a V2 tensor's elements stand for, named in its parameter `content_type`.

https://mlserver.readthedocs.io/en/latest/user-guide/content-type.html. `np`, `pd` and `str` (of a tensor or of a
whole request) say in which Python type the model wants the same elements, and change nothing here; an unknown content
type is, as in MLServer, none.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from govern.codecs.arrays import inferred, typed
from govern.codecs.tensor import Tensor, objects, text_or_bytes
from govern.errors import DecodeError

PARAMETER: Final = "content_type"


def apply(tensor: Tensor, parameters: Mapping[str, object], *, where: str) -> Tensor:
    """The tensor whose elements are what its content type says.

    - `base64`: the bytes themselves. What is no base64 stays as it is, as in MLServer.
    - `datetime`: FP64, seconds since the Unix epoch; an ISO 8601 time without zone is UTC.
    - `pd_json`: columns of pandas objects, each element a JSON value; of the datatype that all of them have.

    Raises:
        DecodeError: an element that is not of the content type, a content type of texts on numbers.
    """
    name = parameters.get(PARAMETER)
    convert = _CONVERTERS.get(name) if isinstance(name, str) else None
    if convert is None:
        return tensor
    if tensor.datatype != "BYTES":
        raise DecodeError(
            f"{where}: content type {name!r} on datatype {tensor.datatype}",
            why="its elements are texts, which are BYTES",
            fix="send the tensor as BYTES, or without content type",
        )
    datatype, flat = convert(tensor.data.ravel().tolist(), where)
    return Tensor(tensor.name, datatype, flat.reshape(tensor.data.shape))


def _base64(elements: list[object], where: str) -> tuple[str, npt.NDArray[np.generic]]:
    return "BYTES", objects([_bytes_of(element) for element in elements])


def _bytes_of(element: object) -> object:
    if not isinstance(element, (str, bytes)):
        return element
    try:
        return text_or_bytes(base64.b64decode(element, validate=True))
    except (binascii.Error, ValueError):  # ValueError: text that is no ASCII
        return element


def _datetime(elements: list[object], where: str) -> tuple[str, npt.NDArray[np.generic]]:
    seconds = [_seconds(element, f"{where}, element {position}") for position, element in enumerate(elements)]
    return "FP64", np.array(seconds, dtype=np.float64)


def _seconds(element: object, where: str) -> float:
    if element is None or element == "":
        return float("nan")
    try:
        when = datetime.fromisoformat(str(element))
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError) as error:
        raise DecodeError(
            f"{where}: {str(element)[:40]!r} is no time", why=str(error), fix="send ISO 8601, as 2026-08-21T10:00:00Z"
        ) from error


def _json(elements: list[object], where: str) -> tuple[str, npt.NDArray[np.generic]]:
    values: list[object] = []
    for position, element in enumerate(elements):
        try:
            values.append(msgspec.json.decode(element if isinstance(element, (str, bytes)) else b"null"))
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise DecodeError(
                f"{where}, element {position} is no JSON", why=str(error), fix="encode each element as JSON"
            ) from error
    if any(isinstance(value, (dict, list)) for value in values):
        return "BYTES", objects(elements)
    datatype = inferred(values)
    return datatype, objects(values) if datatype == "MIXED" else typed(values, datatype, where=where)


_CONVERTERS: Final[dict[str, Callable[[list[object], str], tuple[str, npt.NDArray[np.generic]]]]] = {
    "base64": _base64,
    "datetime": _datetime,
    "pd_json": _json,
}
