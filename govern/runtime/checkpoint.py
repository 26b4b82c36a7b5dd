"""Checkpoints: the open windows of one partition as messages of a compacted topic.

Key `[pipeline, step, revision, endpoint, chunk, piece]` (JSON): a piece of the bytes of some rows of that step's open
window. A full chunk is written once and never again, so what a commit costs does not grow with the window; a chunk of
wide rows is cut into pieces, so that no message grows past what a broker takes. Of a window that slides, chunks say
which rows they hold, and a number is used again when the window has left its rows behind. Chunks below 0, cut likewise,
hold no rows but what the step's detector remembers of the windows before, if it is one that remembers
(`govern.runtime.memory`). Key `@position`: the next offset to read, what was lost in the open windows, and what the
partition knows of its capture agents. Key `@track/<pipeline>`: the same of a pipeline that has come less far than the
others, or farther. All of them are published in the transaction that carries the verdicts and offsets. MessagePack;
arrays as little-endian bytes with their dtype and shape. Workers of a placement write `<placement>/` before each key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from govern.errors import BadInput
from govern.frame import Frame
from govern.runtime.rolling import Slide
from govern.runtime.windows import Rows
from govern.schema import FeatureSchema

FORMAT_VERSION: Final = 1
POSITION_KEY: Final = b"@position"
_TRACK: Final = b"@track/"
#: Rows of a chunk. At 20 numeric features it is 70 kB and one piece; at 1,000 it is 2 MB and five.
CHUNK_ROWS: Final = 256
#: The number of the chunk that holds what the step's detector remembers; those below it: what it did on past days.
MEMORY: Final = -1
#: Half of what a broker takes in one message (MAX_MESSAGE_BYTES), whatever the key's names add.
PIECE_BYTES: Final = 512 * 1024
_FIX: Final = "run the release that wrote it, or delete the checkpoints topic to start with empty windows"


class Array(msgspec.Struct, frozen=True):
    """A numeric array: dtype as numpy spells it, shape, C-ordered bytes."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    @classmethod
    def of(cls, values: npt.NDArray[np.generic]) -> Array:
        plain = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
        return cls(plain.dtype.str, plain.shape, plain.tobytes())

    def array(self) -> npt.NDArray[Any]:
        return np.frombuffer(self.data, dtype=np.dtype(self.dtype)).reshape(self.shape)


class ChunkState(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of an open window. `columns` holds an `Array` for each feature, or a list of texts.

    Attributes:
        collected_for: `govern.runtime.plans.fingerprint` of the step that collected them; "" in older checkpoints.
        slide: of a window that slides.
    """

    format_version: int
    schema_digest: str
    columns: list[Array | list[str | None]]
    instance_ids: list[str]
    unseen: dict[str, dict[int, str]]
    outputs: dict[str, Array]
    offsets: Array
    positions: Array
    times: Array
    request_ids: list[str]
    traceparents: list[str]
    collected_for: str = ""
    slide: Slide | None = None


class MemoryState(msgspec.Struct, frozen=True, kw_only=True):
    """What a detector remembers of a stream, as its `pack` gave it.

    Attributes:
        collected_for: as in `ChunkState`.
        anchored: the newest day, since the epoch, of which a memory of its own is kept.
    """

    format_version: int
    collected_for: str
    anchored: int
    packed: bytes


class PartitionState(msgspec.Struct, frozen=True, kw_only=True):
    """Where a partition stands.

    Attributes:
        offset: the next offset to read.
        lost: window key -> instances known to be lost since that window opened.
        dropped: capture agent -> records it had dropped when it was last heard of.
    """

    format_version: int
    offset: int
    lost: dict[str, int]
    dropped: dict[str, int]


class WindowKey(NamedTuple):
    """Which open window: a step has one for each revision and endpoint of the model it watches."""

    pipeline: str
    step: str
    revision: str
    endpoint: str

    @property
    def text(self) -> str:
        return msgspec.json.encode(self).decode()

    def chunk(self, number: int, piece: int) -> bytes:
        return msgspec.json.encode((*self, number, piece))


def placed(key: bytes, placement: str) -> bytes:
    """A key as the workers of a placement write it, which share the topic with those of others."""
    return f"{placement}/".encode() + key if placement else key


def of_placement(table: Mapping[bytes, bytes], placement: str) -> dict[bytes, bytes]:
    """The entries that the workers of a placement wrote, under their own keys."""
    found = ((*split_placement(key), value) for key, value in table.items())
    return {key: value for where, key, value in found if where == placement}


def split_placement(key: bytes) -> tuple[str, bytes]:
    """The placement whose workers wrote a key, and the key as it is without: a name begins with neither `[` nor `@`."""
    if key[:1] in (b"[", b"@"):
        return "", key
    placement, _, own = key.partition(b"/")
    return placement.decode(), own


def pieces(data: bytes) -> list[bytes]:
    """A chunk's bytes as messages carry them, in order."""
    return [data[start : start + PIECE_BYTES] for start in range(0, len(data), PIECE_BYTES)]


def joined(pieces: Mapping[int, bytes]) -> bytes:
    """What `pieces` cut."""
    return b"".join(pieces[number] for number in sorted(pieces))


def parse_chunk_key(data: bytes) -> tuple[WindowKey, int, int]:
    """The window, the number of the chunk and that of its piece, which a message's key names.

    Raises:
        BadInput: it is no such key.
    """
    try:
        *names, number, piece = msgspec.json.decode(data, type=tuple[str, str, str, str, int, int])
    except msgspec.MsgspecError as error:
        raise BadInput("key of a checkpoint cannot be read", why=str(error), fix=_FIX) from error
    return WindowKey(*names), number, piece


def track_key(pipeline: str) -> bytes:
    """Where a pipeline stands that has a place of its own."""
    return _TRACK + pipeline.encode()


def parse_track_key(data: bytes) -> str | None:
    """The pipeline whose place a message's key names, None where it names none."""
    return data.removeprefix(_TRACK).decode() if data.startswith(_TRACK) else None


def parse_window_text(text: str) -> WindowKey:
    return msgspec.json.decode(text, type=WindowKey)


def encode_chunk(rows: Rows, *, collected_for: str = "", slide: Slide | None = None) -> bytes:
    frame = rows.frame
    return msgspec.msgpack.encode(
        ChunkState(
            format_version=FORMAT_VERSION,
            schema_digest=frame.schema.digest,
            columns=[column.tolist() if column.dtype == object else Array.of(column) for column in frame.columns],
            instance_ids=list(frame.instance_ids),
            unseen={name: dict(values) for name, values in frame.unseen.items()},
            outputs={name: Array.of(values) for name, values in frame.outputs.items()},
            offsets=Array.of(rows.offsets),
            positions=Array.of(rows.positions),
            times=Array.of(rows.times),
            request_ids=list(rows.request_ids),
            traceparents=list(rows.traceparents),
            collected_for=collected_for,
            slide=slide,
        )
    )


def decode_chunk(data: bytes, schema: FeatureSchema, *, collected_for: str = "") -> Rows | int:
    """The rows of a chunk; or, when they follow another schema or were collected for another step than the one of this
    fingerprint, and cannot be judged any more, how many they were.

    Raises:
        BadInput: the bytes are no checkpoint of this format version.
    """
    state = decode_versioned(data, ChunkState, "window")
    others = collected_for and state.collected_for and state.collected_for != collected_for
    if others or state.schema_digest != schema.digest:
        return len(state.instance_ids)
    frame = Frame(
        schema=schema,
        columns=tuple(
            column.array() if isinstance(column, Array) else np.array(column, dtype=object) for column in state.columns
        ),
        instance_ids=tuple(state.instance_ids),
        unseen=state.unseen,
        outputs={name: values.array() for name, values in state.outputs.items()},
    )
    return Rows(
        frame=frame,
        offsets=state.offsets.array(),
        positions=state.positions.array(),
        times=state.times.array(),
        request_ids=tuple(state.request_ids),
        traceparents=tuple(state.traceparents),
    )


def slide_of(data: bytes) -> Slide | None:
    """Of the rows of a chunk that `decode_chunk` has read; None where their window tumbles."""
    return msgspec.msgpack.decode(data, type=_Sliding).slide


def encode_memory(packed: bytes, *, collected_for: str, anchored: int) -> bytes:
    return msgspec.msgpack.encode(
        MemoryState(format_version=FORMAT_VERSION, collected_for=collected_for, anchored=anchored, packed=packed)
    )


def decode_memory(data: bytes) -> MemoryState:
    """What a detector had packed.

    Raises:
        BadInput: the bytes are no checkpoint of this format version.
    """
    return decode_versioned(data, MemoryState, "memory")


def encode_partition(offset: int, lost: dict[str, int], dropped: dict[str, int]) -> bytes:
    return msgspec.msgpack.encode(
        PartitionState(format_version=FORMAT_VERSION, offset=offset, lost=lost, dropped=dropped)
    )


def decode_partition(data: bytes) -> PartitionState:
    """Where the partition stood.

    Raises:
        BadInput: the bytes are no checkpoint of this format version.
    """
    return decode_versioned(data, PartitionState, "partition")


S = TypeVar("S", bound=msgspec.Struct)


class _Versioned(msgspec.Struct):
    format_version: int


class _Sliding(msgspec.Struct):
    slide: Slide | None = None


def decode_versioned(data: bytes, kind: type[S], noun: str) -> S:
    """A value of the checkpoint.

    Raises:
        BadInput: the bytes are none of this format version.
    """
    try:
        version = msgspec.msgpack.decode(data, type=_Versioned).format_version
        if version != FORMAT_VERSION:
            raise BadInput(
                f"checkpoint of a {noun} has format_version {version}",
                why=f"this release reads version {FORMAT_VERSION}",
                fix=_FIX,
            )
        return msgspec.msgpack.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise BadInput(f"checkpoint of a {noun} cannot be read", why=str(error), fix=_FIX) from error
