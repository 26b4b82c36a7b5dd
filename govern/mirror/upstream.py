"""Connections to the model server: a pool of HTTP/1.1 connections, and what arrives on them.

A response is relayed as the bytes that came: the parser only watches, so as to know its status, its body and where
it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from govern.errors import Unavailable

_log: Final = logging.getLogger(__name__)

#: Statuses whose responses have no body (RFC 9112 section 6.3); 1xx are no final responses.
_BODILESS: Final = frozenset({204, 304})


class Turn(Protocol):
    """Whoever waits for a response on an upstream connection."""

    is_head: bool

    def response_began(self, status: int, headers: dict[bytes, bytes]) -> None: ...

    def response_body(self, data: bytes) -> None: ...

    def response_ended(self, *, keep_alive: bool) -> None:
        """The whole response was seen; its last bytes follow in the next `relay`."""
        ...

    def relay(self, data: bytes) -> None:
        """Bytes for the client, after all that they mean was told."""
        ...

    def switched(self) -> None:
        """The server changed protocols (101): from now on there are only bytes."""
        ...

    def upstream_lost(self, reason: str) -> None:
        """The connection is gone before the response was whole."""
        ...

    def pause_client(self) -> None: ...

    def resume_client(self) -> None: ...


class UpstreamConnection(asyncio.Protocol):
    """One connection to the model server, serving one turn at a time."""

    transport: asyncio.Transport

    def __init__(self, on_gone: Callable[[UpstreamConnection], None]) -> None:
        self._on_gone = on_gone
        self._turn: Turn | None = None
        self._parser = HttpResponseParser(self)
        self._parser_spent = False
        self._headers: list[tuple[bytes, bytes]] = []
        self._status = 0
        self._until_close = False
        self._tunnel = False
        #: Whether it has served a turn before: the server may be about to close it.
        self.reused = False
        #: Whether more came than the response: the connection must not be used again.
        self.spoiled = False
        self._ended = False
        #: Loop time at which it became idle.
        self.idle_since = 0.0

    # The pool's side.

    def take(self, turn: Turn) -> None:
        self._turn = turn
        self._ended = False
        self._status = 0
        self._until_close = False
        if self._parser_spent:
            self._parser = HttpResponseParser(self)
            self._parser_spent = False

    def leave(self) -> None:
        """The turn is over or given up: nothing of what arrives now belongs to it."""
        self._turn = None
        self.reused = True

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        turn = self._turn
        if turn is None:  # bytes that nobody asked for
            self.transport.abort()
            return
        if not self._tunnel:
            try:
                self._parser.feed_data(data)
            except HttpParserUpgrade:
                self._tunnel = True
                turn.switched()
            except HttpParserError as error:
                self._turn = None
                self.transport.abort()
                turn.upstream_lost(f"the upstream's response is no HTTP: {error}")
                return
        turn.relay(data)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._on_gone(self)
        turn, self._turn = self._turn, None
        if turn is None:
            return
        if self._until_close and error is None:
            turn.response_ended(keep_alive=False)
            turn.relay(b"")
        else:
            turn.upstream_lost("the upstream closed the connection" if error is None else str(error))

    def pause_writing(self) -> None:
        if self._turn is not None:
            self._turn.pause_client()

    def resume_writing(self) -> None:
        if self._turn is not None:
            self._turn.resume_client()

    # The parser's side.

    def on_message_begin(self) -> None:
        self._headers = []
        self.spoiled = self._ended

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._status = self._parser.get_status_code()
        turn = self._turn
        if turn is None or self._ended or status < 200:
            return
        headers = {name.lower(): value for name, value in self._headers}
        turn.response_began(status, headers)
        if turn.is_head:
            # The parser was not told that the request was HEAD and waits for a body; it cannot be used again.
            self._parser_spent = True
            closes = b"close" in headers.get(b"connection", b"").lower()
            self._turn_ends(keep_alive=self._parser.get_http_version() == "1.1" and not closes)
        elif (
            status not in _BODILESS
            and b"content-length" not in headers
            and not headers.get(b"transfer-encoding", b"").lower().endswith(b"chunked")
        ):
            self._until_close = True

    def on_body(self, data: bytes) -> None:
        if self._turn is not None and not self._ended:
            self._turn.response_body(data)

    def on_message_complete(self) -> None:
        if self._status >= 200 and not self._ended:
            self._turn_ends(keep_alive=self._parser.should_keep_alive())

    def _turn_ends(self, *, keep_alive: bool) -> None:
        self._until_close = False
        self._ended = True
        if self._turn is not None:
            self._turn.response_ended(keep_alive=keep_alive)


class UpstreamPool:
    """Idle connections, newest first, and the making of new ones.

    Args:
        idle_s: how long an unused connection is kept.
        tls: None = plain HTTP.
        tls_name: the name that the server's certificate must carry, which SNI asks for.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        connect_timeout_s: float,
        idle_s: float,
        tls: ssl.SSLContext | None = None,
        tls_name: str = "",
        named: str = "upstream",
        field: str = "upstream",
    ) -> None:
        self._named = named
        self._field = field
        self._host = host
        self._port = port
        self._connect_timeout_s = connect_timeout_s
        self._idle_s = idle_s
        self._tls = tls
        self._tls_name = tls_name if tls else None
        self._idle: deque[UpstreamConnection] = deque()
        self._down = False
        self._loop = asyncio.get_running_loop()

    def idle(self) -> UpstreamConnection | None:
        """A connection that is open and free, if there is one."""
        while self._idle:
            connection = self._idle.pop()
            fresh = self._loop.time() - connection.idle_since < self._idle_s
            if fresh and not connection.transport.is_closing():
                return connection
            connection.transport.abort()
        return None

    async def connect(self) -> UpstreamConnection:
        """A new connection.

        Raises:
            Unavailable: the server does not accept it, or not in time.
        """
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                _, connection = await self._loop.create_connection(
                    lambda: UpstreamConnection(self._forget),
                    self._host,
                    self._port,
                    ssl=self._tls,
                    server_hostname=self._tls_name,
                )
        except (OSError, TimeoutError) as error:
            unavailable = Unavailable(
                f"{self._named} {self._host}:{self._port} does not answer",
                why=str(error) or f"no connection within {self._connect_timeout_s} s",
                fix="check the model server's certificate and the section tls"
                if isinstance(error, ssl.SSLError)
                else f"check that the server runs and listens there ({self._field})",
            )
            if not self._down:  # one line for an outage, not one for each request
                self._down = True
                _log.warning("%s", unavailable)
            raise unavailable from error
        if self._down:
            self._down = False
            _log.warning("%s %s:%s answers again", self._named, self._host, self._port)
        return connection

    def release(self, connection: UpstreamConnection) -> None:
        """Give a connection back, its turn being over and its server willing."""
        if connection.transport.is_closing():
            return
        connection.idle_since = self._loop.time()
        self._idle.append(connection)

    async def close_stale(self) -> None:
        """Close connections that were not used for `idle_s`, until cancelled."""
        while True:
            await asyncio.sleep(self._idle_s / 2)
            self.drop_stale()

    def drop_stale(self) -> None:
        """Close connections that were not used for `idle_s`."""
        oldest_allowed = self._loop.time() - self._idle_s
        while self._idle and self._idle[0].idle_since < oldest_allowed:
            self._idle.popleft().transport.abort()

    def close(self) -> None:
        while self._idle:
            self._idle.pop().transport.abort()

    def _forget(self, connection: UpstreamConnection) -> None:
        with contextlib.suppress(ValueError):  # it was in use
            self._idle.remove(connection)
