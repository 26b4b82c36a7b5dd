"""The journal: what the sink has acknowledged and not yet recorded, in segments like the spool's.

An event is acknowledged when its half lies in the journal, which survives kill -9 as the spool does. Before a record
is appended to the spool an intent is written here: which inference, and under which agent and seq. One thread does
both, so of all intents only the very last entry of a journal can be in doubt after a crash; `Proof` then says whether
its record reached the spool. So no half is in two records, and none in no record.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from govern.errors import ArtifactError
from govern.mirror import folder
from govern.mirror.cipher import FrameCipher
from govern.mirror.segment import (
    ENCRYPTED,
    HEADER_BYTES,
    Damage,
    Frame,
    Header,
    SegmentReader,
    SegmentWriter,
    frame_bytes,
)
from govern.mirror.sink.half import Half

_log: Final = logging.getLogger(__name__)

_NAME: Final = "journal"
_PIECE_BYTES: Final = 1 << 20


class Arrived(msgspec.Struct, frozen=True, array_like=True, tag="half"):
    """A half that was, or is about to be, acknowledged."""

    half: Half


class Settled(msgspec.Struct, frozen=True, array_like=True, tag="settled"):
    """An inference of which everything is done, or is about to be.

    Attributes:
        sides: those whose halves it had.
        agent: of the record that is about to be appended to the spool; "" = it is certain.
    """

    key: str
    sides: tuple[str, ...]
    agent: str = ""
    seq: int = 0


class Undone(msgspec.Struct, frozen=True, array_like=True, tag="undone"):
    """The record of the intent before this one did not reach the spool."""

    key: str


Entry = Arrived | Settled | Undone


class Placed(NamedTuple):
    """An entry, the segment that it is in, and the room that it takes there."""

    entry: Entry
    segment: int
    n_bytes: int


class Journal:
    """The segments of one spool's sink. One thread uses it; `close` when done.

    Args:
        name: of this run, which no other run has.
        limit_bytes: what the segments may take together. The last segment's worth of it is for what makes room.
        key: encrypts what is written, where the folder is on a disk.
        old_key: opens what earlier runs have encrypted.

    Raises:
        Unavailable: the folder is not usable, or another sink works on it.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        *,
        segment_bytes: int,
        limit_bytes: int,
        key: bytes | None = None,
        old_key: bytes | None = None,
    ) -> None:
        folder.make_private(path)
        self._folder = path
        self._segment_bytes = segment_bytes
        self._limit_bytes = limit_bytes
        self._lock = folder.take(path, by="sink")
        self._name = name
        self._cipher = None if key is None else FrameCipher(key, name)
        self._key = key or old_key
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(Entry).decode
        self._sealed = sorted(segment.number for segment in folder.segments(path) if segment.agent == _NAME)
        for draft in folder.drafts(path, _NAME):
            draft.unlink(missing_ok=True)
        self._next_number = max(self._sealed, default=-1) + 1
        self._next_seq = 0
        self._current: SegmentWriter | None = None

    @property
    def oldest(self) -> int | None:
        """The segment to read or to give up next; the one being written is none of them."""
        return self._sealed[0] if self._sealed else None

    @property
    def held_bytes(self) -> int:
        return (len(self._sealed) + (self._current is not None)) * self._segment_bytes

    def append(self, entry: Entry, *, urgent: bool = False) -> Placed | None:
        """Write an entry; None when there is no room.

        Args:
            urgent: whether it makes room, so that it may take the last of it.
        """
        payload = self._encode(entry)
        if self._cipher is not None:
            payload = self._cipher.close(self._next_seq, payload)
        if self._current is None or not self._current.append(self._next_seq, payload):
            if not self._roll(urgent=urgent):
                return None
            if not self._current or not self._current.append(self._next_seq, payload):
                return None
        self._next_seq += 1
        return Placed(entry, self._current.number, frame_bytes(len(payload)))

    def read(self, number: int) -> Iterator[Placed]:
        """The entries of a sealed segment in order, also one that its writer had not finished."""
        try:
            with SegmentReader(folder.segment_path(self._folder, _NAME, number)) as reader:
                header = reader.header()
                at = HEADER_BYTES
                while at < header.end:
                    found = reader.frames(at, header.end, max_bytes=_PIECE_BYTES)
                    at = found[-1].stop
                    yield from self._entries(header, found)
                yield from self._entries(header, list(reader.beyond(header.end)))
        except ArtifactError as error:
            _log.error("%s", error)

    def read_all(self) -> Iterator[Placed]:
        """All that earlier runs left."""
        for number in list(self._sealed):
            yield from self.read(number)

    def drop_oldest(self) -> None:
        """Delete the oldest segment: nothing in it is needed any more."""
        folder.segment_path(self._folder, _NAME, self._sealed.pop(0)).unlink(missing_ok=True)

    def close(self) -> None:
        if self._current is not None:
            self._current.seal()
            self._current.close()
            self._current = None
        os.close(self._lock)

    def _roll(self, *, urgent: bool) -> bool:
        limit = self._limit_bytes if urgent else self._limit_bytes - self._segment_bytes
        if self.held_bytes + self._segment_bytes > limit:
            return False
        number = self._next_number
        path = folder.segment_path(self._folder, _NAME, number)
        try:
            following = SegmentWriter(
                path,
                agent=self._name,
                number=number,
                size=self._segment_bytes,
                flags=0 if self._cipher is None else ENCRYPTED,
            )
        except OSError as error:
            _log.warning("no further journal segment in %s: %s", self._folder, error)
            return False
        self._next_number += 1
        following.begin(self._next_seq)
        if self._current is not None:
            self._current.seal()
            self._current.close()
            self._sealed.append(self._current.number)
        self._current = following
        return True

    def _entries(self, header: Header, found: list[Frame] | list[Frame | Damage]) -> Iterator[Placed]:
        for item in found:
            if isinstance(item, Damage):
                _log.error("journal segment %d is damaged from byte %d to %d", header.number, item.start, item.stop)
                continue
            payload: bytes | None = item.payload
            if item.flags & ENCRYPTED:
                payload = FrameCipher(self._key, header.agent).open(item.seq, item.payload) if self._key else None
            try:
                entry = self._decode(payload or b"")
            except msgspec.DecodeError as error:
                _log.error("journal segment %d: entry %d cannot be read: %s", header.number, item.seq, error)
                continue
            yield Placed(entry, header.number, item.stop - item.start)


class Proof:
    """Links to the segments that the sink's own agents write, which outlive the shipper's deletion of them.

    Args:
        path: a folder on the spool's file system.
    """

    def __init__(self, path: Path) -> None:
        folder.make_private(path)
        self._folder = path

    def keep(self, segment: Path) -> None:
        """Link a segment, before anything is written to it.

        Raises:
            OSError: it cannot be linked.
        """
        os.link(segment, self._folder / segment.name)

    def has(self, agent: str, seq: int) -> bool:
        """Whether an agent that is dead had written its record `seq` whole: what the shipper, too, goes by."""
        mine = (segment for segment in folder.segments(self._folder) if segment.agent == agent)
        return any(seq in _seqs(segment.path) for segment in mine)

    def forget(self, *, agent: str, before: int) -> None:
        """Give up the links to an agent's segments that it has written to the end."""
        for segment in folder.segments(self._folder):
            if segment.agent == agent and segment.number < before:
                segment.path.unlink(missing_ok=True)

    def forget_others(self, agents: set[str]) -> None:
        """Give up the links to all but these agents' segments."""
        for segment in folder.segments(self._folder):
            if segment.agent not in agents:
                segment.path.unlink(missing_ok=True)


def _seqs(path: Path) -> set[int]:
    found: set[int] = set()
    with SegmentReader(path) as reader:
        end = reader.header().end
        at = HEADER_BYTES
        while at < end:
            piece = reader.frames(at, end, max_bytes=_PIECE_BYTES)
            at = piece[-1].stop
            found |= {item.seq for item in piece if isinstance(item, Frame)}
        found |= {frame.seq for frame in reader.beyond(end)}
    return found
