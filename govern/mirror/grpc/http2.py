"""Frames of one direction of an HTTP/2 connection, read as they pass (RFC 9113), and the few that a proxy writes."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Final, NamedTuple

#: What a client's connection begins with.
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
_PADDED: Final = 0x8
_PRIORITY: Final = 0x20

NO_ERROR: Final = 0x0

#: The length in 24 bits, kind, flags, stream.
_HEAD: Final = struct.Struct(">HBBBI")
_HEAD_BYTES: Final = _HEAD.size
_STREAM_MASK: Final = 0x7FFF_FFFF
#: Data passes in pieces of any size; of everything else whole frames are held. gRPC's own limit on headers is 16 KB.
_HELD_BYTES_MAX: Final = 128 * 1024


class Kind(IntEnum):
    """The frames that matter here."""

    DATA = 0x0
    HEADERS = 0x1
    RST_STREAM = 0x3
    SETTINGS = 0x4
    PUSH_PROMISE = 0x5
    PING = 0x6
    GOAWAY = 0x7
    WINDOW_UPDATE = 0x8
    CONTINUATION = 0x9


#: Those whose payload may be padded, or not all of what they say.
_IN_PARTS: Final = frozenset((Kind.DATA, Kind.HEADERS, Kind.CONTINUATION))


class NotHttp2(ValueError):
    """Bytes that are no HTTP/2, or none that an endpoint would accept: from here on nothing can be read."""


class Frame(NamedTuple):
    """One frame, without its padding. Of DATA a piece, whose last one has the frame's END_STREAM."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def ends_stream(self) -> bool:
        return bool(self.flags & END_STREAM)


class FrameReader:
    """Finds the frames in what passes in one direction."""

    def __init__(self) -> None:
        self._rest = b""
        #: Of the DATA frame that is passing: what is still to come of data and of padding, its stream and its flags.
        self._left = 0
        self._padding = 0
        self._stream = 0
        self._flags = 0
        #: HEADERS whose CONTINUATION is to come.
        self._headers: Frame | None = None

    @property
    def at_boundary(self) -> bool:
        """Whether all that was fed are whole frames, between which another one may stand."""
        return not self._rest and not self._left and not self._padding and self._headers is None

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are complete now, and pieces of DATA. To be exhausted before the next call.

        Raises:
            NotHttp2: the bytes are no frames.
        """
        if self._rest:
            data = self._rest + data
            self._rest = b""
        at, end = 0, len(data)
        while at < end:
            if self._left:
                piece = data[at : at + self._left]
                at += len(piece)
                self._left -= len(piece)
                yield Frame(Kind.DATA, 0 if self._left else self._flags, self._stream, piece)
                continue
            if self._padding:
                passed = min(self._padding, end - at)
                at += passed
                self._padding -= passed
                continue
            start = at + _HEAD_BYTES
            if start > end:
                break
            high, low, kind, flags, stream = _HEAD.unpack_from(data, at)
            length = high << 8 | low
            stream &= _STREAM_MASK
            if kind == Kind.DATA and length and self._headers is None:
                padded = bool(flags & _PADDED)
                if padded and start == end:
                    break
                at = start + padded
                self._padding = data[start] if padded else 0
                self._left, self._stream, self._flags = length - padded - self._padding, stream, flags
                if self._left < 0:
                    raise NotHttp2("more padding than frame")
                if not self._left:
                    yield Frame(Kind.DATA, flags, stream, b"")
                continue
            if length > _HELD_BYTES_MAX:
                raise NotHttp2(f"a frame of kind {kind} of {length} bytes")
            if start + length > end:
                break
            at = start + length
            frame = Frame(kind, flags, stream, data[start:at])
            if kind not in _IN_PARTS and self._headers is None:
                yield frame
                continue
            whole = self._whole(frame)
            if whole is not None:
                yield whole
        self._rest = data[at:]

    def _whole(self, frame: Frame) -> Frame | None:
        """The frame without padding and priority; headers only when their last part is there."""
        if self._headers is not None:
            if frame.kind != Kind.CONTINUATION or frame.stream != self._headers.stream:
                raise NotHttp2(f"a frame of kind {frame.kind} within headers")
            block = self._headers.payload + frame.payload
            if len(block) > _HELD_BYTES_MAX:
                raise NotHttp2("headers without end")
            frame = self._headers._replace(flags=self._headers.flags | frame.flags & END_HEADERS, payload=block)
            self._headers = None
        elif frame.kind == Kind.CONTINUATION:
            raise NotHttp2("a continuation of nothing")
        elif frame.flags & (_PADDED | _PRIORITY):
            frame = frame._replace(payload=_stripped(frame))
        if frame.kind == Kind.HEADERS and not frame.flags & END_HEADERS:
            self._headers = frame
            return None
        return frame


def _stripped(frame: Frame) -> bytes:
    payload, padding = frame.payload, 0
    if frame.flags & _PADDED:
        if not payload:
            raise NotHttp2("padding without a length")
        padding = payload[0]
        payload = payload[1:]
    if frame.kind == Kind.HEADERS and frame.flags & _PRIORITY:
        payload = payload[5:]
    if padding > len(payload):
        raise NotHttp2("more padding than frame")
    return payload[: len(payload) - padding]


def frame(kind: Kind, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """The bytes of a frame."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def goaway(last_stream: int) -> bytes:
    """No new streams, please; those after `last_stream` have not been looked at."""
    return frame(Kind.GOAWAY, payload=last_stream.to_bytes(4, "big") + NO_ERROR.to_bytes(4, "big"))


def header_block(fields: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Fields as literals without index and without packing (RFC 7541 section 6.2.2); values of up to 16 KB."""
    return b"".join(b"\x00" + _literal(name) + _literal(value) for name, value in fields)


def _literal(data: bytes) -> bytes:
    """A string that is not packed (section 5.2), its length an integer with 7 bits in the first byte (5.1)."""
    if len(data) < 127:
        return bytes((len(data),)) + data
    rest = len(data) - 127
    length = bytearray((127,))
    while rest >= 0x80:
        length.append(rest & 0x7F | 0x80)
        rest >>= 7
    length.append(rest)
    return bytes(length) + data
