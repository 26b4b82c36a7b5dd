"""Parts of joined requests as messages, and what waits of them as messages of a compacted topic.

A part is a message of the joins topic, keyed by pipeline and request id, so that all parts of a request lie on one
partition. What waits is kept in the partition of the same number of the topic `join-checkpoints`: key `[pipeline,
request id]` (JSON) a request, key `[pipeline, request id, port]` the part that came over a port, as it came, and key
`@position` the next offset to read and how far each stream has come. MessagePack.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec

from govern import record as records
from govern.bus.protocol import Message, Outgoing
from govern.errors import BadInput
from govern.record import Inference
from govern.runtime.chained.joins import JoinKey, Part, Waiting

FORMAT_VERSION: Final = 1
POSITION_KEY: Final = b"@position"
_FIX: Final = "run the release that wrote it, or delete the topic: what waits is given up then"


class PartState(msgspec.Struct, frozen=True, kw_only=True):
    """A part on its way.

    Attributes:
        time_ns: when what it is made of happened.
        lane: of the message that it is made of.
        record: the inference as the pipeline is given it; empty for a trigger, of which only that it came counts.
    """

    format_version: int
    pipeline: str
    request_id: str
    port: int
    time_ns: int
    lane: int
    record: bytes

    @property
    def inference(self) -> Inference:
        return records.decode(Inference, self.record)


class WaitingState(msgspec.Struct, frozen=True, kw_only=True):
    """A request; `ports` in the order in which their parts came."""

    format_version: int
    first_ns: int
    since_ns: int
    ports: list[int]
    done: bool


class PositionState(msgspec.Struct, frozen=True, kw_only=True):
    """Where a partition stands."""

    format_version: int
    offset: int
    progress: dict[str, dict[int, int]]


def to_message(part: PartState) -> Outgoing:
    return Outgoing(key=request_key(JoinKey(part.pipeline, part.request_id)), value=msgspec.msgpack.encode(part))


def of_message(message: Message) -> Part:
    """The part that a message carries; its body is the message's.

    Raises:
        BadInput: the message carries none.
    """
    body = message.value or b""
    state = decode_part(body)
    key = JoinKey(state.pipeline, state.request_id)
    return Part(key, state.port, state.time_ns, message.timestamp_ms * 1_000_000, body)


def decode_part(body: bytes) -> PartState:
    """
    Raises:
        BadInput: the bytes are no part of this format version.
    """
    return _decode(body, PartState, "part of a joined request")


def request_key(key: JoinKey) -> bytes:
    return msgspec.json.encode(key)


def part_key(key: JoinKey, port: int) -> bytes:
    return msgspec.json.encode((*key, port))


def encode_waiting(one: Waiting) -> bytes:
    state = WaitingState(
        format_version=FORMAT_VERSION,
        first_ns=one.first_ns,
        since_ns=one.since_ns,
        ports=list(one.bodies),
        done=one.done,
    )
    return msgspec.msgpack.encode(state)


def encode_position(offset: int, progress: Mapping[str, Mapping[int, int]]) -> bytes:
    plain = {name: dict(ports) for name, ports in progress.items()}
    return msgspec.msgpack.encode(PositionState(format_version=FORMAT_VERSION, offset=offset, progress=plain))


def decode_table(table: Mapping[bytes, bytes]) -> tuple[dict[JoinKey, Waiting], PositionState | None]:
    """What waits, and where the partition stands; None for one that was never read.

    Raises:
        BadInput: it is of another format version, or no such table.
    """
    waiting: dict[JoinKey, Waiting] = {}
    position = None
    for raw, value in table.items():
        if raw == POSITION_KEY:
            position = _decode(value, PositionState, "position")
            continue
        names = _names(raw)
        if len(names) > 2:
            continue
        key, state = JoinKey(*names), _decode(value, WaitingState, "request that waits")
        bodies = {port: table[part_key(key, port)] for port in state.ports}
        waiting[key] = Waiting(state.first_ns, state.since_ns, bodies, state.done)
    return waiting, position


def _names(raw: bytes) -> tuple[str, ...]:
    try:
        found = msgspec.json.decode(raw, type=list[str | int])
    except msgspec.MsgspecError as error:
        raise BadInput("key of a joins' checkpoint cannot be read", why=str(error), fix=_FIX) from error
    return tuple(str(one) for one in found)


S = TypeVar("S", PartState, WaitingState, PositionState)


def _decode(data: bytes, kind: type[S], noun: str) -> S:
    try:
        state = msgspec.msgpack.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise BadInput(f"{noun} cannot be read", why=str(error), fix=_FIX) from error
    if state.format_version != FORMAT_VERSION:
        why = f"this release reads version {FORMAT_VERSION}"
        raise BadInput(f"{noun} has format_version {state.format_version}", why=why, fix=_FIX)
    return state
