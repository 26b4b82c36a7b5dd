"""The sink's HTTP side, an ASGI application: events by POST to any path, `/healthz`, `/metrics`.

| answer | when |
| --- | --- |
| 202 | the half is safe, or was delivered before, or is of a type that is not recorded (which is counted) |
| 400 | no CloudEvent: the problem document names the attribute |
| 413 | longer than `sink.event_bytes` |
| 503, `Retry-After` | there is no room now: nothing was taken |
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Final

import msgspec
from prometheus_client import CollectorRegistry, make_asgi_app

from govern.errors import BadInput, GovernError
from govern.mirror.asgi import Receive, Scope, Send
from govern.mirror.body import Body, Headers, Hold
from govern.mirror.sampling import Fate
from govern.mirror.sink.event import (
    BATCH,
    STRUCTURED,
    Attributes,
    Event,
    batched_events,
    binary_attributes,
    structured_event,
)
from govern.mirror.sink.half import Half, Heading, half_of, heading_of
from govern.mirror.sink.inference import encoding_of, feedback_of, unpacked
from govern.mirror.sink.sink import Busy, Sink
from govern.record import Payload
from govern.telemetry.metrics import labels

_log: Final = logging.getLogger(__name__)

#: When the broker is to come back: room is made within a second or two, or not soon.
_RETRY_AFTER_S: Final = 2


class TooLong(BadInput):
    """An event longer than the sink reads."""

    code = "event-too-long"
    http_status = 413


class _Gone(Exception):
    """The client left before its event was whole."""


class SinkApp:
    """Serves one sink.

    Args:
        registry: what `/metrics` shows.
    """

    def __init__(self, sink: Sink, registry: CollectorRegistry) -> None:
        self._sink = sink
        self._limit = sink.config.sink.event_bytes
        self._hold = Hold(sink.config.sink.buffer_bytes)
        self._metrics_page = make_asgi_app(registry)
        own = labels(namespace=sink.config.namespace)
        self._refused = sink.metrics.sink_refused.labels(*own)
        self._malformed = sink.metrics.sink_malformed.labels(*own)
        self._ignored = sink.metrics.sink_ignored.labels(*own)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http", "the server is told to offer nothing else"
        if scope["method"] == "POST":
            await self._event(scope, receive, send)
        elif scope["path"] == "/metrics":
            await self._metrics_page(scope, receive, send)
        elif scope["path"] == "/healthz":
            reason = self._sink.unwell()
            await _answer(send, 503 if reason else 200, f"{reason or 'ok'}\n".encode(), b"text/plain; charset=utf-8")
        else:
            await _answer(send, 405, b"events come by POST; try also /healthz or /metrics\n", b"text/plain", allow=True)

    async def _event(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {bytes(name): bytes(value) for name, value in scope["headers"]}
        try:
            media = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
            if media in (STRUCTURED, BATCH):
                halves = await self._enveloped(headers, receive, batch=media == BATCH)
            else:
                halves = await self._binary(headers, receive)
            for half in halves:
                self._sink.accept(half)
        except _Gone:
            return
        except Busy as error:
            self._refused.inc()
            await _problem(send, error)
        except BadInput as error:
            self._malformed.inc()
            await _problem(send, error)
        except GovernError as error:
            _log.exception("an event could not be taken")
            await _problem(send, error)
        else:
            await _answer(send, 202)

    async def _binary(self, headers: Headers, receive: Receive) -> list[Half]:
        heading = self._heading(binary_attributes(headers), headers)
        if heading is None or (heading.side != "feedback" and self._left_out(heading)):
            async for _ in self._body(receive):
                pass
            return [] if heading is None else [half_of(heading, Payload(), cut=False, left_out=True)]
        if heading.side == "feedback":
            return [self._feedback(heading, await self._whole(headers, receive))]
        limit = self._sink.config.body_bytes
        body = Body(limit)
        with self._held(min(limit, _length(headers, limit))):
            async for piece in self._body(receive):
                body.feed(piece)
            return [self._half(heading, body)]

    async def _enveloped(self, headers: Headers, receive: Receive, *, batch: bool) -> list[Half]:
        data = unpacked(await self._whole(headers, receive), self._limit)
        events = batched_events(data) if batch else [structured_event(data)]
        found = (self._of_event(event, headers) for event in events)
        return [half for half in found if half is not None]

    def _of_event(self, event: Event, headers: Headers) -> Half | None:
        # What the envelope is sent as is nothing that its data are.
        outside = {name: value for name, value in headers.items() if name != b"content-encoding"}
        heading = self._heading(event.attributes, outside)
        if heading is None:
            return None
        if heading.side == "feedback":
            return self._feedback(heading, event.data)
        if self._left_out(heading):
            return half_of(heading, Payload(), cut=False, left_out=True)
        body = Body(self._sink.config.body_bytes)
        body.feed(event.data)
        return self._half(heading, body)

    def _heading(self, attributes: Attributes, headers: Headers) -> Heading | None:
        heading = heading_of(attributes, headers, self._sink.config, now_ns=self._sink.now_ns())
        if heading is None:
            self._ignored.inc()
        return heading

    def _left_out(self, heading: Heading) -> bool:
        shares = self._sink.rules.shares(heading.service, heading.model)
        return shares.fate(heading.join_id) is Fate.LEFT_OUT

    def _half(self, heading: Heading, body: Body) -> Half:
        payload = body.payload(heading.seen, self._sink.rules.kept_headers)
        coded = msgspec.structs.replace(payload, content_encoding=encoding_of(payload.content_encoding, payload.body))
        return half_of(heading, coded, cut=body.cut, left_out=False)

    def _feedback(self, heading: Heading, data: bytes) -> Half:
        feedback = feedback_of(heading, unpacked(data, self._limit), self._sink.config.namespace)
        return half_of(heading, Payload(body=msgspec.msgpack.encode(feedback)), cut=False, left_out=False)

    async def _whole(self, headers: Headers, receive: Receive) -> bytes:
        with self._held(min(self._limit, _length(headers, self._limit))):
            return b"".join([piece async for piece in self._body(receive)])

    async def _body(self, receive: Receive) -> AsyncIterator[bytes]:
        size = 0
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            piece = message.get("body", b"")
            more = message.get("more_body", False)
            size += len(piece)
            if size > self._limit:
                raise TooLong(
                    f"an event of more than {self._limit} bytes",
                    why="longer ones are not read (sink.event_bytes)",
                    fix="raise sink.event_bytes, or have the logger leave such bodies out",
                )
            yield piece

    @contextmanager
    def _held(self, size: int) -> Iterator[None]:
        """Room in memory for what is being read."""
        if not self._hold.take(size):
            raise Busy(
                "the sink takes no event now",
                why="the events that are being read take all of sink.buffer_bytes",
                fix="let the broker deliver it again; if it lasts, raise sink.buffer_bytes",
            )
        try:
            yield
        finally:
            self._hold.give_back(size)


def _length(headers: Headers, otherwise: int) -> int:
    value = headers.get(b"content-length", b"")
    return int(value) if value.isdigit() else otherwise


async def _answer(
    send: Send, status: int, body: bytes = b"", content_type: bytes = b"", *, retry: bool = False, allow: bool = False
) -> None:
    headers = [(b"content-length", str(len(body)).encode())]
    if content_type:
        headers.append((b"content-type", content_type))
    if retry:
        headers.append((b"retry-after", str(_RETRY_AFTER_S).encode()))
    if allow:
        headers.append((b"allow", b"POST"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _problem(send: Send, error: GovernError) -> None:
    """The error as RFC 9457 says."""
    document = {
        "type": f"urn:govern:error:{error.code}",
        "title": error.what,
        "status": error.http_status,
        "detail": error.why,
        "fix": error.fix,
    }
    body = json.dumps(document).encode()
    await _answer(send, error.http_status, body, b"application/problem+json", retry=error.http_status == 503)
