"""Tensors whose data lie behind a V2 JSON document: see `govern.codecs.v2_binary`."""

from __future__ import annotations

import math

from govern.codecs import v2_binary
from govern.mirror.redaction.change import Withhold
from govern.mirror.redaction.elements import pack_elements, unpack_elements
from govern.mirror.redaction.tensors import described, set_plain_text


class BinaryTensor:
    """A tensor whose data lie behind the document."""

    __slots__ = ("_tensor", "datatype", "name", "raw", "shape")

    def __init__(self, tensor: dict[str, object], raw: bytes) -> None:
        self._tensor = tensor
        self.raw = raw
        self.name, self.datatype, self.shape = described(tensor)

    def elements(self) -> list[object]:
        return unpack_elements(self.datatype, self.raw, math.prod(self.shape))

    def put(self, datatype: str, elements: list[object]) -> None:
        self.datatype = datatype
        self.raw = pack_elements(datatype, elements)
        self._tensor["datatype"] = datatype
        parameters = self._tensor["parameters"]
        assert isinstance(parameters, dict)
        parameters[v2_binary.SIZE] = len(self.raw)
        set_plain_text(self._tensor, datatype)


def binary_size(tensor: dict[str, object]) -> int | None:
    """How many bytes behind the document are the tensor's; None when its data are in the document."""
    parameters = tensor.get("parameters")
    size = parameters.get(v2_binary.SIZE) if isinstance(parameters, dict) else None
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 0 or "data" in tensor):
        raise Withhold("a tensor's size behind the document is none")
    return size
