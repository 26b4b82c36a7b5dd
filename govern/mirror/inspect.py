"""Looking into a spool from outside, while it is in use: for the person on call, and for tests."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from govern.errors import ArtifactError
from govern.mirror import folder
from govern.mirror.agent import AgentInfo, AgentView, Counts
from govern.mirror.segment import HEADER_BYTES, Damage, Frame, Header, SegmentReader

_PIECE_BYTES: Final = 1024 * 1024


class InspectedAgent(NamedTuple):
    info: AgentInfo
    alive: bool
    counts: Counts

    @property
    def counted(self) -> bool:
        """Whether it has a part in the account of inferences."""
        return self.info.stream == "inferences"


class Checked(NamedTuple):
    n_records: int
    damaged: list[Damage]


class InspectedSegment(NamedTuple):
    path: Path
    header: Header

    def frames(self) -> Iterator[Frame | Damage]:
        """What the segment holds up to its `end`, in order.

        Raises:
            OSError: it cannot be read; it may have been shipped and deleted meanwhile.
        """
        with SegmentReader(self.path) as reader:
            at = HEADER_BYTES
            while at < self.header.end:
                piece = reader.frames(at, self.header.end, max_bytes=_PIECE_BYTES)
                yield from piece
                at = piece[-1].stop

    def verify(self) -> Checked:
        """Check every frame's checksum."""
        n_records = 0
        damaged = []
        for item in self.frames():
            if isinstance(item, Damage):
                damaged.append(item)
            else:
                n_records += 1
        return Checked(n_records, damaged)


def inspect_agents(spool_dir: Path) -> list[InspectedAgent]:
    """The agents whose files lie in the folder, by name.

    Raises:
        ArtifactError: one of the files is none of an agent.
    """
    found = []
    for path in sorted(folder.agents(spool_dir)):
        with contextlib.suppress(FileNotFoundError):
            view = AgentView(path)
            found.append(InspectedAgent(view.info, view.alive(), view.counts()))
            view.close()
    return found


def inspect_segments(folders: Sequence[Path]) -> list[InspectedSegment]:
    """The segments in use, by agent and number; those made ahead of need are left out.

    Raises:
        ArtifactError: one of the files is no segment, or of another format version.
    """
    found = []
    for segment in sorted(item for each in folders for item in folder.segments(each)):
        with contextlib.suppress(FileNotFoundError), SegmentReader(segment.path) as reader:
            header = reader.header()
            if header.end > HEADER_BYTES:
                found.append(InspectedSegment(segment.path, header))
    return found


def count_records(path: Path, first_seq: int) -> int:
    """The segment's records from a seq on; 0 when it is gone meanwhile, or cannot be read.

    Raises:
        OSError: the disk fails.
    """
    with contextlib.suppress(FileNotFoundError, ArtifactError), SegmentReader(path) as reader:
        header = reader.header()
        frames = list(InspectedSegment(path, header).frames())
        if not header.sealed:
            frames += reader.beyond(max(header.end, HEADER_BYTES))
        return sum(isinstance(frame, Frame) and frame.seq >= first_seq for frame in frames)
    return 0
