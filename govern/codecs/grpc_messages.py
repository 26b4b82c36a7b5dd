"""The protobuf messages in a captured gRPC body.

`application/grpc`: as on the wire, each message behind 5 bytes, a flag "compressed" and its length, big-endian
(https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, "Length-Prefixed-Message"): one for a unary call,
any number for a stream. `application/protobuf`: one bare message, as Seldon Core v2 has them on Kafka, possibly behind
the preamble of a schema registry (0x00, 4 bytes schema id, 1 byte message index).
"""

from __future__ import annotations

from typing import Final

from govern.codecs.packing import GZIP_MAGIC, unpack
from govern.errors import DecodeError

#: Datatype -> the field of a V2 tensor's InferTensorContents that holds its elements.
CONTENTS: Final = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}

_HEAD: Final = 5
_PREAMBLE: Final = 6
#: No protobuf message begins with it: field numbers start at 1.
_PREAMBLE_MAGIC: Final = b"\x00"


def split(body: bytes, content_type: str, *, what: str) -> list[bytes]:
    """The messages of a body, unpacked.

    Args:
        content_type: the payload's; of any other than the two, framing is recognised by its lengths.
        what: what the body is, to begin the error with ("V2 gRPC request").

    Raises:
        DecodeError: a frame that is cut or of an unknown flag, a compressed message that cannot be unpacked.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind.startswith("application/grpc") or (kind != "application/protobuf" and _is_framed(body)):
        return _frames(body, what)
    return [body[_PREAMBLE:] if body.startswith(_PREAMBLE_MAGIC) else body]


def _is_framed(body: bytes) -> bool:
    at = 0
    while at + _HEAD <= len(body) and body[at] <= 1:
        at += _HEAD + int.from_bytes(body[at + 1 : at + _HEAD], "big")
    return bool(body) and at == len(body)


def _frames(body: bytes, what: str) -> list[bytes]:
    messages: list[bytes] = []
    at = 0
    while at < len(body):
        flag, start = body[at], at + _HEAD
        size = int.from_bytes(body[at + 1 : start], "big")
        if flag > 1:
            raise DecodeError(
                f"{what}, message {len(messages)}: flag {flag}",
                why=f"the frame at byte {at} begins with neither 0 nor 1",
                fix="send length-prefixed messages, or one bare message as application/protobuf",
            )
        if start + size > len(body):
            raise DecodeError(
                f"{what}, message {len(messages)} is cut",
                why=f"the frame at byte {at} says {size} bytes, {max(0, len(body) - start)} follow",
                fix="raise the capture's body limit above the largest message, or send whole messages",
            )
        message = body[start : start + size]
        messages.append(_unpacked(message, f"{what}, message {len(messages)}") if flag else message)
        at = start + size
    return messages


def _unpacked(message: bytes, what: str) -> bytes:
    # The coding is in the call's header grpc-encoding, which need not have been captured: gRPC's own two differ
    # in their first byte.
    return unpack(message, "gzip" if message.startswith(GZIP_MAGIC) else "deflate", what=what)
