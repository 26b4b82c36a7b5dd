"""Redacting rows and columns of V1 bodies (`instances`, `inputs` ...) and of Seldon v1's `data`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from govern.mirror.redaction.change import Change, Place, Withhold
from govern.mirror.redaction.tensors import redact_tensors

V1_KEYS: Final = ("instances", "inputs", "predictions", "outputs")


def redact_v1(document: dict[str, object], place: Place, change: Change, features: tuple[str, ...]) -> None:
    """Apply a tensor or column rule to a V1 document.

    Raises:
        Withhold: rows without names whose columns nobody knows.
    """
    for key in V1_KEYS:
        value = document.get(key)
        if isinstance(value, dict):
            name = place.tensor or place.column
            if name in value:
                position = place.column if place.tensor else None
                if position is None:
                    value[name] = _every(value[name], change)
                else:
                    _rows(value[name], position, change, features)
            elif isinstance(name, int):
                raise Withhold("columns with names have no positions")
        elif isinstance(value, list):
            if place.tensor == key:
                if place.column is None:
                    document[key] = _every(value, change)
                else:
                    _rows(value, place.column, change, features)
            elif not place.tensor:
                _rows(value, place.column, change, features)
            else:
                for row in value:
                    if isinstance(row, dict) and place.tensor in row:
                        if place.column is not None:
                            raise Withhold("a field of a row has no columns")
                        row[place.tensor] = change(row[place.tensor])
        elif value is not None:
            raise Withhold("rows are neither a list nor an object")


def redact_seldon(document: dict[str, object], place: Place, change: Change, features: tuple[str, ...]) -> None:
    """Apply a tensor or column rule to a Seldon v1 message.

    Raises:
        Withhold: it holds no `ndarray` and no `tensor`, or its columns are not known.
    """
    data = document.get("data")
    if not isinstance(data, dict) or ("ndarray" in data) == ("tensor" in data):
        raise Withhold("the message has no rows that can be told apart")
    named = data.get("names")
    column = place.tensor if place.tensor and place.column is None else place.column
    names = tuple(str(name) for name in named) if isinstance(named, list) else ()
    if place.tensor and column not in names:
        if place.column is not None:
            raise Withhold("a message of Seldon v1 has one tensor, without a name")
        return
    known = names if column in names else features
    if "ndarray" in data:
        _rows(data["ndarray"], column, change, known)
    else:
        tensor = data["tensor"]
        if not isinstance(tensor, dict):
            raise Withhold("a tensor is no object")
        redact_tensors([_SeldonTensor(tensor)], _ColumnOnly(column, place), change, known)


class _ColumnOnly(Place):
    """The same rule, by column."""

    __slots__ = ()

    def __init__(self, column: str | int | None, place: Place) -> None:
        self.action, self.sides, self.path, self.label = place.action, place.sides, (), place.label
        self.tensor, self.column = "", column


class _SeldonTensor:
    """`data.tensor`: numbers without a name or datatype, so that what is taken out becomes null."""

    __slots__ = ("_tensor", "datatype", "name", "shape")

    def __init__(self, tensor: dict[str, object]) -> None:
        self._tensor = tensor
        self.name, self.datatype = "", "FP64"
        shape = tensor.get("shape")
        if not isinstance(shape, list) or not all(isinstance(size, int) and size >= 0 for size in shape):
            raise Withhold("a tensor's shape is none")
        self.shape: list[int] = shape

    def elements(self) -> list[object]:
        values = self._tensor.get("values")
        size = 1
        for one in self.shape:
            size *= one
        if not isinstance(values, list) or len(values) != size:
            raise Withhold("a tensor's values do not fit its shape")
        return values

    def put(self, datatype: str, elements: list[object]) -> None:
        self._tensor["values"] = elements


def _rows(value: object, column: str | int | None, change: Change, features: Sequence[str]) -> None:
    """Change a column of rows, each an object, a list, or (one column) a plain value."""
    if not isinstance(value, list):
        raise Withhold("rows are no list")
    for place, row in enumerate(value):
        if isinstance(row, dict):
            if isinstance(column, int):
                raise Withhold("columns with names have no positions")
            if column in row:
                row[column] = change(row[column])
        elif isinstance(row, list):
            position = column if isinstance(column, int) else _index(column, features, len(row))
            if position >= len(row):
                raise Withhold("a row has no such column")
            row[position] = change(row[position])
        elif column == 0 or (isinstance(column, str) and tuple(features) == (column,)):
            value[place] = change(row)
        else:
            raise Withhold("which column a value belongs to cannot be said")


def _index(column: str | None, features: Sequence[str], width: int) -> int:
    if column is None or column not in features or len(features) != width:
        raise Withhold("the rows' columns are not those of the schema")
    return list(features).index(column)


def _every(value: object, change: Change) -> object:
    """Every plain value below, changed."""
    if isinstance(value, list):
        return [_every(item, change) for item in value]
    if isinstance(value, dict):
        return {name: _every(item, change) for name, item in value.items()}
    return change(value)
