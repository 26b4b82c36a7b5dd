"""Bodies in a content coding (RFC 9110 section 8.4.1): gzip, deflate, br, zstd, and several on top of each other."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Final

import cramjam

from govern.errors import DecodeError

#: The largest body that is unpacked: far above any tabular batch, far below what would hurt a worker.
MAX_UNPACKED_BYTES: Final = 64 * 1024 * 1024

#: How a gzip member begins. No JSON, protobuf message or gRPC frame begins so, which tells a packed body whose
#: Content-Encoding was lost on the way (Knative's channels strip it).
GZIP_MAGIC: Final = b"\x1f\x8b"

#: cramjam fills a buffer of fixed size, so a bomb cannot grow; this many times the body is tried first.
_FIRST_RATIO: Final = 16
_LEAST_BUFFER_BYTES: Final = 64 * 1024
#: What cramjam says when the buffer was too small, which is no fault of the body.
_BUFFER_FULL: Final = "failed to write whole buffer"


def unpack(body: bytes, encoding: str, *, what: str) -> bytes:
    """The body without its content codings.

    Args:
        encoding: value of the header Content-Encoding; "" when there is none, and then gzip is recognised.
        what: what the body is, to begin the error with ("request body").

    Raises:
        DecodeError: an unknown coding, data that are cut or not of it, or more than `MAX_UNPACKED_BYTES`.
    """
    named = [coding.strip().lower() for coding in encoding.split(",")]
    codings = [coding for coding in named if coding not in ("", "identity")]
    if not codings and body.startswith(GZIP_MAGIC):
        codings = ["gzip"]
    for coding in reversed(codings):
        unpacker = _UNPACKERS.get(coding)
        if unpacker is None:
            raise DecodeError(
                f"{what} has content-encoding {coding!r}",
                why=f"this release unpacks {', '.join(_UNPACKERS)}",
                fix="send it in one of them or unpacked",
            )
        body = unpacker(body, what)
    return body


def _gzip(body: bytes, what: str) -> bytes:
    return _inflate(body, zlib.MAX_WBITS | 16, "gzip", what)  # + 16: a gzip header and trailer, RFC 1952


def _deflate(body: bytes, what: str) -> bytes:
    """RFC 9110 means zlib's format (RFC 1950) by deflate; some servers send the bare data (RFC 1951)."""
    try:
        return _inflate(body, zlib.MAX_WBITS, "deflate", what)
    except DecodeError as error:
        if not isinstance(error.__cause__, zlib.error):
            raise
    return _inflate(body, -zlib.MAX_WBITS, "deflate", what)


def _inflate(body: bytes, wbits: int, coding: str, what: str) -> bytes:
    unpacker = zlib.decompressobj(wbits=wbits)
    try:
        unpacked = unpacker.decompress(body, MAX_UNPACKED_BYTES)
    except zlib.error as error:
        raise _wrong(what, coding, str(error)) from error
    if unpacker.eof:
        return unpacked
    if len(unpacked) < MAX_UNPACKED_BYTES:
        raise DecodeError(f"{what} cannot be unpacked", why=f"its {coding} data end too early", fix="send whole bodies")
    raise _too_large(what)


def _into_buffer(decompress: Callable[[bytes, bytearray], int], coding: str) -> Callable[[bytes, str], bytes]:
    def unpacked(body: bytes, what: str) -> bytes:
        room = max(_LEAST_BUFFER_BYTES, _FIRST_RATIO * len(body))
        while True:
            buffer = bytearray(min(room, MAX_UNPACKED_BYTES))
            try:
                size = decompress(body, buffer)
            except cramjam.DecompressionError as error:
                if _BUFFER_FULL not in str(error):
                    raise _wrong(what, coding, str(error)) from error
                if room >= MAX_UNPACKED_BYTES:
                    raise _too_large(what) from error
                room *= _FIRST_RATIO
            else:
                return bytes(memoryview(buffer)[:size])

    return unpacked


_UNPACKERS: Final[dict[str, Callable[[bytes, str], bytes]]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "br": _into_buffer(cramjam.brotli.decompress_into, "br"),
    "zstd": _into_buffer(cramjam.zstd.decompress_into, "zstd"),
}


def _wrong(what: str, coding: str, why: str) -> DecodeError:
    return DecodeError(f"{what} is no {coding}", why=why, fix="send what content-encoding announces")


def _too_large(what: str) -> DecodeError:
    return DecodeError(
        f"{what} cannot be unpacked", why=f"it is larger than {MAX_UNPACKED_BYTES} bytes", fix="send smaller batches"
    )
