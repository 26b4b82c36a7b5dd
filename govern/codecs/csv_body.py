"""Rows as CSV (RFC 4180), as Amazon SageMaker's endpoints take and give them: no datatypes, mostly no header line."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from typing import Final

import numpy as np

from govern.codecs.tensor import Tensor
from govern.errors import DecodeError

#: The numbers of JSON. What only looks like one ("007", "1_000") stays text, because it may name a category.
_NUMBER: Final = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]*)?([eE][-+]?[0-9]+)?")


def decode_request(body: bytes, names: Sequence[str]) -> list[Tensor]:
    """One tensor for each column under a header line that names them, else one tensor (n, d) in schema order.

    An empty cell is a missing value.

    Args:
        names: the features of the schema; a first line of exactly these, in any order, is a header.

    Raises:
        DecodeError: no UTF-8, no rows, rows of different length.
    """
    rows = _rows(body, what="CSV request")
    if sorted(rows[0]) != sorted(names):
        return [_tensor("rows", rows)]
    if len(rows) == 1:
        raise DecodeError("CSV request has no rows", why="it is a header line only", fix="send a line for each row")
    return [_tensor(name, [[row[index]] for row in rows[1:]]) for index, name in enumerate(rows[0])]


def decode_response(body: bytes) -> list[Tensor]:
    """The model's answers as one tensor (n, k), named `predictions`; raises as `decode_request` does."""
    return [_tensor("predictions", _rows(body, what="CSV response"))]


def _rows(body: bytes, *, what: str) -> list[list[str]]:
    try:
        rows = [row for row in csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DecodeError(f"{what} is no CSV", why=str(error), fix="send rows of values in UTF-8") from error
    if not rows:
        raise DecodeError(f"{what} has no rows", why="it is empty", fix="send a line for each row")
    for number, row in enumerate(rows):
        if len(row) != len(rows[0]):
            raise DecodeError(
                f"{what} is ragged",
                why=f"row 0 has {len(rows[0])} values, row {number} has {len(row)}",
                fix="send rows of equal length",
            )
    return rows


def _tensor(name: str, rows: list[list[str]]) -> Tensor:
    values = [[_value(cell.strip()) for cell in row] for row in rows]
    if all(isinstance(value, float) for row in values for value in row):
        return Tensor(name, "FP64", np.array(values, dtype=np.float64))
    data = np.empty((len(values), len(values[0])), dtype=object)
    data[:] = values
    return Tensor(name, "MIXED", data)


def _value(cell: str) -> str | float | None:
    if not cell:
        return None
    return float(cell) if _NUMBER.fullmatch(cell) else cell
