"""The proxy's side of a client connection: HTTP/1.1 (RFC 9112), pipelined requests answered in order.

A request is parsed and written anew for the server: same method, target, version, headers in their order and
spelling, same body; a chunked body may be cut into other chunks. A response is relayed as it came.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Final, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from govern.errors import BadInput, GovernError
from govern.ids import uuid7
from govern.mirror.inline.config import InlineConfig
from govern.mirror.inline.judges import Judges
from govern.mirror.inline.subject import Subject
from govern.mirror.inline.turn import JudgedTurn
from govern.mirror.recorder import Exchange, Recorder
from govern.mirror.turn import ProxyTurn, problem
from govern.mirror.upstream import UpstreamPool

#: Longest request line and headers together: eight times the limit that common servers set.
HEAD_BYTES_MAX: Final = 64 * 1024
#: After a response that ends the connection, how long the client may go on sending what nobody reads. Closing at
#: once would reset the connection, and the client might lose the response.
_LINGER_S: Final = 2.0
#: Protocols that HTTP/1.1 clients offer although they are content without (RFC 9113 dropped the upgrade to it).
_IGNORED_UPGRADES: Final = (b"h2c", b"tls/")


class _HeadTooLong(GovernError):
    code = "request-head-too-long"
    http_status = 431


class ClientConnection(asyncio.Protocol):
    """One client.

    Args:
        spawn: starts a task in the proxy's task group.
        clients: the open connections; it keeps itself there as long as it is one.
        on_gone: called when it no longer is.
    """

    transport: asyncio.Transport

    def __init__(
        self,
        recorder: Recorder,
        pool: UpstreamPool,
        judges: Judges,
        *,
        spawn: Callable[[Coroutine[object, object, None]], object],
        clients: set[ClientConnection],
        on_gone: Callable[[], None],
    ) -> None:
        self.write_paused = False
        self._recorder = recorder
        self._pool = pool
        self._judges = judges
        self._spawn = spawn
        self._clients = clients
        self._on_gone = on_gone
        self._parser = HttpRequestParser(self)
        #: Requests not yet answered, oldest first; the first one has its turn.
        self._turns: deque[ProxyTurn] = deque()
        #: The request being read, if any.
        self._reading: ProxyTurn | None = None
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self._chunked = False
        #: A head to parse in place of one that asked for an upgrade we ignore.
        self._rewritten: bytes | None = None
        #: What came after a request to change protocols, while its answer is awaited.
        self._held: bytes | None = None
        self._tunnel = False
        self._refusal: tuple[int, GovernError] | None = None
        self._ended = False
        self._draining = False
        self._closing = False
        self._linger: asyncio.TimerHandle | None = None

    def drain(self) -> None:
        """Serve what was asked so far, then close."""
        self._draining = True
        if not self._turns:
            self.transport.close()

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._clients.add(self)

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        if self._tunnel:
            self._turns[0].send(data)
        else:
            self._parse(data)
        if self._turns:
            self._turns[0].flush()
            self.update_reading()

    def eof_received(self) -> bool:
        self._ended = True
        if self._reading is not None:
            self._reading.abandon("the client closed the connection within its request")
            return False
        if len(self._turns) == 1:
            self._turns[0].half_close()
        # TLS has no half-closed connections: it ends with the client's close_notify.
        return bool(self._turns) and self.transport.can_write_eof()

    def connection_lost(self, error: Exception | None) -> None:
        if self._linger is not None:
            self._linger.cancel()
        for turn in self._turns:
            turn.abandon("the client closed the connection before the response was complete")
        self._turns.clear()
        self._clients.discard(self)
        self._on_gone()

    def pause_writing(self) -> None:
        self.write_paused = True
        if self._turns:
            self._turns[0].pause_upstream()

    def resume_writing(self) -> None:
        self.write_paused = False
        if self._turns:
            self._turns[0].resume_upstream()

    # The turns' side (see `turn.Client`).

    def spawn(self, work: Coroutine[object, object, None]) -> None:
        self._spawn(work)

    def update_reading(self) -> None:
        """Read on, unless what is read has nowhere to go: so memory stays bounded by the sockets' buffers."""
        if self._closing:
            return
        if len(self._turns) > 1 or self._held is not None or (bool(self._turns) and self._turns[0].clogged):
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def switch(self) -> None:
        self._tunnel = True
        held, self._held = self._held, None
        turn = self._turns[0]
        if held:
            turn.send(held)
            turn.flush()
        self.update_reading()

    def turn_over(self, turn: ProxyTurn, *, keep_alive: bool) -> None:
        assert self._turns[0] is turn
        self._turns.popleft()
        if not keep_alive:
            for later in self._turns:
                later.abandon("the connection was closed after the response to an earlier request")
            self._turns.clear()
            self._close()
            return
        held, self._held = self._held, None
        if held is not None:
            self._parser = HttpRequestParser(self)
            self._parse(held)
        if self._turns:
            self._turns[0].start()
            self._turns[0].flush()
            if self._ended and len(self._turns) == 1:
                self._turns[0].half_close()
        elif self._refusal is not None:
            self._refuse(*self._refusal)
        elif self._draining or self._ended:
            self.transport.close()
        self.update_reading()

    # The parser's side.

    def on_message_begin(self) -> None:
        self._target = b""
        self._headers = []
        self._head_bytes = 0

    def on_url(self, data: bytes) -> None:
        self._target += data
        self._count_head(len(data))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))
        self._count_head(len(name) + len(value) + 4)

    def on_headers_complete(self) -> None:
        if self._closing:
            return
        parser, headers = self._parser, self._headers
        method = parser.get_method()
        lower = {name.lower(): value for name, value in headers}
        upgrade = parser.should_upgrade()
        if upgrade and _ignored(lower):
            kept = [(name, value) for name, value in headers if name.lower() not in (b"upgrade", b"connection")]
            self._rewritten = _head(method, self._target, b"1.1", kept)
            return
        self._chunked = b"transfer-encoding" in lower
        exchange = self._recorder.begin(method, self._target, lower)
        inline = self._recorder.rules.inline
        judged = None if inline is None else self._judged(inline, method, lower, exchange)
        turn: ProxyTurn
        if judged is None:
            turn = ProxyTurn(
                self,
                self._pool,
                method,
                keep_alive=parser.should_keep_alive(),
                exchange=exchange,
                upgrade=upgrade,
                expects_continue=b"expect" in lower,
            )
        else:
            turn = judged
        if judged is not None and judged.holds_request:
            headers = [field for field in headers if field[0].lower() != b"expect"]
        turn.send(_head(method, self._target, parser.get_http_version().encode(), headers))
        self._headers = []
        self._reading = turn
        self._turns.append(turn)
        if len(self._turns) == 1:
            turn.start()

    def on_body(self, data: bytes) -> None:
        turn = self._reading
        if turn is None:
            return
        turn.request_body(data)
        if self._chunked:
            turn.send(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            turn.send(data)

    def on_message_complete(self) -> None:
        turn, self._reading = self._reading, None
        if turn is None:
            return
        if self._chunked:
            trailers = b"".join([b"%b: %b\r\n" % field for field in self._headers])
            turn.send(b"0\r\n%b\r\n" % trailers)
        turn.end_request()
        if turn is self._turns[0]:
            turn.flush()
            turn.settle()

    # Its own.

    def _judged(
        self, inline: InlineConfig, method: bytes, headers: dict[bytes, bytes], exchange: Exchange | None
    ) -> JudgedTurn | None:
        """The turn of an inference that steps speak of; None when it is no inference."""
        rules = self._recorder.rules
        route = rules.route(method, self._target.partition(b"?")[0])
        if route is None:
            return None
        return JudgedTurn(
            self,
            self._pool,
            method,
            keep_alive=self._parser.should_keep_alive(),
            exchange=exchange,
            upgrade=self._parser.should_upgrade(),
            expects_continue=b"expect" in headers,
            inline=inline,
            judges=self._judges,
            subject=Subject(rules, route, exchange.identified() if exchange is not None else uuid7(), headers),
        )

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade as switch:
            rest = data[switch.args[0] :]
            if self._rewritten is None:
                self._held = rest
                return
            head, self._rewritten = self._rewritten, None
            self._parser = HttpRequestParser(self)
            self._parse(head + rest)
        except HttpParserError as error:
            cause = error.__context__
            if isinstance(cause, _HeadTooLong):
                self._refuse(431, cause)
                return
            self._refuse(
                400,
                BadInput("the request is no HTTP/1.1", why=str(error), fix="send a request that follows RFC 9112"),
            )

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > HEAD_BYTES_MAX:
            raise _HeadTooLong(
                "the request's headers are too long",
                why=f"they take more than {HEAD_BYTES_MAX} bytes",
                fix="send fewer or shorter headers",
            )

    def _refuse(self, status: int, error: GovernError) -> None:
        """Answer a request that cannot be understood, after those before it."""
        if self._reading is not None:
            broken, self._reading = self._reading, None
            broken.abandon(f"the request was malformed: {error.why}")
            self._turns.remove(broken)
            if broken.answered:
                self.transport.abort()
                return
        if self._turns:
            self._refusal = (status, error)
            return
        head, body = problem(status, error)
        self.transport.write(head + body)
        self._close(unread=True)

    def _close(self, *, unread: bool = False) -> None:
        """Close once all is written; linger if the client may still be sending."""
        self._closing = True
        if self._reading is None and not unread and not self._tunnel:
            self.transport.close()
            return
        self._reading = None
        if self.transport.can_write_eof() and not self.transport.is_closing():
            self.transport.write_eof()
        self.transport.resume_reading()
        self._linger = asyncio.get_running_loop().call_later(_LINGER_S, self.transport.abort)


def _head(method: bytes, target: bytes, version: bytes, headers: list[tuple[bytes, bytes]]) -> bytes:
    fields = b"".join([b"%b: %b\r\n" % field for field in headers])
    return b"%b %b HTTP/%b\r\n%b\r\n" % (method, target, version, fields)


def _ignored(headers: dict[bytes, bytes]) -> bool:
    """Whether a request to upgrade is served as if it had not asked.

    With a body it must be: the parser does not read the body of a request that changes protocols.
    """
    offered = headers.get(b"upgrade", b"").lower().strip()
    has_body = b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"
    return has_body or offered.startswith(_IGNORED_UPGRADES)
