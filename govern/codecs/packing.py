"""Bodies in a content coding (RFC 9110 section 8.4.1): gzip."""

from __future__ import annotations

import zlib
from typing import Final

from govern.errors import DecodeError

#: The largest body that is unpacked: far above any tabular batch, far below what would hurt a worker.
MAX_UNPACKED_BYTES: Final = 64 * 1024 * 1024


def unpack(body: bytes, encoding: str, *, what: str) -> bytes:
    """The body without its content coding.

    Args:
        encoding: value of the header Content-Encoding; "" when there is none.
        what: what the body is, to begin the error with ("request body").

    Raises:
        DecodeError: another coding than gzip, data that are cut or no gzip, or more than `MAX_UNPACKED_BYTES`.
    """
    coding = encoding.strip().lower()
    if coding in ("", "identity"):
        return body
    if coding not in ("gzip", "x-gzip"):
        raise DecodeError(
            f"{what} has content-encoding {coding!r}",
            why="this release unpacks gzip only",
            fix="send it as gzip or unpacked",
        )
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)  # + 16: a gzip header and trailer, RFC 1952
    try:
        unpacked = unpacker.decompress(body, MAX_UNPACKED_BYTES)
    except zlib.error as error:
        raise DecodeError(f"{what} is no gzip", why=str(error), fix="send what content-encoding announces") from error
    if unpacker.eof:
        return unpacked
    if len(unpacked) < MAX_UNPACKED_BYTES:
        raise DecodeError(f"{what} cannot be unpacked", why="its gzip data end too early", fix="send whole bodies")
    raise DecodeError(
        f"{what} cannot be unpacked", why=f"it is larger than {MAX_UNPACKED_BYTES} bytes", fix="send smaller batches"
    )
