"""The model's name and version and the request's id, at the head of a V2 `ModelInferRequest`.

gRPC names the model in the message only. The message itself is never parsed on the request path: its first bytes are
walked field by field (https://protobuf.dev/programming-guides/encoding/), and what they do not show stays empty.
"""

from __future__ import annotations

from typing import Final

from govern.mirror.rules import Said

#: How much of a message is looked at. The three fields are its first, and names are short.
SCAN_BYTES: Final = 4096

_MODEL_NAME: Final = 1
_MODEL_VERSION: Final = 2
_ID: Final = 3

_VARINT: Final = 0
_FIXED64: Final = 1
_BYTES: Final = 2
_FIXED32: Final = 5
#: A varint has 64 bits at the most.
_VARINT_BYTES_MAX: Final = 10


def said_by(head: bytes) -> Said:
    """Read the three fields from the first bytes of a message. Total: any bytes give an answer, and none is an error.

    Args:
        head: of a `ModelInferRequest`, cut anywhere.
    """
    found = {_MODEL_NAME: b"", _MODEL_VERSION: b"", _ID: b""}
    at = 0
    try:
        while at < len(head):
            tag, at = _varint(head, at)
            number, kind = tag >> 3, tag & 7
            if kind == _BYTES:
                length, at = _varint(head, at)
                if at + length > len(head):
                    break
                if number in found:
                    found[number] = head[at : at + length]
                at += length
            elif kind == _VARINT:
                _, at = _varint(head, at)
            elif kind in (_FIXED64, _FIXED32):
                at += 8 if kind == _FIXED64 else 4
            else:
                break
    except IndexError:  # cut within a number
        pass
    return Said(*found.values())


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 7 * _VARINT_BYTES_MAX, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise IndexError("a varint without end")
