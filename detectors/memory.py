"""What a detector remembers between two windows, as a value and as bytes. Arrays and numbers: never pickle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from detectors.base import Array
from govern.errors import BadInput
from govern.runtime.checkpoint import Array as StoredArray

#: Of the packed form, the same for all detectors.
FORMAT_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Memory:
    """Never changed in place.

    Attributes:
        rows: of the stream, since it began or since the last alarm.
        arrays: the detector's own, numeric.
    """

    rows: int
    arrays: tuple[Array, ...]


class _Packed(msgspec.Struct, frozen=True):
    format_version: int
    rows: int
    arrays: list[StoredArray]


def pack(memory: Memory) -> bytes:
    """Equal memories give equal bytes."""
    return msgspec.msgpack.encode(
        _Packed(FORMAT_VERSION, memory.rows, [StoredArray.of(array) for array in memory.arrays])
    )


def unpack(data: bytes, *, method: str, accepts: Callable[[Memory], bool]) -> Memory:
    """What `pack` stored.

    Args:
        accepts: whether the detector can go on from there; what it does not accept would be read out of bounds.

    Raises:
        BadInput: the bytes are no memory that the detector could have had.
    """
    try:
        packed = msgspec.msgpack.decode(data, type=_Packed)
        if packed.format_version != FORMAT_VERSION:
            raise ValueError(f"it has format_version {packed.format_version}; this release reads {FORMAT_VERSION}")
        memory = Memory(packed.rows, tuple(one.array() for one in packed.arrays))
        if packed.rows < 0 or not accepts(memory):
            raise ValueError("its arrays are not those of this detector")
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        raise BadInput(
            f"{method}: what it remembered cannot be read",
            why=str(error),
            fix="run the release that wrote it, or delete the checkpoints topic to begin anew",
        ) from error
    return memory
