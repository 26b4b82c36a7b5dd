"""Moving sealed segments out of memory while the bus does not take them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from govern.errors import ArtifactError
from govern.mirror import folder
from govern.mirror.leaving import Leaving
from govern.mirror.segment import HEADER_BYTES, Damage, SegmentReader, rewritten_segment

_log: Final = logging.getLogger(__name__)

#: Segments move when memory is this full: the other half stays for the traffic while a slow disk takes them.
_HIGH_WATER: Final = 0.5
#: How often to look. At 25 MB/s of capture, half of the default spool fills in 2.5 s.
_EVERY_S: Final = 0.25
#: How long to leave a disk alone that has refused.
_REFUSED_S: Final = 5.0
#: Read and written at a time.
_PIECE_BYTES: Final = 1 << 20
_DRAFT: Final = ".moving"


class _Sealed(NamedTuple):
    age_ns: int
    path: Path
    end: int


class Spill:
    """Keeps the memory folder at most half full, as far as the disk folder has room.

    Args:
        leaving: makes records of frames. Where it redacts or decrypts, segments are written again on their way:
            what lies on the disk is redacted.
        spool_bytes: the limit of the memory folder.
        disk_bytes: the limit of the disk folder.
        make_room: asked for so many bytes there when it is full; whether there is room now.
    """

    def __init__(
        self,
        spool_dir: Path,
        disk_dir: Path,
        leaving: Leaving,
        *,
        spool_bytes: int,
        disk_bytes: int,
        make_room: Callable[[int], bool],
    ) -> None:
        self._spool_dir = spool_dir
        self._disk_dir = disk_dir
        self._leaving = leaving
        self._spool_bytes = spool_bytes
        self._disk_bytes = disk_bytes
        self._make_room = make_room
        self._refused = False

    async def run(self) -> None:
        """Work until cancelled. A disk that is full or broken is logged, left alone, and tried again."""
        for draft in self._disk_dir.glob(f"*{_DRAFT}"):
            draft.unlink(missing_ok=True)
        while True:
            try:
                await self._relieve()
                if self._refused:
                    self._refused = False
                    _log.warning("%s takes segments again", self._disk_dir)
            except OSError as error:
                if not self._refused:
                    self._refused = True
                    _log.error("no segment can be moved to %s: %s", self._disk_dir, error)
                await asyncio.sleep(_REFUSED_S)
            await asyncio.sleep(_EVERY_S)

    async def _relieve(self) -> None:
        """Move the oldest segments until memory is less than half full, or the disk's limit is reached."""
        excess = folder.held_bytes(self._spool_dir) - self._spool_bytes * _HIGH_WATER
        if excess <= 0:
            return
        for segment in self._sealed():
            if excess <= 0 or not self._make_room(segment.end):
                return
            size = segment.path.stat().st_size
            if await self._move(segment):
                excess -= size

    def _sealed(self) -> list[_Sealed]:
        """The memory folder's sealed segments, oldest first."""
        found = []
        for _, _, path in folder.segments(self._spool_dir):
            with contextlib.suppress(FileNotFoundError, ArtifactError), SegmentReader(path) as reader:
                header = reader.header()
                if header.sealed:
                    found.append(_Sealed(path.stat().st_mtime_ns, path, header.end))
        return sorted(found)

    async def _move(self, segment: _Sealed) -> bool:
        """Move one segment; False when it was shipped and deleted meanwhile.

        Raises:
            OSError: the disk does not take it; nothing of it stays there.
        """
        draft = self._disk_dir / f"{segment.path.name}{_DRAFT}"
        try:
            if self._leaving.redactor.active:
                copying = asyncio.ensure_future(asyncio.to_thread(self._rewrite, segment.path, draft))
            else:
                copying = asyncio.ensure_future(asyncio.to_thread(_copy, segment.path, draft, segment.end))
            try:
                await asyncio.shield(copying)
            except asyncio.CancelledError:
                await asyncio.wait({copying})  # a thread cannot be stopped, and its draft is not to outlive us
                draft.unlink(missing_ok=True)
                raise
            # From here on without a break, so that the shipper, in the same thread, deletes either none or both.
            if not segment.path.exists():
                draft.unlink()
                return False
            draft.rename(self._disk_dir / segment.path.name)
        except FileNotFoundError:
            draft.unlink(missing_ok=True)
            return False
        except OSError:
            draft.unlink(missing_ok=True)
            raise
        segment.path.unlink()
        return True

    def _rewrite(self, source: Path, target: Path) -> None:
        """Write a sealed segment again with its records redacted; damage is left out, and shows as a gap in `seq`."""
        encode = msgspec.msgpack.Encoder().encode
        records: list[tuple[int, bytes]] = []
        with SegmentReader(source) as reader:
            header = reader.header()
            at = HEADER_BYTES
            while at < header.end:
                found = reader.frames(at, header.end, max_bytes=_PIECE_BYTES)
                at = found[-1].stop
                for item in found:
                    record = None if isinstance(item, Damage) else self._leaving.record(header.agent, item)
                    if record is not None:
                        records.append((record.capture.seq, encode(record)))
        data = rewritten_segment(header, records)
        if folder.held_bytes(self._disk_dir) + len(data) > self._disk_bytes:
            raise OSError(f"redacted, {source.name} is too long for disk_bytes")
        with _new_file(target) as fd:
            _write_all(fd, data)
            os.fsync(fd)


def _copy(source: Path, target: Path, size: int) -> None:
    """Copy the first `size` bytes, and have them on the disk before this returns."""
    with _new_file(target) as fd, source.open("rb") as data:
        rest = size
        while rest > 0:
            piece = data.read(min(rest, _PIECE_BYTES))
            if not piece:
                raise OSError(f"{source} is shorter than its header says")
            _write_all(fd, piece)
            rest -= len(piece)
        os.fsync(fd)


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
