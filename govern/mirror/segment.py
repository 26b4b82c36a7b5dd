"""One segment of a spool: a pre-sized file that one process appends frames to and another one reads.

Format 1 and 2, native byte order (a spool never leaves its machine):

    header, 256 bytes
        0   8s   magic "GOVSEG\\r\\n"
        8   u32  format version: 2 when frames may have flags, or were written again
        12  u32  length of the agent's name
        16  u64  number of the segment within its agent, 0, 1, 2 ...
        24  u64  seq of the first frame
        32  u64  end: offset after the last whole frame
        40  u64  bit 0: sealed, nothing will be appended any more; bit 1: written again, so that places within it
                 are not those of the segment that the agent wrote
        48  ...  the agent's name, ASCII
    frames, each on an 8-byte boundary
        0   u32  marker "GVF1"
        4   u32  length of the payload
        8   u32  CRC-32 of the seq, the length, the flags and the payload
        12  u32  flags: 1 the record is redacted already, 2 the payload is encrypted
        16  u64  seq
        24  ...  payload

`end` is stored last, by one aligned store: up to it every frame is whole. A writer that is killed may leave a whole
frame behind `end`, which its checksum proves, or a torn one, which its checksum refuses.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from govern.errors import ArtifactError

MAGIC: Final = b"GOVSEG\r\n"
FORMAT_VERSION: Final = 1
#: Of segments with flags, which a release that does not know them must not read.
FLAGGED_VERSION: Final = 2
HEADER_BYTES: Final = 256

_HEAD: Final = struct.Struct("=8sIIQQQQ")
_END_WORD: Final = 32 // 8
_SEALED_WORD: Final = 40 // 8
_AGENT_AT: Final = _HEAD.size
#: What remains of the header after the fixed fields.
AGENT_BYTES_MAX: Final = HEADER_BYTES - _AGENT_AT

_FRAME: Final = struct.Struct("=4sIIIQ")
_MARKER: Final = b"GVF1"
_SEQ_AND_LENGTH: Final = struct.Struct("=QQ")
FRAME_BYTES: Final = _FRAME.size

REDACTED: Final = 1
ENCRYPTED: Final = 2
_SEALED: Final = 1
_REWRITTEN: Final = 2
#: madvise(2), Linux 5.14; Python's mmap does not name it.
_MADV_POPULATE_WRITE: Final = 23
#: Made present at a time: Python's lock is held meanwhile, and a request may wait for it.
_POPULATE_BYTES: Final = 256 * 1024


class Header(NamedTuple):
    """A segment's header as read at one moment."""

    agent: str
    number: int
    first_seq: int
    end: int
    sealed: bool
    rewritten: bool = False


class Frame(NamedTuple):
    """A whole frame. `start` and `stop` are offsets in the segment."""

    start: int
    stop: int
    seq: int
    payload: bytes
    flags: int = 0


class Damage(NamedTuple):
    """Bytes `[start, stop)` that are no frame, although the writer had finished them."""

    start: int
    stop: int


def frame_bytes(payload_bytes: int) -> int:
    """The room that a payload takes in a segment."""
    return (FRAME_BYTES + payload_bytes + 7) & ~7


def _checksum(seq: int, payload: bytes, flags: int) -> int:
    return zlib.crc32(payload, zlib.crc32(_SEQ_AND_LENGTH.pack(seq, len(payload) | flags << 32)))


def rewritten_segment(header: Header, records: Iterable[tuple[int, bytes]]) -> bytes:
    """A segment in place of a sealed one, with the same name and the same records, redacted.

    Args:
        records: seq and payload of each.
    """
    parts = [bytes(HEADER_BYTES)]
    for seq, payload in records:
        head = _FRAME.pack(_MARKER, len(payload), _checksum(seq, payload, REDACTED), REDACTED, seq)
        parts += [head, payload, bytes(frame_bytes(len(payload)) - FRAME_BYTES - len(payload))]
    name = header.agent.encode("ascii")
    end = sum(map(len, parts))
    head = _HEAD.pack(MAGIC, FLAGGED_VERSION, len(name), header.number, header.first_seq, end, _SEALED | _REWRITTEN)
    parts[0] = (head + name).ljust(HEADER_BYTES, b"\0")
    return b"".join(parts)


class SegmentWriter:
    """The only writer of a segment. Not thread-safe: one thread appends.

    Args:
        path: the file, which must not exist.
        size: bytes to reserve. They are allocated now, so that no later store can meet a full file system (on
            tmpfs that would be a SIGBUS).
        flags: of every frame.

    Raises:
        OSError: the file cannot be created, or there is no room for it (ENOSPC); nothing is left behind.
    """

    def __init__(self, path: Path, *, agent: str, number: int, size: int, flags: int = 0) -> None:
        self.path = path
        self.number = number
        self._end = HEADER_BYTES
        self._size = size
        self._flags = flags
        version = FLAGGED_VERSION if flags else FORMAT_VERSION
        name = agent.encode("ascii")
        # Made under a name that nobody reads, so that a segment has its header from the first moment.
        draft = path.with_name(f".{path.name}")
        fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, size)
            self._map = mmap.mmap(fd, size)
            _HEAD.pack_into(self._map, 0, MAGIC, version, len(name), number, 0, HEADER_BYTES, 0)
            self._map[_AGENT_AT : _AGENT_AT + len(name)] = name
            draft.rename(path)
        except OSError:
            draft.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)
        if not flags & ENCRYPTED:
            self._populate()
        self._words = memoryview(self._map)[:HEADER_BYTES].cast("Q")

    def _populate(self) -> None:
        """Have the pages present before the first append, which else meets a page fault at every fourth kilobyte.

        Of memory only: a disk may let its pages wait, and Python's lock with them.
        """
        with contextlib.suppress(OSError):  # an older kernel: they come one by one
            for at in range(0, self._size, _POPULATE_BYTES):
                self._map.madvise(_MADV_POPULATE_WRITE, at, min(_POPULATE_BYTES, self._size - at))

    @property
    def room(self) -> int:
        """Bytes that are left for frames."""
        return self._size - self._end

    def begin(self, first_seq: int) -> None:
        """Take the segment into use: its first frame will carry `first_seq`."""
        self._words[3] = first_seq

    def append(self, seq: int, payload: bytes) -> bool:
        """Copy a frame into the map; False when it does not fit."""
        start = self._end
        stop = start + ((FRAME_BYTES + len(payload) + 7) & ~7)
        if stop > self._size:
            return False
        body = start + FRAME_BYTES
        self._map[body : body + len(payload)] = payload
        flags = self._flags
        _FRAME.pack_into(self._map, start, _MARKER, len(payload), _checksum(seq, payload, flags), flags, seq)
        self._end = stop
        self._words[_END_WORD] = stop
        return True

    def seal(self) -> None:
        self._words[_SEALED_WORD] = _SEALED

    def close(self) -> None:
        self._words.release()
        self._map.close()


class SegmentReader:
    """Reads a segment, also while it is being written. Use as a context manager.

    Reads go through `pread`, not through a map: a disk that fails then raises OSError instead of killing the process.

    Raises:
        OSError: the file cannot be read.
        ArtifactError: it is no segment, or one of another format version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.header()
            self._file_bytes = os.fstat(self._fd).st_size
        except BaseException:
            os.close(self._fd)
            raise

    def __enter__(self) -> SegmentReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._fd)

    def header(self) -> Header:
        data = os.pread(self._fd, HEADER_BYTES, 0)
        if len(data) < HEADER_BYTES or data[:8] != MAGIC:
            raise ArtifactError(
                f"{self.path} is no spool segment",
                why="it does not begin with the header of one",
                fix="keep other files out of the spool's folders; move this one away",
            )
        _, version, length, number, first_seq, end, state = _HEAD.unpack_from(data)
        if version not in (FORMAT_VERSION, FLAGGED_VERSION):
            raise ArtifactError(
                f"{self.path} has format version {version}",
                why=f"this release reads versions {FORMAT_VERSION} and {FLAGGED_VERSION}",
                fix="let the release that wrote it ship it, then upgrade",
            )
        agent = data[_AGENT_AT : _AGENT_AT + length].decode("ascii", "replace")
        return Header(agent, number, first_seq, end, bool(state & _SEALED), bool(state & _REWRITTEN))

    def frames(self, start: int, stop: int, *, max_bytes: int) -> list[Frame | Damage]:
        """The frames in `[start, stop)`, in order, about `max_bytes` of them and at least one.

        `start` is the `stop` of an earlier frame, or `HEADER_BYTES`; `stop` at most the header's `end`.
        """
        stop = min(stop, self._file_bytes)
        found: list[Frame | Damage] = []
        data = os.pread(self._fd, min(stop - start, max_bytes), start)
        at = 0
        while start + at < stop:
            frame = _frame_at(data, at, base=start)
            if frame is None and len(data) < stop - start:
                if found:
                    return found  # the next call begins with it
                data = os.pread(self._fd, stop - start, start)  # it is longer than max_bytes, or damaged
                if start + len(data) < stop:
                    stop = start + len(data)
                frame = _frame_at(data, at, base=start)
            if frame is None:
                resume = _next_frame(data, at, base=start)
                found.append(Damage(start + at, start + resume))
                at = resume
            else:
                found.append(frame)
                at = frame.stop - start
        return found

    def beyond(self, start: int) -> list[Frame]:
        """Whole frames that a killed writer left behind `end` (at most one, by construction of the writer)."""
        data = os.pread(self._fd, self._file_bytes - start, start)
        frame = _frame_at(data, 0, base=start)
        return [] if frame is None else [frame]


def _frame_at(data: bytes, at: int, *, base: int) -> Frame | None:
    """The frame at `data[at:]`; None when there is none, or not all of it."""
    if len(data) < at + FRAME_BYTES:
        return None
    marker, length, checksum, flags, seq = _FRAME.unpack_from(data, at)
    body = at + FRAME_BYTES
    if marker != _MARKER or body + length > len(data):
        return None
    payload = data[body : body + length]
    if _checksum(seq, payload, flags) != checksum:
        return None
    return Frame(base + at, base + at + frame_bytes(length), seq, payload, flags)


def _next_frame(data: bytes, damaged: int, *, base: int) -> int:
    """Where the first whole frame after a damaged one begins; the end of the data when there is none."""
    at = damaged
    while (at := data.find(_MARKER, at + 1)) != -1:
        if (base + at) % 8 == 0 and _frame_at(data, at, base=base) is not None:
            return at
    return len(data)
