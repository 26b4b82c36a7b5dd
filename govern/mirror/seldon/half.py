"""One message of Seldon Core v2 as half of an inference. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec
from google.protobuf.message import DecodeError as ProtobufError

from govern.bus.protocol import Message, Partition
from govern.codecs import open_inference_pb2 as oip
from govern.mirror.join import Side
from govern.mirror.seldon.topics import Kind, Stream
from govern.record import Payload

#: `0x00`, four bytes of schema id, one byte of message index. No protobuf message and no JSON begins with 0x00.
_PREAMBLE_BYTES: Final = 6
#: Bounds on what a message can put into a record beside its body, as for captures over HTTP.
_ID_CHARS_MAX: Final = 1024
_NAME_CHARS_MAX: Final = 253
_ERROR_CHARS_MAX: Final = 2048
_HEADERS_CHARS_MAX: Final = 2048

ERROR_HEADER: Final = "seldon-pipeline-errors"


class JoinKey(NamedTuple):
    """What the two halves of one inference have in common."""

    kind: Kind
    name: str
    pipeline: str
    request_id: str


@dataclass(frozen=True, slots=True)
class Half:
    """A request or a response.

    Attributes:
        origin: where the message lies; with the topic's name it is what makes ids stable.
        t_ms: when Kafka or the producer stamped it, milliseconds since the Unix epoch.
        payload: the captured body; its first bytes when `cut`.
        protocol: as the record names it.
        revision: of the model (as the response names it) or of the pipeline.
        error: what a failed step said.
        named: whether the message carried a request id; else the key's is made from its origin.
    """

    key: JoinKey
    side: Side
    origin: Partition
    offset: int
    t_ms: int
    payload: Payload
    cut: bool
    protocol: str
    revision: str
    traceparent: str
    error: str
    named: bool
    synthetic: bool = False

    @property
    def n_bytes(self) -> int:
        return len(self.payload.body)


def key_of(message: Message, stream: Stream, headers: dict[str, str]) -> tuple[JoinKey, bool]:
    """The join key, and whether the message names a request id."""
    request_id = headers.get("x-request-id") or message.key.decode("utf-8", "replace").rpartition(".")[2]
    named = bool(request_id)
    if not named:
        request_id = f"{message.topic}/{message.partition}/{message.offset}"
    name = stream.name or headers.get(ERROR_HEADER, "")
    pipeline = stream.name if stream.kind == "pipeline" else headers.get("pipeline", "")
    return JoinKey(stream.kind, name[:_NAME_CHARS_MAX], pipeline[:_NAME_CHARS_MAX], request_id[:_ID_CHARS_MAX]), named


def headers_of(message: Message) -> dict[str, str]:
    """The headers by lower-case name; of a repeated one the last, as Seldon appends what it adds."""
    return {name.lower(): value.decode("utf-8", "replace") for name, value in message.headers if value is not None}


def half_of(
    message: Message,
    stream: Stream,
    key: JoinKey,
    headers: dict[str, str],
    *,
    named: bool,
    body_bytes: int,
    kept_headers: tuple[str, ...] = (),
) -> Half:
    """The half that a message is.

    Args:
        body_bytes: longest prefix of the body to keep; 0 keeps none.
        kept_headers: those that go into the record.
    """
    value = message.value or b""
    if value[:1] == b"\0":
        value = value[_PREAMBLE_BYTES:]
    failed = ERROR_HEADER in headers
    is_json = headers.get("seldon-infer-type", "").startswith("json/")
    error = ""
    if failed:
        content_type, protocol = "text/plain", ""
        text = value[: 4 * _ERROR_CHARS_MAX].decode("utf-8", "replace")
        error = f"{headers[ERROR_HEADER] or 'a step'} failed: {text}"[:_ERROR_CHARS_MAX]
    else:
        content_type, protocol = ("application/json", "v2") if is_json else ("application/protobuf", "v2-grpc")
    return Half(
        key=key,
        side=stream.side,
        origin=message.tp,
        offset=message.offset,
        t_ms=message.timestamp_ms,
        payload=Payload(
            content_type=content_type,
            body=value[:body_bytes],
            size=len(value),
            sha256=hashlib.sha256(value).hexdigest(),
            headers=_kept(headers, kept_headers),
        ),
        cut=len(value) > body_bytes,
        protocol=protocol,
        revision=_revision(value, stream, headers, is_json=is_json, failed=failed)[:_NAME_CHARS_MAX],
        traceparent=headers.get("traceparent", ""),
        error=error,
        named=named,
        synthetic=headers.get("govern-synthetic") == "1" or headers.get("seldon-skip-logging", "").lower() == "true",
    )


class _Versioned(msgspec.Struct):
    model_version: str | None = None


def _revision(value: bytes, stream: Stream, headers: dict[str, str], *, is_json: bool, failed: bool) -> str:
    """The pipeline's version as its header says; a model's as its answer says (a body that is none says nothing)."""
    if stream.kind == "pipeline":
        return headers.get("x-pipeline-version", "")
    if stream.side == "request" or failed:
        return ""
    try:
        if is_json:
            return msgspec.json.decode(value, type=_Versioned).model_version or ""
        return oip.ModelInferResponse.FromString(value).model_version
    except (msgspec.DecodeError, ProtobufError):
        return ""


def _kept(headers: dict[str, str], names: tuple[str, ...]) -> dict[str, str]:
    """The headers that a record keeps; one that finds no room is left out, since a part of it would mislead."""
    kept: dict[str, str] = {}
    room = _HEADERS_CHARS_MAX
    for name in names:
        value = headers.get(name)
        if value is not None and len(name) + len(value) <= room:
            kept[name] = value
            room -= len(name) + len(value)
    return kept
