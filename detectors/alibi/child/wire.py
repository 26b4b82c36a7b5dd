"""Messages between govern and the process that holds a detector of alibi-detect: JSON and plain arrays, never pickle.

A frame is the lengths of its header and of its body (four and eight bytes, big endian), the header (JSON: the message,
then name, dtype and shape of each array) and the body: the arrays' bytes, C order, one after the other. Whoever reads
believes none of it: lengths are bounded before memory is taken, and an array is of a dtype that holds numbers only.
"""

from __future__ import annotations

import json
import math
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_LENGTHS: Final = struct.Struct(">IQ")
#: A header names each array and each file of a saved detector; text features travel in it.
HEADER_BYTES_MAX: Final = 64 * 1024 * 1024
#: A saved detector with a model of this size would not be judged with in a worker.
BODY_BYTES_MAX: Final = 2 * 1024 * 1024 * 1024
DTYPES: Final = frozenset({"<f8", "<f4", "<i8", "<i4", "|b1", "|u1"})


class Message(NamedTuple):
    """
    Attributes:
        said: JSON values.
        arrays: by name.
    """

    said: dict[str, Any]
    arrays: dict[str, Array]


class Malformed(ValueError):
    """Bytes that are no frame."""


class Gone(ConnectionError):
    """The other side has ended."""


def pack(said: Mapping[str, Any], arrays: Mapping[str, Array] | None = None) -> bytes:
    """The frame; equal messages give equal bytes."""
    plain = {name: _plain(array) for name, array in (arrays or {}).items()}
    layout = [[name, array.dtype.str, list(array.shape)] for name, array in plain.items()]
    header = json.dumps([dict(said), layout], sort_keys=True, separators=(",", ":")).encode()
    body = b"".join(array.tobytes() for array in plain.values())
    return _LENGTHS.pack(len(header), len(body)) + header + body


def unpack(frame: bytes) -> Message:
    """
    Raises:
        Malformed: it is not one whole frame.
    """
    if len(frame) < _LENGTHS.size:
        raise Malformed(f"{len(frame)} bytes are no frame")
    header, body = _lengths(frame[: _LENGTHS.size])
    if len(frame) != _LENGTHS.size + header + body:
        raise Malformed(f"a frame of {len(frame)} bytes says that it has {_LENGTHS.size + header + body}")
    return _message(frame[_LENGTHS.size : _LENGTHS.size + header], frame[_LENGTHS.size + header :])


def send(link: socket.socket, said: Mapping[str, Any], arrays: Mapping[str, Array] | None = None) -> None:
    """
    Raises:
        Gone: nobody is there to receive it.
        TimeoutError: it is not taken in within the socket's time.
    """
    try:
        link.sendall(pack(said, arrays))
    except (BrokenPipeError, ConnectionResetError) as error:
        raise Gone(str(error)) from error


def receive(link: socket.socket, *, deadline_s: float | None = None) -> Message:
    """The next message.

    Args:
        deadline_s: of the monotonic clock; None: wait for as long as it takes.

    Raises:
        Gone: the other side ended, before a message or within one.
        Malformed: what came is no frame.
        TimeoutError: it was not here by the deadline.
    """
    header, body = _lengths(_exactly(link, _LENGTHS.size, deadline_s))
    return _message(_exactly(link, header, deadline_s), _exactly(link, body, deadline_s))


def _exactly(link: socket.socket, size: int, deadline_s: float | None) -> bytearray:
    # Grown as it comes: a length that is a lie costs no memory.
    data = bytearray()
    while len(data) < size:
        if deadline_s is not None:
            remaining_s = deadline_s - time.monotonic()
            if remaining_s <= 0.0:
                raise TimeoutError("the deadline is over")
            link.settimeout(remaining_s)
        try:
            part = link.recv(min(size - len(data), 1 << 20))
        except TimeoutError as error:
            raise TimeoutError("the deadline is over") from error
        except ConnectionResetError as error:
            raise Gone(str(error)) from error
        if not part:
            raise Gone("it ended")
        data += part
    return data


def _lengths(data: bytes | bytearray) -> tuple[int, int]:
    header, body = _LENGTHS.unpack(data)
    if header > HEADER_BYTES_MAX or body > BODY_BYTES_MAX:
        raise Malformed(f"a frame of {header} and {body} bytes")
    return header, body


def _message(header: bytes | bytearray, body: bytes | bytearray) -> Message:
    try:
        said, layout = json.loads(header)
        if not isinstance(said, dict):
            raise Malformed("a message that is no object")
        arrays: dict[str, Array] = {}
        start = 0
        for name, dtype, shape in layout:
            if dtype not in DTYPES or not all(isinstance(n, int) and n >= 0 for n in shape):
                raise Malformed(f"array {name!r} of dtype {dtype!r} and shape {shape!r}")
            end = start + np.dtype(dtype).itemsize * math.prod(shape)
            if end > len(body):
                raise Malformed(f"array {name!r} is longer than the frame")
            arrays[str(name)] = np.frombuffer(body[start:end], dtype=dtype).reshape(shape)
            start = end
    except (ValueError, TypeError, RecursionError) as error:
        raise Malformed(str(error)) from error
    if start != len(body):
        raise Malformed(f"{len(body) - start} bytes belong to no array")
    return Message(said, arrays)


def _plain(array: Array) -> Array:
    """The array in one of the dtypes that travel.

    Raises:
        Malformed: it holds other than numbers.
    """
    array = np.asarray(array)
    little = array.astype(array.dtype.newbyteorder("<")) if array.dtype.byteorder == ">" else array
    if little.dtype.str in DTYPES:
        return little
    if little.dtype.kind in "iu":
        return little.astype(np.int64)
    if little.dtype.kind == "f":
        return little.astype(np.float64)
    raise Malformed(f"an array of dtype {array.dtype}")
