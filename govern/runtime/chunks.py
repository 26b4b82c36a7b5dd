"""What the checkpoints topic holds of the rows of the open windows of a partition. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from govern.runtime import checkpoint
from govern.runtime.checkpoint import WindowKey
from govern.runtime.windows import Rows, WindowBuffer
from govern.schema import FeatureSchema

#: In `Written.window`: what the topic holds belongs to no window of the buffer, and is to be replaced.
NO_WINDOW: Final = -1


class Written(NamedTuple):
    """What the checkpoints topic holds of an open window.

    Attributes:
        window: `WindowBuffer.windows` at the time.
        rows: how many instances.
        pieces: chunk -> in how many pieces it lies there.
    """

    window: int
    rows: int
    pieces: Mapping[int, int]


class Chunks:
    """By window key, so that a commit writes what it must and no more."""

    def __init__(self) -> None:
        self._written: dict[WindowKey, Written] = {}

    def restore(
        self, key: WindowKey, found: Mapping[int, Mapping[int, bytes]], schema: FeatureSchema, *, collected_for: str
    ) -> tuple[Rows | None, int]:
        """The rows of a window, and how many cannot be used by a step of this fingerprint.

        Args:
            found: chunk -> piece -> its bytes.

        Raises:
            BadInput: they are of another format version.
        """
        parts = [
            checkpoint.decode_chunk(checkpoint.joined(found[number]), schema, collected_for=collected_for)
            for number in sorted(found)
        ]
        rows = [part for part in parts if not isinstance(part, int)]
        unusable = sum(part for part in parts if isinstance(part, int))
        self._written[key] = Written(
            NO_WINDOW if unusable else 0,
            sum(map(len, rows)) + unusable,
            {number: len(pieces) for number, pieces in found.items()},
        )
        return Rows.concat(rows) if rows else None, unusable

    def replace(self, key: WindowKey) -> None:
        """Of what is written nothing belongs to the window that begins."""
        if key in self._written:
            self._written[key] = self._written[key]._replace(window=NO_WINDOW)

    def give_up(self, key: WindowKey) -> list[bytes]:
        """Forget the window; return the keys of the checkpoint that are to be deleted."""
        written = self._written.pop(key, None)
        pieces = {} if written is None else written.pieces
        return [key.chunk(number, piece) for number, count in pieces.items() for piece in range(count)]

    def move(self, key: WindowKey, target: Chunks) -> None:
        """Hand over what the checkpoint has of a window."""
        if (written := self._written.pop(key, None)) is not None:
            target._written[key] = written

    def take_changed(
        self, key: WindowKey, buffer: WindowBuffer, *, collected_for: str
    ) -> list[tuple[bytes, bytes | None]]:
        """Entries of the checkpoint that differ from what was last taken."""
        before = self._written.get(key, Written(buffer.windows, 0, {}))
        size = checkpoint.CHUNK_ROWS
        keep = before.rows if before.window == buffer.windows else 0
        rows = buffer.contents()
        count = len(buffer)
        entries: list[tuple[bytes, bytes | None]] = []
        written = {number: count for number, count in before.pieces.items() if number < keep // size}
        for start in range(keep - keep % size, count, size):
            assert rows is not None, "a buffer that counts rows has them"
            part = rows if count <= size else rows.take(slice(start, start + size))
            pieces = checkpoint.pieces(checkpoint.encode_chunk(part, collected_for=collected_for))
            written[start // size] = len(pieces)
            entries.extend((key.chunk(start // size, piece), data) for piece, data in enumerate(pieces))
        for number, n_pieces in before.pieces.items():
            entries.extend((key.chunk(number, piece), None) for piece in range(written.get(number, 0), n_pieces))
        self._written[key] = Written(buffer.windows, count, written)
        return entries
