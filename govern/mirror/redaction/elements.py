"""Elements of V2 tensors as raw bytes: little-endian, row-major; BYTES with a 4-byte length before each.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md and Triton's
binary tensor data extension. Without numpy, which the capture does not have.
"""

from __future__ import annotations

import math
import struct
from typing import Final

from govern.mirror.redaction.change import Withhold

_FORMATS: Final = {
    "BOOL": "?", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q", "INT8": "b", "INT16": "h", "INT32": "i",
    "INT64": "q", "FP16": "e", "FP32": "f", "FP64": "d",
}  # fmt: skip
_LENGTH: Final = struct.Struct("<I")


def unpack_elements(datatype: str, raw: bytes, count: int) -> list[object]:
    """`count` elements; BYTES as text where they are UTF-8.

    Raises:
        Withhold: the bytes are not as many elements of the datatype.
    """
    if datatype == "BYTES":
        found = _texts(raw)
        if len(found) != count:
            raise Withhold("a tensor's bytes do not fit its shape")
        return found
    wide = datatype == "BF16"
    layout = f"<{count}{'H' if wide else _FORMATS.get(datatype, 'x')}"
    if struct.calcsize(layout) != len(raw):
        raise Withhold("a tensor's bytes do not fit its shape")
    values: list[object] = list(struct.unpack(layout, raw))
    return (
        list(struct.unpack(f"<{count}f", b"".join(b"\0\0" + raw[2 * i : 2 * i + 2] for i in range(count))))
        if wide
        else values
    )


def pack_elements(datatype: str, elements: list[object]) -> bytes:
    """The raw bytes; None is NaN, and in BYTES the empty text."""
    if datatype == "BYTES":
        items = [as_bytes(item) for item in elements]
        return b"".join(_LENGTH.pack(len(item)) + item for item in items)
    numbers = [math.nan if item is None else item for item in elements]
    if datatype == "BF16":
        wide = struct.pack(f"<{len(numbers)}f", *numbers)
        return b"".join(wide[4 * i + 2 : 4 * i + 4] for i in range(len(numbers)))
    return struct.pack(f"<{len(numbers)}{_FORMATS[datatype]}", *numbers)


def as_text(item: bytes) -> str | bytes:
    try:
        return item.decode()
    except UnicodeDecodeError:
        return item


def as_bytes(item: object) -> bytes:
    return item if isinstance(item, bytes) else b"" if item is None else str(item).encode()


def _texts(raw: bytes) -> list[object]:
    found: list[object] = []
    at = 0
    while at < len(raw):
        if at + _LENGTH.size > len(raw):
            raise Withhold("a tensor of BYTES is cut")
        (length,) = _LENGTH.unpack_from(raw, at)
        at += _LENGTH.size
        if at + length > len(raw):
            raise Withhold("a tensor of BYTES is cut")
        found.append(as_text(raw[at : at + length]))
        at += length
    return found
