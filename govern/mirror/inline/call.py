"""One call of the server that judges, over a connection that is kept."""

from __future__ import annotations

import asyncio
from typing import Final

from govern.errors import Unavailable
from govern.mirror.upstream import UpstreamPool

#: A judgement names the rows it flags: a number of up to 7 digits for each instance of a body of at most some 100,000.
_ANSWER_BYTES_MAX: Final = 1024 * 1024


class Call:
    """Waits for one response (see `upstream.Turn`)."""

    is_head = False

    def __init__(self) -> None:
        self.answer: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        #: Whether the connection can serve another call.
        self.keep_alive = False
        self._complete = False
        self._status = 0
        self._body = bytearray()

    def response_began(self, status: int, headers: dict[bytes, bytes]) -> None:
        self._status = status

    def response_body(self, data: bytes) -> None:
        self._body += data
        if len(self._body) > _ANSWER_BYTES_MAX:
            self._fail(f"its answer is longer than {_ANSWER_BYTES_MAX} bytes")

    def response_ended(self, *, keep_alive: bool) -> None:
        self.keep_alive = keep_alive
        self._complete = True

    def relay(self, data: bytes) -> None:
        if self._complete and not self.answer.done():
            self.answer.set_result((self._status, bytes(self._body)))

    def switched(self) -> None:
        self._fail("it changed protocols")

    def upstream_lost(self, reason: str) -> None:
        self.keep_alive = False
        self._fail(reason)

    def pause_client(self) -> None:
        """What is sent is bounded: it waits in the transport."""

    def resume_client(self) -> None:
        """See `pause_client`."""

    def _fail(self, reason: str) -> None:
        if not self.answer.done():
            self.answer.set_exception(Unavailable("the inline server gave no answer", why=reason, fix="see its log"))


async def ask(pool: UpstreamPool, request: bytes) -> tuple[int, bytes]:
    """Status and body of the response to a request that may be repeated. Takes as long as its caller waits.

    Raises:
        Unavailable: there was none.
    """
    kept = pool.idle()
    while True:
        connection = kept or await pool.connect()
        call = Call()
        connection.take(call)
        connection.transport.write(request)
        try:
            return await call.answer
        except Unavailable:
            if kept is None:
                raise
            kept = None  # its server was closing it: once more, on a new one
        finally:
            connection.leave()
            if call.answer.done() and call.keep_alive and not connection.spoiled:
                pool.release(connection)
            else:
                connection.transport.abort()
