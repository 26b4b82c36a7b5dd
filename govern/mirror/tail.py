"""Reading one agent's records in order, across its segments, while it writes them."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from govern.errors import ArtifactError
from govern.mirror.captured import Captured
from govern.mirror.folder import segment_path, segments
from govern.mirror.leaving import Leaving
from govern.mirror.segment import HEADER_BYTES, Damage, Frame, SegmentReader

_log: Final = logging.getLogger(__name__)


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """Up to where an agent's records are on the bus.

    Attributes:
        segment: number of the segment to read next.
        offset: where in it.
        next_seq: seq of the next record.
        corrupt: records that could not be read back so far.
    """

    segment: int = 0
    offset: int = HEADER_BYTES
    next_seq: int = 0
    corrupt: int = 0


class Piece(NamedTuple):
    """Records read, and the position after them."""

    records: list[Captured]
    position: Position
    n_bytes: int


class Tail:
    """One agent's segments from a position on.

    Args:
        folders: where segments may lie: the memory folder, then the disk folder.
        leaving: makes records of frames.
    """

    def __init__(self, agent: str, folders: tuple[Path, ...], position: Position, leaving: Leaving) -> None:
        self.agent = agent
        self.position = position
        self._folders = folders
        self._reader: SegmentReader | None = None
        self._reading = -1
        self._suspect: int | None = None
        self._refused: set[Path] = set()
        self._leaving = leaving

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def read(self, *, max_bytes: int, dead: bool) -> Piece | None:
        """What comes next, up to about `max_bytes`; None when there is nothing (yet).

        A piece may hold no records: then it only moves on, to a later segment or past damage.

        Args:
            dead: the agent was seen to be dead before this call, so nothing is added meanwhile.

        Raises:
            OSError: a segment cannot be read.
        """
        reader = self._open()
        if reader is None:
            return None
        header = reader.header()  # before the frames: what it calls sealed is whole
        position = self.position
        found: list[Frame | Damage] = []
        if position.offset < header.end:
            found = reader.frames(position.offset, header.end, max_bytes=max_bytes)
            if found and isinstance(found[0], Damage) and self._may_be_in_flight(header.sealed or dead, found[0]):
                return None
            self._suspect = None
        elif dead and not header.sealed:
            found = list(reader.beyond(position.offset))
        if found:
            return self._piece(found)
        if header.sealed or (dead and self._next_segment() is not None):
            return Piece([], msgspec.structs.replace(position, segment=header.number + 1, offset=HEADER_BYTES), 0)
        return None

    def _open(self) -> SegmentReader | None:
        """The reader of the segment at the position."""
        number = self.position.segment
        if self._reader is not None and self._reading == number:
            return self._reader
        self.close()
        for folder in self._folders:
            path = segment_path(folder, self.agent, number)
            # Not there: it is in the other folder, or not made yet.
            with contextlib.suppress(FileNotFoundError):
                try:
                    self._reader = SegmentReader(path)
                except ArtifactError as error:
                    if path not in self._refused:
                        self._refused.add(path)
                        _log.error("%s", error)
                    continue
                self._reading = number
                if self._reader.header().rewritten:  # the place is one of the original: `next_seq` finds it again
                    self.position = msgspec.structs.replace(self.position, offset=HEADER_BYTES)
                return self._reader
        # An agent makes its segments in order: this one was there, and is gone because all of it was shipped; or it
        # cannot be read, which the next record's seq will show.
        following = self._next_segment()
        if following is None:
            return None
        self.position = msgspec.structs.replace(self.position, segment=following, offset=HEADER_BYTES)
        return self._open()

    def _next_segment(self) -> int | None:
        later = [
            segment.number
            for folder in self._folders
            for segment in segments(folder)
            if segment.agent == self.agent and segment.number > self.position.segment
        ]
        return min(later, default=None)

    def _may_be_in_flight(self, settled: bool, damage: Damage) -> bool:
        """Whether damage may be a frame whose bytes another core has not published yet; seen twice, it is damage."""
        if settled or self._suspect == damage.start:
            return False
        self._suspect = damage.start
        return True

    def _piece(self, found: list[Frame | Damage]) -> Piece:
        position = self.position
        records: list[Captured] = []
        next_seq, corrupt = position.next_seq, position.corrupt
        for item in found:
            if isinstance(item, Damage):
                _log.error(
                    "agent %s: segment %d is damaged from byte %d to %d",
                    self.agent,
                    position.segment,
                    item.start,
                    item.stop,
                )
                continue
            if item.seq < next_seq:  # on the bus already, of a segment that was written again
                continue
            record = self._leaving.record(self.agent, item)
            if record is None:
                continue
            if item.seq > next_seq:
                _log.error("agent %s: records %d to %d are lost", self.agent, next_seq, item.seq - 1)
                corrupt += item.seq - next_seq
            next_seq = item.seq + 1
            records.append(record)
        stop = found[-1].stop
        return Piece(
            records,
            Position(segment=position.segment, offset=stop, next_seq=next_seq, corrupt=corrupt),
            stop - found[0].start,
        )
