"""One request and its response on their way through the proxy."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Coroutine, Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Final, Protocol

from govern.errors import GovernError, Unavailable
from govern.mirror.recorder import Exchange
from govern.mirror.upstream import UpstreamConnection, UpstreamPool

_log: Final = logging.getLogger(__name__)

#: Methods that may be repeated (RFC 9110 section 9.2.2); an inference may be, too: it changes nothing.
_IDEMPOTENT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"})
#: A pooled connection that dies this soon after a request, without a byte, was being closed by its server already.
_STALE_S: Final = 1.0
#: Requests up to this size are kept until their response begins, to be repeated on a fresh connection.
_REPLAY_BYTES_MAX: Final = 64 * 1024
#: Bytes of a request that may wait for a connection before reading from the client stops.
_WAITING_BYTES_MAX: Final = 64 * 1024
#: When there is no server to send a request to, so much of it is still read, so that the record of the failure holds
#: the whole request with its digest; a client that sends more is answered in the middle of it.
_DRAIN_BYTES_MAX: Final = 16 * 1024 * 1024
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
_NO_FIELDS: Final[Mapping[bytes, bytes]] = MappingProxyType({})
#: What the record says of an exchange whose client did not wait for its end.
_GONE: Final = "the client closed the connection before the response was complete"


class Client(Protocol):
    """The connection that a turn belongs to."""

    transport: asyncio.Transport
    write_paused: bool

    def spawn(self, work: Coroutine[object, object, None]) -> None: ...

    def update_reading(self) -> None: ...

    def switch(self) -> None:
        """From now on, bytes from the client go to the upstream as they are."""
        ...

    def turn_over(self, turn: ProxyTurn, *, keep_alive: bool) -> None: ...


class ProxyTurn:
    """Relays one exchange. Its client feeds it the request, its upstream connection the response.

    Args:
        keep_alive: whether the client wants the connection kept.
        exchange: the capture of it; None when it is no inference.
        upgrade: whether the request asks to change protocols.
        expects_continue: whether the client waits for a word of the server before it sends the body.
    """

    def __init__(
        self,
        client: Client,
        pool: UpstreamPool,
        method: bytes,
        *,
        keep_alive: bool,
        exchange: Exchange | None,
        upgrade: bool,
        expects_continue: bool,
    ) -> None:
        self.is_head = method == b"HEAD"
        self.upgrade = upgrade
        self.request_complete = False
        self.upstream_full = False
        #: Whether anything of a response went to the client.
        self.answered = False
        self._client = client
        self._pool = pool
        self._repeatable = exchange is not None or method in _IDEMPOTENT
        self._keep_alive = keep_alive
        self._exchange = exchange
        self._upstream: UpstreamConnection | None = None
        self._upstream_keep_alive = False
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._sent: list[bytes] | None = None
        self._sent_bytes = 0
        self._sent_at = 0.0
        self._response_complete = False
        self._switched = False
        self._over = False
        self._client_ended = False
        self._expects_continue = expects_continue
        self._failure: Unavailable | None = None

    # The client's side.

    def start(self) -> None:
        """The turn has come: what was read of the request may go to the server."""
        connection = self._pool.idle()
        if connection is not None:
            self._attach(connection)
        else:
            self._client.spawn(self._connect())

    def send(self, data: bytes) -> None:
        """A piece of the request, as it goes over the wire."""
        self._waiting_bytes += len(data)
        if self._failure is None:
            self._waiting.append(data)
        elif self._waiting_bytes > _DRAIN_BYTES_MAX and not self._over:
            self._answer(self._failure)

    def request_body(self, data: bytes) -> None:
        if self._exchange is not None:
            self._exchange.request_body(data)

    def flush(self) -> None:
        """Write what was sent since, if there is a connection to write to."""
        upstream = self._upstream
        if upstream is None:
            return
        if self._waiting:
            self._write(upstream)
        if self._client_ended and not self._response_complete:
            if upstream.transport.can_write_eof():
                upstream.transport.write_eof()
            else:  # TLS cannot end one direction only
                self.abandon(_GONE)
                self._finish_turn(keep_alive=False)

    def _write(self, upstream: UpstreamConnection) -> None:
        data = self._waiting[0] if len(self._waiting) == 1 else b"".join(self._waiting)
        self._waiting.clear()
        self._waiting_bytes = 0
        if self._sent is not None:
            self._sent.append(data)
            self._sent_bytes += len(data)
            if self._sent_bytes > _REPLAY_BYTES_MAX:
                self._sent = None
        upstream.transport.write(data)

    def end_request(self) -> None:
        self.request_complete = True

    def settle(self) -> None:
        """End the turn if its response is through already (it came before the request was whole), or there is none."""
        if self._failure is not None and not self._over:
            self._answer(self._failure)
        if self.request_complete and self._response_complete and not self._over:
            self._end()

    @property
    def clogged(self) -> bool:
        """Whether the client should stop sending."""
        if self._failure is not None:
            return False
        return self.upstream_full or (self._upstream is None and self._waiting_bytes > _WAITING_BYTES_MAX)

    def abandon(self, reason: str) -> None:
        """The client is gone, or what it sends cannot be understood."""
        if self._over:
            return
        self._over = True
        if self._exchange is not None:
            self._exchange.finish(reason)
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.leave()
            upstream.transport.abort()

    def half_close(self) -> None:
        """The client will send no more: it is gone, or only done. The server is told, and does as without us."""
        self._client_ended = True
        self.flush()

    def pause_upstream(self) -> None:
        if self._upstream is not None:
            self._upstream.transport.pause_reading()

    def resume_upstream(self) -> None:
        if self._upstream is not None:
            self._upstream.transport.resume_reading()

    # The upstream's side (see `upstream.Turn`).

    def response_began(self, status: int, headers: dict[bytes, bytes]) -> None:
        self._sent = None
        if self._exchange is not None:
            self._exchange.response_head(status, headers)

    def response_body(self, data: bytes) -> None:
        if self._exchange is not None:
            self._exchange.response_body(data)

    def response_ended(self, *, keep_alive: bool) -> None:
        self._response_complete = True
        self._upstream_keep_alive = keep_alive
        if self._exchange is not None:
            self._exchange.finish("" if self.request_complete else "the response came before the request was complete")

    def relay(self, data: bytes) -> None:
        if data:
            self.answered = True
            self._client.transport.write(data)
        if not self._response_complete or self._over:
            return
        if self.request_complete or not self._upstream_keep_alive:
            self._end()

    def switched(self) -> None:
        self._switched = True
        if self._exchange is not None:
            self._exchange.response_head(101, {})
            self._exchange.finish("the connection changed protocols: what follows is not captured")
        self._client.switch()

    def upstream_lost(self, reason: str) -> None:
        self._upstream = None
        if self._over:
            return
        if self._switched or self._response_complete:
            self._finish_turn(keep_alive=False)
        elif self._client_ended:
            if self._exchange is not None:
                self._exchange.finish(_GONE)
            self._finish_turn(keep_alive=False)
        elif self._may_repeat():
            assert self._sent is not None
            self._waiting[:0] = self._sent
            self._waiting_bytes += self._sent_bytes
            self._sent = None
            self._client.spawn(self._connect())
        elif not self.answered:
            self._fail(
                Unavailable(
                    "the upstream gave no response",
                    why=reason,
                    fix="see the model server's log: it ended the connection before it answered",
                )
            )
        else:
            if self._exchange is not None:
                self._exchange.finish(f"the response was cut short: {reason}")
            self._finish_turn(keep_alive=False)

    def pause_client(self) -> None:
        self.upstream_full = True
        self._client.update_reading()

    def resume_client(self) -> None:
        self.upstream_full = False
        self._client.update_reading()

    # Its own.

    def _attach(self, connection: UpstreamConnection) -> None:
        self._upstream = connection
        self._sent = [] if connection.reused and self._repeatable else None
        self._sent_bytes = 0
        self._sent_at = asyncio.get_running_loop().time()
        connection.take(self)
        if self._client.write_paused:
            connection.transport.pause_reading()

    async def _connect(self) -> None:
        try:
            connection = await self._pool.connect()
        except Unavailable as error:
            if not self._over:
                self._fail(error)
            return
        except Exception:  # noqa: BLE001 - see below
            # A fault of ours costs this client its connection, not the others theirs: the task group must not end.
            _log.exception("a request could not be sent on")
            self._client.transport.abort()
            return
        if self._over:
            self._pool.release(connection)
            return
        self._attach(connection)
        self.flush()
        self._client.update_reading()

    def _may_repeat(self) -> bool:
        if self._sent is None or self.answered:
            return False
        return asyncio.get_running_loop().time() - self._sent_at < _STALE_S

    def _fail(self, error: Unavailable) -> None:
        """Answer in the server's stead, once the request is whole if it is to be recorded."""
        if self.request_complete or self._exchange is None or self._expects_continue:
            self._answer(error)
            return
        self._failure = error
        self._waiting.clear()
        self._waiting_bytes = 0
        self._client.update_reading()

    def _answer(self, error: Unavailable) -> None:
        head, body = problem(502, error)
        if self._exchange is not None:
            self._exchange.response_head(502, {b"content-type": b"application/problem+json"})
            self._exchange.response_body(body)
            self._exchange.finish(f"{error.what}: {error.why}")
        self._client.transport.write(head if self.is_head else head + body)
        self._finish_turn(keep_alive=False)

    def _end(self) -> None:
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.leave()
            if self._upstream_keep_alive and self.request_complete and not upstream.spoiled and not self._client_ended:
                upstream.transport.resume_reading()
                self._pool.release(upstream)
            else:
                self._upstream_keep_alive = False
                upstream.transport.close()
        self._finish_turn(keep_alive=self._keep_alive and self._upstream_keep_alive)

    def _finish_turn(self, *, keep_alive: bool) -> None:
        self._over = True
        self._client.turn_over(self, keep_alive=keep_alive)


def problem(
    status: int,
    error: GovernError,
    *,
    members: Mapping[str, str] = _NOTHING,
    fields: Mapping[bytes, bytes] = _NO_FIELDS,
    close: bool = True,
) -> tuple[bytes, bytes]:
    """Head and body of a response of the proxy's own (RFC 9457).

    Args:
        members: of the document, beside those of every error.
        fields: further headers.
        close: whether the connection is closed after it.
    """
    document = {"type": error.code, "title": error.what, "status": status, "detail": error.why, "fix": error.fix}
    body = json.dumps(document | dict(members)).encode()
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}".encode(),
        b"content-type: application/problem+json",
        b"content-length: %d" % len(body),
        *(b"%b: %b" % field for field in fields.items()),
        *((b"connection: close",) if close else ()),
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n", body
