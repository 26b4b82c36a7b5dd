"""What detectors that remember (`govern.detection.StatefulDetector`) know of the streams of a partition. Pure.

Each window key has a memory of its own. It is stored under the window's key, as a chunk that no window has, and with
what it was collected for: a step that is changed begins anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from govern.detection import StatefulDetector
from govern.runtime import checkpoint
from govern.runtime.checkpoint import MEMORY, WindowKey


class Memory(NamedTuple):
    """What a detector remembers between two windows.

    Attributes:
        value: the detector's own.
        packed: the same as it is stored. What cannot be packed is found by the window that made it.
    """

    value: Any
    packed: bytes

    @property
    def digest(self) -> str:
        """SHA-256, hex: of which past a verdict says what it says."""
        return hashlib.sha256(self.packed).hexdigest()

    @classmethod
    def of(cls, detector: StatefulDetector, value: Any) -> Memory:
        return cls(value, detector.pack(value))


#: A memory, as it is stored while no window has needed it, or None before the first window.
Kept = Memory | bytes | None


def known(kept: Kept, detector: StatefulDetector) -> Memory:
    """What the detector remembers.

    Raises:
        BadInput: what is stored is no memory of this detector.
    """
    if kept is None:
        return Memory.of(detector, detector.start())
    return Memory(detector.unpack(kept), kept) if isinstance(kept, bytes) else kept


class Memories:
    """By window key, with what the checkpoint holds of each."""

    def __init__(self) -> None:
        self._kept: dict[WindowKey, Memory | bytes] = {}
        self._changed: set[WindowKey] = set()
        #: In how many pieces it lies in the checkpoints topic.
        self._pieces: dict[WindowKey, int] = {}

    def of(self, key: WindowKey) -> Kept:
        return self._kept.get(key)

    def keep(self, key: WindowKey, memory: Memory) -> None:
        """From now on."""
        self._kept[key] = memory
        self._changed.add(key)

    def restore(self, key: WindowKey, pieces: Mapping[int, bytes], *, collected_for: str) -> bool:
        """Take up what a checkpoint says; False when it was collected for another step.

        Raises:
            BadInput: it is of another format version.
        """
        packed = checkpoint.decode_memory(checkpoint.joined(pieces), collected_for=collected_for)
        if packed is None:
            return False
        self._kept[key] = packed
        self._pieces[key] = len(pieces)
        return True

    def give_up(self, key: WindowKey) -> list[bytes]:
        """Forget it; return the keys of the checkpoint that are to be deleted."""
        self._kept.pop(key, None)
        self._changed.discard(key)
        return [key.chunk(MEMORY, piece) for piece in range(self._pieces.pop(key, 0))]

    def move(self, key: WindowKey, target: Memories) -> None:
        """Hand it over, with what the checkpoint has of it."""
        if key not in self._kept:
            return
        target._kept[key] = self._kept.pop(key)
        if key in self._pieces:
            target._pieces[key] = self._pieces.pop(key)
        if key in self._changed:
            self._changed.discard(key)
            target._changed.add(key)

    def take_changed(self, key: WindowKey, *, collected_for: str) -> list[tuple[bytes, bytes | None]]:
        """Entries of the checkpoint that differ from what was last taken."""
        kept = self._kept.get(key)
        if key not in self._changed or not isinstance(kept, Memory):
            return []
        self._changed.discard(key)
        pieces = checkpoint.pieces(checkpoint.encode_memory(kept.packed, collected_for=collected_for))
        before, self._pieces[key] = self._pieces.get(key, 0), len(pieces)
        return [
            *((key.chunk(MEMORY, number), data) for number, data in enumerate(pieces)),
            *((key.chunk(MEMORY, number), None) for number in range(len(pieces), before)),
        ]
