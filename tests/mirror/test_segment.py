"""The spool's files: what was written is read, what is torn or damaged is never taken for a record."""

from __future__ import annotations

import mmap
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from govern.errors import ArtifactError
from govern.mirror import segment as segment_module
from govern.mirror.segment import (
    ENCRYPTED,
    FRAME_BYTES,
    HEADER_BYTES,
    Damage,
    Frame,
    SegmentReader,
    SegmentWriter,
    frame_bytes,
)

SIZE = 16 * 1024
#: Some pieces of what is made present at a time, and more than a kernel maps around a fault.
PAGES_BYTES = 1024 * 1024
payloads = st.lists(st.binary(max_size=600), min_size=1, max_size=12)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.0000000000.seg"


def write(path: Path, data: list[bytes], *, first_seq: int = 0) -> SegmentWriter:
    segment = SegmentWriter(path, agent="pod.1.ab", number=3, size=SIZE)
    segment.begin(first_seq)
    for number, payload in enumerate(data):
        assert segment.append(first_seq + number, payload)
    return segment


def read(path: Path, *, max_bytes: int = 1 << 20) -> list[Frame | Damage]:
    found: list[Frame | Damage] = []
    with SegmentReader(path) as reader:
        end = reader.header().end
        while (found[-1].stop if found else HEADER_BYTES) < end:
            found += reader.frames(found[-1].stop if found else HEADER_BYTES, end, max_bytes=max_bytes)
    return found


@settings(max_examples=60, deadline=None)
@given(data=payloads, first_seq=st.integers(0, 2**40), max_bytes=st.integers(1, 2000))
def test_what_is_appended_is_read_in_pieces_of_any_size(data: list[bytes], first_seq: int, max_bytes: int) -> None:
    with tempfile.TemporaryDirectory() as base:
        path = Path(base) / "s"
        segment = write(path, data, first_seq=first_seq)
        found = read(path, max_bytes=max_bytes)
        segment.close()
    assert [(item.seq, item.payload) for item in found if isinstance(item, Frame)] == [
        (first_seq + number, payload) for number, payload in enumerate(data)
    ]


@settings(max_examples=150, deadline=None)
@given(data=payloads, where=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_flipped_byte_costs_its_own_record_and_no_other(data: list[bytes], where: float, flip: int) -> None:
    with tempfile.TemporaryDirectory() as base:
        path = Path(base) / "s"
        segment = write(path, data)
        segment.close()
        written = bytearray(path.read_bytes())
        with SegmentReader(path) as reader:
            end = reader.header().end
        at = HEADER_BYTES + int(where * (end - HEADER_BYTES))
        written[at] ^= flip
        path.write_bytes(written)
        found = read(path)
    whole = [item for item in found if isinstance(item, Frame)]
    assert all(item.payload == data[item.seq] for item in whole)
    assert len(whole) >= len(data) - 1
    hit = next(
        number for number in range(len(data)) if at < HEADER_BYTES + sum(map(frame_bytes, map(len, data[: number + 1])))
    )
    start = HEADER_BYTES + sum(map(frame_bytes, map(len, data[:hit])))
    if at < start + FRAME_BYTES + len(data[hit]) and not start + 12 <= at < start + 16:  # no padding, no spare field
        assert hit not in [item.seq for item in whole]
        assert [item for item in found if isinstance(item, Damage)]


def test_a_frame_that_a_kill_left_uncounted_is_found_when_whole_and_refused_when_torn(path: Path) -> None:
    segment = write(path, [b"first", b"second"])
    segment.close()
    with SegmentReader(path) as reader:
        end = reader.header().end
    first_stop = HEADER_BYTES + frame_bytes(len(b"first"))
    data = bytearray(path.read_bytes())
    data[32:40] = first_stop.to_bytes(8, "little")  # as if killed before `end` was stored
    path.write_bytes(data)
    with SegmentReader(path) as reader:
        assert [item.payload for item in reader.beyond(first_stop)] == [b"second"]
        assert reader.beyond(end) == []
    for cut in range(first_stop, first_stop + FRAME_BYTES + len(b"second")):
        torn = bytes(data[:cut]) + bytes(SIZE - cut)  # as if killed while the frame was copied
        path.write_bytes(torn)
        with SegmentReader(path) as reader:
            assert reader.beyond(first_stop) == []


def test_a_full_segment_takes_nothing_and_keeps_what_it_has(path: Path) -> None:
    segment = SegmentWriter(path, agent="a", number=0, size=HEADER_BYTES + frame_bytes(100))
    assert segment.append(0, b"x" * 100)
    assert not segment.append(1, b"")
    segment.seal()
    segment.close()
    with SegmentReader(path) as reader:
        assert reader.header().sealed
    assert [item.payload for item in read(path) if isinstance(item, Frame)] == [b"x" * 100]


def test_a_foreign_file_and_another_version_are_refused(path: Path) -> None:
    path.write_bytes(b"not a segment" * 100)
    with pytest.raises(ArtifactError, match="no spool segment"):
        SegmentReader(path)
    path.unlink()
    write(path, [b"x"]).close()
    data = bytearray(path.read_bytes())
    data[8] = 99
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match="version 99"):
        SegmentReader(path)


def test_the_file_is_private_and_of_its_full_size_from_the_start(path: Path) -> None:
    segment = write(path, [b"x"])
    state = path.stat()
    segment.close()
    assert state.st_mode & 0o777 == 0o600
    assert state.st_size == SIZE
    assert state.st_blocks * 512 >= SIZE  # allocated, not sparse: no store can meet a full file system


@pytest.mark.parametrize(("flags", "present"), [(0, 1), (ENCRYPTED, 0)], ids=["memory", "disk"])
def test_a_new_segments_pages_are_there_before_its_first_record_where_they_are_memory(
    spool_dir: Path, flags: int, present: int
) -> None:
    with mmap.mmap(-1, mmap.PAGESIZE) as probe:
        try:
            probe.madvise(segment_module._MADV_POPULATE_WRITE, 0, mmap.PAGESIZE)
        except OSError:
            pytest.skip("this kernel (before Linux 5.14) makes no pages present when asked")
    spool_dir.mkdir(parents=True, exist_ok=True)
    path = spool_dir / "a.0000000000.seg"
    segment = SegmentWriter(path, agent="pod.1.ab", number=3, size=PAGES_BYTES, flags=flags)
    resident = _resident_bytes(path)
    segment.close()
    # Header pages are touched by writing the header; the kernel may map a few around them.
    assert (resident == PAGES_BYTES) if present else (resident < PAGES_BYTES)


def _resident_bytes(path: Path) -> int:
    """How much of a file this process has mapped and present."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    for line in lines:
        if line.endswith(str(path)):
            return next(1024 * int(each.split()[1]) for each in lines if each.startswith("Rss:"))
    raise AssertionError(f"{path} is not mapped")
