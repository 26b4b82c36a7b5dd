"""Halves as an `Inference`, and an event of feedback as `Feedback`. Pure."""

from __future__ import annotations

import secrets
import zlib
from collections.abc import Sequence
from typing import Final

from govern.codecs.seldon_message import decode_feedback
from govern.errors import DecodeError
from govern.ids import uuid7
from govern.mirror.captured import LABEL_CHARS_MAX, SentFeedback
from govern.mirror.config import MirrorConfig
from govern.mirror.sampling import Shares
from govern.mirror.sink.event import MalformedEvent
from govern.mirror.sink.half import Half, Heading
from govern.record import SCHEMA_VERSION, Capture, Inference, Payload

#: Both loggers log answers of this status only.
_OK: Final = 200
GZIP_MAGIC: Final = b"\x1f\x8b"
#: Longest truth that rules of redaction find their way in: that of a whole label has at most four bytes a character.
_TRUTH_BYTES_MAX: Final = 4 * LABEL_CHARS_MAX


def failed(halves: Sequence[Half]) -> bool:
    """Whether sampling is to treat it as an error: an inference without an answer, of which only 200s are logged."""
    return all(half.side != "response" for half in halves)


def inference_of(halves: Sequence[Half], config: MirrorConfig, shares: Shares, capture: Capture) -> Inference:
    """The record of an inference.

    Args:
        halves: one or both, in any order. Where they differ, the request's word counts.
    """
    sides = {half.side: half for half in halves}
    request, response = sides.get("request"), sides.get("response")
    first = request or response
    assert first is not None, "an inference has at least one half"
    missing = "request" if request is None else "response" if response is None else ""
    traceparent = next((half.traceparent for half in (request, response) if half and half.traceparent), "")
    return Inference(
        schema_version=SCHEMA_VERSION,
        id=uuid7(first.t_ns),
        request_id=first.request_id,
        traceparent=traceparent or f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01",
        namespace=config.namespace,
        service=first.service,
        model=first.model,
        revision=first.revision,
        endpoint=first.endpoint,
        protocol=first.protocol,
        t_request=first.t_ns,
        t_response=(response or first).t_ns,
        status_code=_OK if response else 0,
        request=request.payload if request else Payload(),
        response=response.payload if response else Payload(),
        error=f"the {missing} half did not come within {config.sink.join_s:g} s" if missing else "",
        sampling=shares.label(failed=response is None),
        truncated=tuple(half.side for half in (request, response) if half and half.cut),
        synthetic=any(half.synthetic for half in halves),
        capture=capture,
        missing=(missing,) if missing else (),
    )


def encoding_of(declared: str, prefix: bytes) -> str:
    """A body's content coding; Knative strips the header, so gzip is known by its first bytes."""
    return declared or ("gzip" if prefix.startswith(GZIP_MAGIC) else "")


def unpacked(body: bytes, limit: int) -> bytes:
    """A body of JSON, out of gzip if it is in it.

    Raises:
        MalformedEvent: it is no gzip, not all of it, or more than `limit` bytes.
    """
    if not body.startswith(GZIP_MAGIC):
        return body
    opener = zlib.decompressobj(wbits=31)
    try:
        data = opener.decompress(body, limit)
    except zlib.error as error:
        raise MalformedEvent.attribute("data", f"it begins like gzip, and is none: {error}") from error
    if not opener.eof:
        raise MalformedEvent.attribute("data", f"its gzip is cut short, or holds more than {limit} bytes")
    return data


def feedback_of(heading: Heading, body: bytes, namespace: str) -> SentFeedback:
    """Seldon's feedback as a record.

    Raises:
        MalformedEvent: the body is no such message.
    """
    try:
        message = decode_feedback(body)
    except DecodeError as error:
        raise MalformedEvent.attribute("data", f"it is no feedback of Seldon's: {error}") from error
    return SentFeedback(
        schema_version=SCHEMA_VERSION,
        id=heading.key,
        namespace=namespace,
        service=heading.service,
        model=heading.model,
        request_id=heading.request_id or message.puid,
        label=message.truth[:LABEL_CHARS_MAX],
        reward=message.reward,
        t_feedback=heading.t_ns,
        truth=message.truth_json if len(message.truth_json) <= _TRUTH_BYTES_MAX else b"",
    )
