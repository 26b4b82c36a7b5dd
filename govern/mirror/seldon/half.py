"""One message of Seldon Core v2 as half of an inference. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec
from google.protobuf.message import DecodeError as ProtobufError

from govern.bus.protocol import Message, Partition
from govern.codecs import open_inference_pb2 as oip
from govern.mirror.body import Body, Headers, text
from govern.mirror.config import MirrorConfig
from govern.mirror.join import Side
from govern.mirror.seen import is_synthetic
from govern.mirror.seldon.topics import Kind, Stream
from govern.record import Payload

#: `0x00`, four bytes of schema id, one byte of message index. No protobuf message and no JSON begins with 0x00.
_PREAMBLE_BYTES: Final = 6
#: Bounds on what a message can put into a record beside its body, as for captures over HTTP.
_ID_BYTES_MAX: Final = 1024
_NAME_BYTES_MAX: Final = 253
_ERROR_BYTES_MAX: Final = 2048
_PARENT_BYTES_MAX: Final = 256

_ERROR: Final = b"seldon-pipeline-errors"


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
        config: with the rules that were in force when the inference began; its two halves have the same.
        t_ms: when Kafka or the producer stamped it, milliseconds since the Unix epoch.
        payload: the captured body; its first bytes when `cut`.
        protocol: as the record names it.
        revision: of the model (as the response names it) or of the pipeline.
        error: what a failed step said.
        named: whether the message carried a request id; else the key's is made from its origin.
    """

    key: JoinKey
    side: Side
    config: MirrorConfig
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
    synthetic: bool

    @property
    def n_bytes(self) -> int:
        return len(self.payload.body)


def headers_of(message: Message) -> Headers:
    """The headers by lower-case name; of a repeated one the last, as Seldon appends what it adds."""
    return {name.lower().encode(): value for name, value in message.headers if value is not None}


def key_of(message: Message, stream: Stream, headers: Headers) -> tuple[JoinKey, bool]:
    """The join key, and whether the message names a request id."""
    named = headers.get(b"x-request-id") or message.key.rpartition(b".")[2]
    request_id = named or f"{message.topic}/{message.partition}/{message.offset}".encode()
    name = stream.name or text(headers.get(_ERROR, b""), _NAME_BYTES_MAX)
    pipeline = stream.name if stream.kind == "pipeline" else text(headers.get(b"pipeline", b""), _NAME_BYTES_MAX)
    return JoinKey(stream.kind, name, pipeline, text(request_id, _ID_BYTES_MAX)), bool(named)


def half_of(
    message: Message,
    stream: Stream,
    key: JoinKey,
    headers: Headers,
    config: MirrorConfig,
    *,
    named: bool,
    left_out: bool = False,
    kept_headers: Sequence[bytes] = (),
) -> Half:
    """The half that a message is.

    Args:
        config: with the rules that the inference began with.
        left_out: it is joined to be counted only: nothing of its body is kept.
        kept_headers: those that go into the record.
    """
    value = message.value or b""
    if value[:1] == b"\0":
        value = value[_PREAMBLE_BYTES:]
    is_json = headers.get(b"seldon-infer-type", b"").startswith(b"json/")
    failed = headers.get(_ERROR)
    content_type, protocol = (b"application/json", "v2") if is_json else (b"application/protobuf", "v2-grpc")
    error = ""
    if failed is not None:
        content_type, protocol = b"text/plain", ""
        error = text(b"%b failed: %b" % (failed or b"a step", value[:_ERROR_BYTES_MAX]), _ERROR_BYTES_MAX)
    body = Body(0 if left_out else config.body_bytes)
    body.feed(value)
    return Half(
        key=key,
        side=stream.side,
        config=config,
        origin=message.tp,
        offset=message.offset,
        t_ms=message.timestamp_ms,
        payload=body.payload({**headers, b"content-type": content_type, b"content-encoding": b""}, kept_headers),
        cut=body.cut,
        protocol=protocol,
        revision=_revision(value, stream, headers, is_json=is_json, failed=failed is not None),
        traceparent=text(headers.get(b"traceparent", b""), _PARENT_BYTES_MAX),
        error=error,
        named=named,
        synthetic=is_synthetic(headers),
    )


class _Versioned(msgspec.Struct):
    model_version: str | None = None


def _revision(value: bytes, stream: Stream, headers: Headers, *, is_json: bool, failed: bool) -> str:
    """The pipeline's version as its header says; a model's as its answer says (a body that is none says nothing)."""
    if stream.kind == "pipeline":
        return text(headers.get(b"x-pipeline-version", b""), _NAME_BYTES_MAX)
    if stream.side == "request" or failed:
        return ""
    try:
        if is_json:
            version = msgspec.json.decode(value, type=_Versioned).model_version or ""
        else:
            version = oip.ModelInferResponse.FromString(value).model_version
    except (msgspec.DecodeError, ProtobufError):
        return ""
    return text(version.encode(), _NAME_BYTES_MAX)
