"""What the checkpoints topic holds of the rows of the open windows of a partition. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from govern.runtime import checkpoint
from govern.runtime.checkpoint import WindowKey
from govern.runtime.rolling import RollingBuffer, Slide
from govern.runtime.windows import Rows, WindowBuffer
from govern.schema import FeatureSchema

#: In `Written.window`: what the topic holds belongs to no window of the buffer, and is to be replaced.
NO_WINDOW: Final = -1

Buffer = WindowBuffer | RollingBuffer
Entries = list[tuple[bytes, bytes | None]]


@dataclass(frozen=True, slots=True)
class Written:
    """What the checkpoints topic holds of an open window.

    Attributes:
        window: `WindowBuffer.windows` at the time; 0 of a window that slides, which is always the same.
        rows: how many instances; of a window that tumbles.
        pieces: chunk -> in how many pieces it lies there.
        held: chunk -> the instances in it, by the numbers that `RollingBuffer` gives them; of a window that slides.
    """

    window: int = 0
    rows: int = 0
    pieces: Mapping[int, int] = field(default_factory=dict)
    held: Mapping[int, range] = field(default_factory=dict)


class Chunks:
    """By window key, so that a commit writes what it must and no more."""

    def __init__(self) -> None:
        self._written: dict[WindowKey, Written] = {}

    def restore(
        self,
        key: WindowKey,
        found: Mapping[int, Mapping[int, bytes]],
        buffer: Buffer,
        schema: FeatureSchema,
        *,
        lost: int,
        collected_for: str,
    ) -> None:
        """Put into a new buffer the rows of its window. Those that a step of this fingerprint cannot use are lost to
        it, unless they were judged before.

        Args:
            found: chunk -> piece -> its bytes.

        Raises:
            BadInput: they are of another format version.
        """
        whole = {number: checkpoint.joined(found[number]) for number in sorted(found)}
        read = {
            number: checkpoint.decode_chunk(data, schema, collected_for=collected_for) for number, data in whole.items()
        }
        usable = {number: rows for number, rows in read.items() if isinstance(rows, Rows)}
        slides = {number: slide for number, data in whole.items() if (slide := checkpoint.slide_of(data)) is not None}
        unusable = sum(rows for rows in read.values() if isinstance(rows, int))
        lost += max(slides.values()).unjudged if unusable and slides else unusable
        pieces = {number: len(each) for number, each in found.items()}
        if isinstance(buffer, WindowBuffer):
            buffer.restore(Rows.concat([*usable.values()]) if usable else None, lost)
            self._written[key] = Written(NO_WINDOW if unusable else 0, len(buffer), pieces)
            return
        came = 0
        for number, rows in usable.items():  # a release that knew of no other windows let all tumble
            slides.setdefault(number, Slide(came, came + len(rows), []))
            came += len(rows)
        ordered = sorted(usable, key=lambda number: slides[number])
        buffer.restore([(slides[number], usable[number]) for number in ordered], lost)
        held = {number: range(slides[number].first, slides[number].first + len(usable[number])) for number in ordered}
        self._written[key] = Written(pieces=pieces, held=held)

    def replace(self, key: WindowKey) -> None:
        """Of what is written nothing belongs to the window that begins."""
        if key in self._written:
            self._written[key] = Written(NO_WINDOW, pieces=self._written[key].pieces)

    def give_up(self, key: WindowKey) -> list[bytes]:
        """Forget the window; return the keys of the checkpoint that are to be deleted."""
        pieces = self._written.pop(key, Written()).pieces
        return [key.chunk(number, piece) for number, count in pieces.items() for piece in range(count)]

    def move(self, key: WindowKey, target: Chunks) -> None:
        """Hand over what the checkpoint has of a window."""
        if (written := self._written.pop(key, None)) is not None:
            target._written[key] = written

    def take_changed(self, key: WindowKey, buffer: Buffer, *, collected_for: str) -> Entries:
        """Entries of the checkpoint that differ from what was last taken."""
        before = self._written.get(key)
        if isinstance(buffer, WindowBuffer):
            after, chunks = _tumbled(buffer, before or Written(buffer.windows), collected_for)
        else:
            after, chunks = _slid(buffer, before or Written(), collected_for)
        self._written[key] = after
        entries: Entries = []
        for number, pieces in chunks.items():
            entries.extend((key.chunk(number, piece), data) for piece, data in enumerate(pieces))
        for number, n_pieces in before.pieces.items() if before is not None else ():
            entries.extend((key.chunk(number, piece), None) for piece in range(after.pieces.get(number, 0), n_pieces))
        return entries


def _tumbled(buffer: WindowBuffer, before: Written, collected_for: str) -> tuple[Written, dict[int, list[bytes]]]:
    """What is written of a window afterwards, and the pieces of the chunks that are new."""
    size = checkpoint.CHUNK_ROWS
    keep = before.rows if before.window == buffer.windows else 0
    rows = buffer.contents()
    count = len(buffer)
    chunks: dict[int, list[bytes]] = {}
    for start in range(keep - keep % size, count, size):
        assert rows is not None, "a buffer that counts rows has them"
        part = rows if count <= size else rows.take(slice(start, start + size))
        chunks[start // size] = checkpoint.pieces(checkpoint.encode_chunk(part, collected_for=collected_for))
    kept = {number: pieces for number, pieces in before.pieces.items() if number < keep // size}
    return Written(buffer.windows, count, kept | {number: len(pieces) for number, pieces in chunks.items()}), chunks


def _slid(buffer: RollingBuffer, before: Written, collected_for: str) -> tuple[Written, dict[int, list[bytes]]]:
    """As `_tumbled`. A chunk whose rows have all left the window goes; one of which some have left stays as it is."""
    size = checkpoint.CHUNK_ROWS
    held = {number: numbers for number, numbers in before.held.items() if numbers.stop > buffer.first}
    start = buffer.first
    if held:
        newest = max(held, key=lambda number: held[number].stop)
        start = held[newest].stop
        # It says what is not judged yet, and is written again, unless it is full and another follows it.
        if len(held[newest]) < size or start == buffer.end:
            start = held.pop(newest).start
    chunks: dict[int, list[bytes]] = {}
    free = (number for number in count() if number not in held)
    for first, rows in buffer.runs(start):
        for at in range(0, len(rows), size):
            part = rows if len(rows) <= size else rows.take(slice(at, at + size))
            number, numbers = next(free), range(first + at, first + at + len(part))
            slide = buffer.slide(numbers)
            chunks[number] = checkpoint.pieces(checkpoint.encode_chunk(part, collected_for=collected_for, slide=slide))
            held[number] = numbers
    pieces = {number: len(chunks[number]) if number in chunks else before.pieces[number] for number in held}
    return Written(pieces=pieces, held=held), chunks
