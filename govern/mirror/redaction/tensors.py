"""Redacting tensors, however a body holds them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

from govern.mirror.redaction.change import Change, Place, Withhold
from govern.schema import DATATYPES

#: Datatypes that hold a missing value themselves: NaN, or no text.
_NULLABLE: Final = frozenset({"FP16", "FP32", "FP64", "BF16", "BYTES"})
#: What a column of integers becomes when some of them are made missing.
_WITH_MISSING: Final = "FP64"
_EXACT: Final = 2**53
KNOWN_DATATYPES: Final = frozenset({*DATATYPES, "BF16"})


class View(Protocol):
    """One tensor of a body."""

    @property
    def name(self) -> str: ...

    @property
    def datatype(self) -> str: ...

    @property
    def shape(self) -> list[int]: ...

    def elements(self) -> list[object]:
        """In row-major order. Raises `Withhold` when they do not fit shape and datatype."""
        ...

    def put(self, datatype: str, elements: list[object]) -> None:
        """Replace the elements; None is a missing value. The datatype is another one only where it must be."""
        ...


def redact_tensors(views: Sequence[View], place: Place, change: Change, features: tuple[str, ...]) -> None:
    """Apply a rule to the tensors of one side.

    Args:
        features: the schema's names, in order; empty when there is no schema.

    Raises:
        Withhold: where the column lies cannot be said, so it may be anywhere.
    """
    if place.tensor:
        for view in views:
            if view.name == place.tensor:
                _redact(view, change, None if place.column is None else _position(view, place.column, features))
        return
    column = place.column
    exact = [view for view in views if view.name == column]
    if exact:
        for view in exact:
            _redact(view, change, None)
    elif len(views) == 1 and views[0].name not in features:
        _redact(views[0], change, _position(views[0], column, features))
    elif isinstance(column, int) or not all(_is_column(view, features) for view in views):
        raise Withhold("which tensor holds the column cannot be said")


def _is_column(view: View, features: tuple[str, ...]) -> bool:
    """Whether the tensor is one column, so that its name says which one."""
    return view.name in features if features else len(view.shape) == 1 or view.shape[-1:] == [1]


def _position(view: View, column: str | int | None, features: tuple[str, ...]) -> int:
    width = view.shape[-1] if len(view.shape) > 1 else 0
    if isinstance(column, str):
        if column not in features or width != len(features):
            raise Withhold("the tensor's columns are not those of the schema")
        return features.index(column)
    if column is None or column >= width:
        raise Withhold("the tensor has no such column")
    return column


def _redact(view: View, change: Change, position: int | None) -> None:
    if view.datatype not in KNOWN_DATATYPES:
        raise Withhold("a tensor's datatype is unknown")
    elements = view.elements()
    width = view.shape[-1] if view.shape else 1
    whole = position is None or width == 1
    # Text finds no place between numbers: there the values become missing.
    text = change.makes_text and (whole or view.datatype == "BYTES")
    put: Callable[[object], object] = change if text else change.drop
    found = [put(value) if whole or place % width == position else value for place, value in enumerate(elements)]
    if text:
        view.put("BYTES", found)
    elif view.datatype in _NULLABLE:
        view.put(view.datatype, found)
    else:
        if not all(value is None or _exact(value) for value in found):
            raise Withhold("the other columns would change with this one")
        view.put(_WITH_MISSING, found)


def _exact(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _EXACT


class JsonTensor:
    """A tensor in a V2 JSON document, changed in place; nested data stay nested."""

    __slots__ = ("_tensor", "datatype", "name", "shape")

    def __init__(self, tensor: dict[str, object]) -> None:
        self._tensor = tensor
        self.name, self.datatype, self.shape = described(tensor)

    def elements(self) -> list[object]:
        data = self._tensor.get("data")
        if not isinstance(data, list):
            raise Withhold("a tensor has no list of data")
        flat = list(_leaves(data))
        if len(flat) != math.prod(self.shape):
            raise Withhold("a tensor's data do not fit its shape")
        return flat

    def put(self, datatype: str, elements: list[object]) -> None:
        self._tensor["datatype"] = datatype
        self._tensor["data"] = _nested(self._tensor["data"], iter(elements))
        set_plain_text(self._tensor, datatype)


def described(tensor: dict[str, object]) -> tuple[str, str, list[int]]:
    """Name, datatype and shape of a tensor in JSON."""
    name, datatype, shape = tensor.get("name"), tensor.get("datatype"), tensor.get("shape")
    if not isinstance(name, str) or not isinstance(datatype, str) or not isinstance(shape, list):
        raise Withhold("a tensor lacks name, datatype or shape")
    sizes = [size for size in shape if isinstance(size, int) and size >= 0]
    if len(sizes) != len(shape):
        raise Withhold("a tensor's shape is none")
    return name, datatype, sizes


def set_plain_text(tensor: dict[str, object], datatype: str) -> None:
    """MLServer's content types say how text is read (base64, datetime): what stands there now is plain text."""
    parameters = tensor.get("parameters")
    if datatype == "BYTES" and isinstance(parameters, dict) and "content_type" in parameters:
        parameters["content_type"] = "str"


def _leaves(data: list[object]) -> Iterator[object]:
    for item in data:
        if isinstance(item, list):
            yield from _leaves(item)
        else:
            yield item


def _nested(data: object, elements: Iterator[object]) -> object:
    return [_nested(item, elements) for item in data] if isinstance(data, list) else next(elements)
