"""Lists of JSON values to arrays of a protocol datatype, with nothing coerced in silence."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import chain
from typing import Final

import numpy as np
import numpy.typing as npt

from govern.codecs.tensor import DTYPES, objects
from govern.errors import DecodeError

#: Datatype -> the least and the greatest number that it holds.
RANGES: Final[dict[str, tuple[float, float]]] = {
    **{f"UINT{bits}": (0, 2**bits - 1) for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
    "FP16": (-65504.0, 65504.0),
    "BF16": (-3.3895313892515355e38, 3.3895313892515355e38),
    "FP32": (-3.4028234663852886e38, 3.4028234663852886e38),
    "FP64": (-sys.float_info.max, sys.float_info.max),
}

#: Where a number stops being an exact integer in float64.
_EXACT: Final = 2**53


def shape_of(values: Sequence[object], *, where: str) -> tuple[int, ...]:
    """The shape of lists nested to the same depth everywhere; a flat list of n values has shape (n,).

    Raises:
        DecodeError: lists of different length or depth beside each other.
    """
    shape = [len(values)]
    level: Sequence[object] = values
    while level and isinstance(level[0], list):
        width = len(level[0])
        for position, item in enumerate(level):
            if not isinstance(item, list) or len(item) != width:
                found = f"a list of {len(item)}" if isinstance(item, list) else _kind(item)
                raise DecodeError(
                    f"{where} is ragged",
                    why=f"at depth {len(shape)} item 0 is a list of {width}, item {position} is {found}",
                    fix="send rows of equal length",
                )
        shape.append(width)
        level = list(chain.from_iterable(item for item in level if isinstance(item, list)))
    return tuple(shape)


def flatten(values: Sequence[object], depth: int) -> list[object]:
    """The elements of lists nested `depth` levels deep (as `shape_of` found), in row-major order."""
    flat: list[object] = list(values)
    for _ in range(depth - 1):
        flat = list(chain.from_iterable(item for item in flat if isinstance(item, list)))
    return flat


def typed(flat: list[object], datatype: str, *, where: str) -> npt.NDArray[np.generic]:
    """The elements as a flat array of `datatype`.

    null is NaN in FP16, BF16, FP32 and FP64, and None in BYTES.

    Raises:
        DecodeError: an element that is not of the datatype or out of its range; it names the first one.
    """
    if datatype == "BYTES":
        _require(flat, (str, bytes, type(None)), datatype, where)
        return objects(flat)
    if datatype == "BOOL":
        _require(flat, (bool,), datatype, where)
        return np.array(flat, dtype=np.bool_)
    dtype = DTYPES[datatype]
    if dtype.kind == "f":
        return _floats(flat, datatype, dtype, where)
    return _integers(flat, datatype, dtype, where)


def inferred(flat: list[object]) -> str:
    """The datatype of elements that come without one (V1): INT64, FP64, BOOL or BYTES; MIXED for a mixture."""
    kinds = set(map(type, flat))
    values = kinds - {type(None)}
    if values == {int} and values == kinds and _fits(flat, "INT64"):
        return "INT64"
    if values <= {int, float}:
        return "FP64"
    if values == {bool} and values == kinds:
        return "BOOL"
    return "BYTES" if values <= {str, bytes} else "MIXED"


def shaped(array: npt.NDArray[np.generic], shape: Sequence[int], *, where: str) -> npt.NDArray[np.generic]:
    """The flat array in `shape`, which has as many elements.

    Raises:
        DecodeError: more dimensions, or larger ones, than an array can have.
    """
    try:
        return array.reshape(tuple(shape))
    except (ValueError, OverflowError) as error:
        raise DecodeError(
            f"{where}: shape of {len(shape)} dimensions", why=str(error), fix="send fewer or smaller dimensions"
        ) from error


def _floats(flat: list[object], datatype: str, dtype: np.dtype[np.generic], where: str) -> npt.NDArray[np.generic]:
    _require(flat, (float, int, type(None)), datatype, where)
    try:
        wide = np.array(flat, dtype=np.float64)
    except OverflowError as error:
        raise _out_of_range(flat, datatype, where) from error
    with np.errstate(over="ignore"):
        narrow = wide.astype(dtype)
    if bool(np.any(np.isinf(narrow))):
        raise _out_of_range(flat, datatype, where)
    return narrow


def _integers(flat: list[object], datatype: str, dtype: np.dtype[np.generic], where: str) -> npt.NDArray[np.generic]:
    if not set(map(type, flat)) <= {int}:
        _require(flat, (int, float), datatype, where)
        for position, value in enumerate(flat):
            if isinstance(value, float) and not (value.is_integer() and abs(value) <= _EXACT):
                raise DecodeError(
                    f"{where}, element {position}: {value!r} is not of datatype {datatype}",
                    why="it is no exact integer",
                    fix="send integers, or declare FP64",
                )
        flat = [int(value) for value in flat if isinstance(value, (int, float))]
    if not _fits(flat, datatype):
        raise _out_of_range(flat, datatype, where)
    return np.array(flat, dtype=dtype)


def _fits(flat: list[object], datatype: str) -> bool:
    low, high = RANGES[datatype]
    numbers = [value for value in flat if isinstance(value, int)]
    return not numbers or (min(numbers) >= low and max(numbers) <= high)


def _out_of_range(flat: list[object], datatype: str, where: str) -> DecodeError:
    low, high = RANGES[datatype]
    position, value = next(
        (position, value)
        for position, value in enumerate(flat)
        if isinstance(value, (int, float)) and not low <= value <= high
    )
    return DecodeError(
        f"{where}, element {position}: {_shown(value)} does not fit {datatype}",
        why=f"{datatype} holds {low} to {high}",
        fix="declare a wider datatype, or correct the value",
    )


def _require(flat: list[object], allowed: tuple[type, ...], datatype: str, where: str) -> None:
    wrong = set(map(type, flat)).difference(allowed)
    if wrong:
        position = next(i for i, value in enumerate(flat) if type(value) in wrong)
        raise DecodeError(
            f"{where}, element {position}: {_shown(flat[position])} is not of datatype {datatype}",
            why=f"it is {_kind(flat[position])}",
            fix="send elements of the declared datatype, or declare the right one",
        )


def _shown(value: object) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "a boolean", int: "an integer", float: "a number"}
    return "null" if value is None else names[type(value)]
