"""Columns: raw values of one feature to the array that a `Frame` holds, for payloads and for tables alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from govern.errors import DecodeError
from govern.frame import MISSING, UNSEEN
from govern.schema import Feature

#: Beyond this a float64 is not an exact integer, so its text would name another category.
_EXACT: Final = 2**53


class Column(NamedTuple):
    """One feature's values as `Frame.columns` documents them; `unseen` as in `Frame.unseen`, for this feature."""

    values: npt.NDArray[np.generic]
    unseen: Mapping[int, str]


def encode(feature: Feature, values: npt.NDArray[np.generic]) -> Column:
    """Turn the values of one feature, as they came, to its column.

    A missing value is None, NaN, an infinity (it measures nothing) or, unless it is a listed category, empty text.

    Args:
        values: (n,) of any bool, integer or float dtype, or object (None, str, bytes, bool, int, float);
            for embedding and image features (n, ...) numbers.

    Raises:
        DecodeError: text that is no number in a numeric feature, a number that is no integer in a feature whose
            datatype is an integer; it names feature, row and value.
    """
    if feature.kind == "numeric":
        return Column(_numeric(feature, values), {})
    if feature.kind == "categorical":
        return _categorical(feature, values)
    if feature.kind == "text":
        column = np.empty(len(values), dtype=object)
        column[:] = [text or None for text in texts(values)]
        return Column(column, {})
    return Column(_numbers(feature, values), {})


def texts(values: npt.NDArray[np.generic]) -> list[str | None]:
    """Each value of an (n,) array as text, None where it is missing: 1 and 1.0 are "1", booleans as in JSON."""
    items: list[object] = values.tolist()
    if set(map(type, items)) <= {str, type(None)}:
        return [item if isinstance(item, str) else None for item in items]
    return [_text(item) for item in items]


def _text(item: object) -> str | None:
    if item is None or isinstance(item, str):
        return item
    if isinstance(item, bool):
        return "true" if item else "false"
    if isinstance(item, float):
        if not np.isfinite(item):
            return None
        return str(int(item)) if item.is_integer() and abs(item) <= _EXACT else repr(item)
    return item.decode("utf-8", "backslashreplace") if isinstance(item, bytes) else str(item)


def _categorical(feature: Feature, values: npt.NDArray[np.generic]) -> Column:
    codes: dict[str | None, int] = {"": MISSING, None: MISSING}
    codes.update((category, code) for code, category in enumerate(feature.categories))
    found = texts(values)
    column = np.array([codes.get(text, UNSEEN) for text in found], dtype=np.int32)
    strange = np.flatnonzero(column == UNSEEN).tolist()
    return Column(column, {row: found[row] or "" for row in strange})


def _numeric(feature: Feature, values: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    column = _numbers(feature, values)
    if "INT" in feature.datatype:
        broken = np.flatnonzero(np.isfinite(column) & (column != np.rint(column)))
        if broken.size:
            row = int(broken[0])
            raise DecodeError(
                f"feature {feature.name!r}, row {row}: {column[row]!s} is no integer",
                why=f"the schema says that the feature is {feature.datatype}",
                fix="send an integer, or change the feature's datatype in the schema to FP64",
            )
    return column


def _numbers(feature: Feature, values: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    if values.dtype == object:
        flat = np.array([_number(feature, row, item) for row, item in enumerate(values.ravel().tolist())], dtype=float)
        column = flat.reshape(values.shape)
    else:
        column = values.astype(np.float64)
    return np.where(np.isfinite(column), column, np.nan)


def _number(feature: Feature, row: int, item: object) -> float:
    if item is None or item == "":
        return float("nan")
    if isinstance(item, (int, float, str)):
        try:
            return float(item)
        except OverflowError:
            return float("nan")
        except ValueError:
            pass
    raise DecodeError(
        f"feature {feature.name!r}, row {row}: {str(item)[:40]!r} is no number",
        why=f"the feature is {feature.kind}, the value is {'text' if isinstance(item, str) else type(item).__name__}",
        fix="send a number (null when it is missing), or change the feature's kind in the schema",
    )
