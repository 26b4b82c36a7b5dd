"""What capture keeps of a body as it passes: its size, its digest, a prefix of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final

from govern.record import Payload

#: Bounds on what a caller can put into a record beside the bodies (see also `recorder`); together far below
#: RECORD_OVERHEAD_BYTES.
TYPE_BYTES_MAX: Final = 512
PATH_BYTES_MAX: Final = 4096
#: All that is kept of the headers of one side.
_HEADERS_BYTES_MAX: Final = 2048
#: A body up to this size is hashed in one go at its end; a longer one as it passes, so that its last byte does not wait
#: for the hash of all others.
_HASHED_AT_ONCE_BYTES: Final = 16 * 1024

Headers = Mapping[bytes, bytes]


class Hold:
    """The memory that bodies of undecided exchanges may take together. One thread uses it."""

    def __init__(self, limit: int) -> None:
        self._room = limit

    def take(self, size: int) -> bool:
        if size > self._room:
            return False
        self._room -= size
        return True

    def give_back(self, size: int) -> None:
        self._room += size


class Body:
    """Observes one body.

    Args:
        limit: longest prefix to keep.
        hold: of an exchange that may yet be left out: its parts are held as they came, and hashed only if it is kept.
        digest_later: a body that is all there needs no digest yet: whoever takes the record out of the spool makes it
            of the same bytes, in another process (`seen.inference`).
    """

    __slots__ = ("_digest", "_digest_later", "_held_bytes", "_hold", "_parts", "_room", "cut", "size")

    def __init__(self, limit: int, hold: Hold | None = None, *, digest_later: bool = False) -> None:
        self.size = 0
        #: Whether the kept part is shorter than the body.
        self.cut = False
        self._room = limit
        self._parts: list[bytes] = []
        #: None as long as all of the body is in the parts, unhashed.
        self._digest: hashlib._Hash | None = None
        self._digest_later = digest_later
        self._hold = hold
        self._held_bytes = 0

    def feed(self, data: bytes) -> None:
        size = len(data)
        self.size += size
        fits = data if size <= self._room else data[: self._room]
        if self._hold is not None and fits:
            if self._hold.take(len(fits)):
                self._held_bytes += len(fits)
            else:
                fits = b""
        if len(fits) < size:
            self.cut = True
        self._room = 0 if self.cut else self._room - size
        if self._digest is None and (
            self.cut or (self._hold is None and self.size > _HASHED_AT_ONCE_BYTES and not self._digest_later)
        ):
            self._digest = hashlib.sha256(b"".join(self._parts))  # from here on the body is hashed as it passes
        if self._digest is not None:
            self._digest.update(data)
        if fits:
            self._parts.append(fits)

    def release(self) -> None:
        """Give back what was held."""
        if self._hold is not None:
            self._hold.give_back(self._held_bytes)
            self._hold = None

    def prefix(self) -> bytes:
        """What is kept."""
        self._parts = [b"".join(self._parts)]
        return self._parts[0]

    def digest(self) -> str:
        """SHA-256, hex, of the whole body; "" when that is left for later, and all of it is kept."""
        if self._digest is not None:
            return self._digest.hexdigest()
        return "" if self._digest_later else hashlib.sha256(self.prefix()).hexdigest()

    def payload(self, headers: Headers, kept: Sequence[bytes]) -> Payload:
        """
        Args:
            headers: names in lower case.
            kept: the names of those that the record keeps.
        """
        return payload_of(headers, kept, body=self.prefix(), size=self.size, sha256=self.digest())


def payload_of(headers: Headers, kept: Sequence[bytes], *, body: bytes, size: int, sha256: str) -> Payload:
    """One side of a record; `headers` and `kept` as of `Body.payload`."""
    return Payload(
        content_type=text(headers.get(b"content-type", b""), TYPE_BYTES_MAX),
        content_encoding=text(headers.get(b"content-encoding", b""), TYPE_BYTES_MAX),
        body=body,
        size=size,
        sha256=sha256,
        headers=_kept(headers, kept),
    )


def text(value: bytes, limit: int) -> str:
    """The value's first bytes as text that takes no more than `limit` bytes in UTF-8."""
    if not value:
        return ""
    found = value[:limit].decode("utf-8", "replace")
    return found if found.isascii() else found.encode()[:limit].decode("utf-8", "ignore")


def _kept(headers: Headers, names: Sequence[bytes]) -> dict[str, str]:
    """The headers that a record keeps; one that finds no room is left out, since a part of it would mislead."""
    kept: dict[str, str] = {}
    room = _HEADERS_BYTES_MAX
    for name in names:
        value = headers.get(name)
        if value is not None and len(name) + len(value) <= room:
            kept[name.decode("latin-1")] = text(value, room)
            room -= len(name) + len(value)
    return kept
