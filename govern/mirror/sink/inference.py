"""Halves as an `Inference`, and an event of feedback as `Feedback`. Pure."""

from __future__ import annotations

import secrets
import zlib
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from govern.ids import uuid7
from govern.mirror.config import MirrorConfig
from govern.mirror.sampling import Shares
from govern.mirror.sink.event import MalformedEvent
from govern.mirror.sink.half import Half, Heading
from govern.record import SCHEMA_VERSION, Capture, Feedback, Inference, Payload

#: Both loggers log answers of this status only.
_OK: Final = 200
GZIP_MAGIC: Final = b"\x1f\x8b"
#: What is kept of a label that is no single value.
_LABEL_CHARS_MAX: Final = 4096


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


class _Message(msgspec.Struct):
    data: Any = None
    strData: str | None = None  # noqa: N815 - Seldon's name
    jsonData: Any = None  # noqa: N815


class _Feedback(msgspec.Struct):
    reward: float | None = None
    truth: _Message | None = None


def feedback_of(heading: Heading, body: bytes, namespace: str) -> Feedback:
    """Seldon's `Feedback` message: `{"request": ..., "response": ..., "reward": 0.9, "truth": {"data": ...}}`.

    Raises:
        MalformedEvent: the body is no such message.
    """
    try:
        message = msgspec.json.decode(body, type=_Feedback)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise MalformedEvent.attribute("data", f"it is no feedback of Seldon's: {error}") from error
    return Feedback(
        schema_version=SCHEMA_VERSION,
        id=heading.key,
        namespace=namespace,
        service=heading.service,
        model=heading.model,
        request_id=heading.request_id,
        label=_label(message.truth),
        reward=message.reward or 0.0,
        t_feedback=heading.t_ns,
    )


def _label(truth: _Message | None) -> str:
    """The truth as text: a single value as it is, more than one as JSON."""
    if truth is None:
        return ""
    found = truth.strData if truth.strData is not None else truth.jsonData
    if isinstance(truth.data, dict):
        tensor = truth.data.get("tensor")
        values = tensor.get("values") if isinstance(tensor, dict) else None
        found = truth.data.get("ndarray", values)
    while isinstance(found, list) and len(found) == 1:
        found = found[0]
    if found is None:
        return ""
    return (found if isinstance(found, str) else msgspec.json.encode(found).decode())[:_LABEL_CHARS_MAX]
