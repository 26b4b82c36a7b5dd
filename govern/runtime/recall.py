"""What detectors remembered before past windows: found by going through the windows before them, once more. Pure.

A verdict names by digest what was remembered before its window, so a memory is taken for the one that it rests on only
when it is that. It is the detector's first one, one that the checkpoint still has, or that after the window before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from govern.bus.protocol import Message
from govern.detection import Detector, StatefulDetector, remembers
from govern.errors import BadInput
from govern.record import Verdict
from govern.runtime import checkpoint
from govern.runtime.checkpoint import WindowKey
from govern.runtime.loader import LoadedPipeline
from govern.runtime.memory import Memory, known


class Line(NamedTuple):
    """The windows that one memory goes through."""

    topic: str
    partition: int
    pipeline: str
    step: str
    revision: str
    endpoint: str
    detector_digest: str

    @classmethod
    def of(cls, verdict: Verdict) -> Line:
        where = verdict.window
        stream = verdict.pipeline, verdict.step, verdict.revision, verdict.endpoint
        return cls(where.topic, where.partition, *stream, verdict.detector_digest)


def place(verdict: Verdict) -> tuple[str, int, int, int]:
    """By which verdicts are in the order of their windows."""
    where = verdict.window
    return where.topic, where.partition, where.first_offset, where.first_row


class Passed(NamedTuple):
    """A window that was gone through: where it lies, and what was remembered before and after it."""

    place: tuple[str, int, int, int]
    before: Memory | None
    after: Memory


class Recall:
    """
    Args:
        stored: memories by their digests, as checkpoints have them.
    """

    def __init__(self, stored: Mapping[str, bytes] = MappingProxyType({})) -> None:
        self._stored = stored
        self._newest: dict[Line, Passed] = {}

    def carried(self, verdict: Verdict) -> Memory | None:
        """What the window before gave, whether or not the verdict rests on it."""
        newest = self._newest.get(Line.of(verdict))
        if newest is None:
            return None
        # A window may have a second verdict: an altered one.
        return newest.before if newest.place == place(verdict) else newest.after

    def before(self, verdict: Verdict, detector: StatefulDetector, carried: Memory | None) -> Memory | None:
        """What the verdict rests on; None when nothing gives it any more.

        Args:
            carried: what the window before it gave.
        """
        digest = verdict.memory_digest
        if carried is not None and carried.digest == digest:
            return carried
        if digest in self._stored:
            return known(self._stored[digest], detector)
        first = known(None, detector)
        return first if first.digest == digest else None

    def passed(self, verdict: Verdict, before: Memory | None, after: Memory) -> None:
        """The window was judged."""
        self._newest[Line.of(verdict)] = Passed(place(verdict), before, after)

    def lose(self, verdict: Verdict) -> None:
        """The window cannot be judged any more, so what was remembered after it is not known."""
        self._newest.pop(Line.of(verdict), None)


class Way:
    """The verdicts of one line up to the last of those that are asked for, and where to begin with them.

    Args:
        verdicts: in the order of their windows.
        asked: their ids.
        kept_from: the offset at which the partition begins by now.
        first: digest of what the detector remembers before its first window.
    """

    def __init__(self, verdicts: Sequence[Verdict], asked: frozenset[str], *, kept_from: int, first: str) -> None:
        readable = [one for one in verdicts if one.window.first_offset >= kept_from]
        self._verdicts = readable
        self._target = next((i for i, one in enumerate(readable) if one.id in asked), len(readable))
        self._at = {one.memory_digest: i for i, one in enumerate(readable)}
        self._stored: tuple[str, bytes] | None = None
        self._begin: int | None = None
        for i, one in enumerate(readable):
            if one.memory_digest == first and self._better(i):
                self._begin = i

    def offer(self, digest: str, packed: bytes) -> None:
        """A memory that a checkpoint has."""
        i = self._at.get(digest)
        if i is not None and self._better(i):
            self._begin, self._stored = i, (digest, packed)

    @property
    def verdicts(self) -> Sequence[Verdict]:
        """Those to go through."""
        return () if self._begin is None else self._verdicts[self._begin :]

    @property
    def stored(self) -> tuple[str, bytes] | None:
        return self._stored

    def _better(self, i: int) -> bool:
        """Whether it is nearer to the first that is asked for, before it if possible."""
        if self._begin is None:
            return True
        if self._begin <= self._target:
            return self._begin < i <= self._target
        return i < self._begin


def remembering(verdict: Verdict, pipelines: Mapping[str, LoadedPipeline]) -> StatefulDetector | None:
    """The detector of today that judged it, if it is one that remembers."""
    loaded = pipelines.get(verdict.pipeline)
    detector: Detector | None = None if loaded is None else loaded.detectors.get(verdict.step)
    if detector is None or detector.digest != verdict.detector_digest or not remembers(detector):
        return None
    return detector


class Stored:
    """The memories that a partition of the checkpoints topic holds, those of past days included, with their digests.

    What compaction has taken a piece of is left out.
    """

    def __init__(self) -> None:
        #: Placement, window and chunk -> the pieces that have come of one memory.
        self._pieces: dict[tuple[str, WindowKey, int], dict[int, bytes]] = {}

    def take(self, messages: Iterable[Message]) -> Iterator[tuple[str, bytes]]:
        """Those that are known to be whole after these messages."""
        for message in messages:
            placement, key = checkpoint.split_placement(message.key)
            if not key.startswith(b"["):
                continue
            window, chunk, piece = checkpoint.parse_chunk_key(key)
            if chunk > checkpoint.MEMORY or message.value is None:
                continue
            name = placement, window, chunk
            if piece == 0:
                yield from _whole(self._pieces.pop(name, {}))
            self._pieces.setdefault(name, {})[piece] = message.value

    def rest(self) -> Iterator[tuple[str, bytes]]:
        """Those that came last."""
        for pieces in self._pieces.values():
            yield from _whole(pieces)


def _whole(pieces: Mapping[int, bytes]) -> Iterator[tuple[str, bytes]]:
    try:
        packed = checkpoint.decode_memory(checkpoint.joined(pieces)).packed
    except BadInput:
        return
    yield hashlib.sha256(packed).hexdigest(), packed
