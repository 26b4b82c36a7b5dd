"""What detectors that remember (`govern.detection.StatefulDetector`) know of the streams of a partition. Pure.

Each window key has a memory of its own. It is stored under the window's key, as chunks that no window has, and with
what it was collected for: a step that is changed begins anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from govern.detection import StatefulDetector
from govern.runtime import checkpoint
from govern.runtime.checkpoint import MEMORY, WindowKey

#: Days of each of which one memory stays in the checkpoint: those that inferences are kept for unless told otherwise,
#: and the one that has begun.
ANCHOR_DAYS: Final = 8
_DAY_NS: Final = 24 * 3600 * 10**9
_NEVER: Final = -1


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


@dataclass(slots=True)
class _Held:
    """
    Attributes:
        day: of the newest window, days since the epoch; `_NEVER` when none was judged since it was restored.
        anchored: the day of the newest anchor.
        pieces: chunk of the checkpoint -> in how many pieces it lies there.
    """

    kept: Memory | bytes
    changed: bool = False
    day: int = _NEVER
    anchored: int = _NEVER
    pieces: dict[int, int] = field(default_factory=dict)


class Memories:
    """By window key, with what the checkpoint holds of each: the newest, and for `ANCHOR_DAYS` one of each day, so that
    whoever computes past verdicts once more need not begin where the stream began.
    """

    def __init__(self) -> None:
        self._held: dict[WindowKey, _Held] = {}

    def of(self, key: WindowKey) -> Kept:
        held = self._held.get(key)
        return None if held is None else held.kept

    def keep(self, key: WindowKey, memory: Memory, *, t_ns: int) -> None:
        """From now on.

        Args:
            t_ns: when the window ended, nanoseconds.
        """
        held = self._held.setdefault(key, _Held(memory))
        held.kept, held.changed, held.day = memory, True, t_ns // _DAY_NS

    def restore(self, key: WindowKey, chunks: Mapping[int, Mapping[int, bytes]], *, collected_for: str) -> bool:
        """Take up what a checkpoint says; False when it was collected for another step.

        Args:
            chunks: those with numbers below 0, in pieces.

        Raises:
            BadInput: it is of another format version.
        """
        if MEMORY not in chunks:
            return False
        state = checkpoint.decode_memory(checkpoint.joined(chunks[MEMORY]))
        if state.collected_for != collected_for:
            return False
        pieces = {number: len(found) for number, found in chunks.items()}
        self._held[key] = _Held(state.packed, anchored=state.anchored, pieces=pieces)
        return True

    def give_up(self, key: WindowKey) -> list[bytes]:
        """Forget it; return the keys of the checkpoint that are to be deleted."""
        held = self._held.pop(key, None)
        pieces = {} if held is None else held.pieces
        return [key.chunk(number, piece) for number, count in pieces.items() for piece in range(count)]

    def move(self, key: WindowKey, target: Memories) -> None:
        """Hand it over, with what the checkpoint has of it."""
        if key in self._held:
            target._held[key] = self._held.pop(key)

    def take_changed(self, key: WindowKey, *, collected_for: str) -> list[tuple[bytes, bytes | None]]:
        """Entries of the checkpoint that differ from what was last taken."""
        held = self._held.get(key)
        if held is None or not held.changed:
            return []
        assert isinstance(held.kept, Memory), "a window has changed it"
        chunks = [MEMORY]
        if held.day != held.anchored:
            held.anchored = held.day
            chunks.append(MEMORY - 1 - held.day % ANCHOR_DAYS)
        held.changed = False
        data = checkpoint.encode_memory(held.kept.packed, collected_for=collected_for, anchored=held.anchored)
        pieces = checkpoint.pieces(data)
        entries: list[tuple[bytes, bytes | None]] = []
        for chunk in chunks:
            before, held.pieces[chunk] = held.pieces.get(chunk, 0), len(pieces)
            entries.extend((key.chunk(chunk, number), one) for number, one in enumerate(pieces))
            entries.extend((key.chunk(chunk, number), None) for number in range(len(pieces), before))
        return entries
