"""A client's connection, and the one to the model server that is its own: what comes on one goes out on the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Final, Protocol, cast

from govern.mirror.grpc.calls import Calls
from govern.mirror.grpc.http2 import Frame, goaway
from govern.mirror.grpc.refusal import Refusal
from govern.mirror.grpc.status import CANCELLED, UNAVAILABLE
from govern.mirror.recorder import Recorder

#: The highest stream there is: a GOAWAY that names it refuses no call.
_LAST_STREAM: Final = 0x7FFF_FFFF


class Connect(Protocol):
    """Opens a connection to the model server."""

    async def __call__(self, protocol: Callable[[], asyncio.Protocol]) -> None:
        """
        Raises:
            OSError: the model server cannot be reached, for the reason that the error states.
        """
        ...


class Link(asyncio.Protocol):
    """The client's side.

    Args:
        connect: opens the other side.
        spawn: starts a task that lives no longer than the proxy.
        links: the proxy's links, to which this one adds itself while it lasts.
        on_gone: called when it has left them.
    """

    transport: asyncio.Transport

    def __init__(
        self,
        recorder: Recorder,
        connect: Connect,
        *,
        spawn: Callable[[Coroutine[object, object, None]], object],
        links: set[Link],
        on_gone: Callable[[], None],
    ) -> None:
        self._connect = connect
        self._spawn = spawn
        self._links = links
        self._on_gone = on_gone
        self._calls = Calls(recorder)
        self._upstream: asyncio.Transport | None = None
        self._refusal: Refusal | None = None
        #: What came before it was clear who answers: as bytes and as frames.
        self._early = b""
        self._early_frames: list[Frame] = []
        #: Whether the other side takes no more for now.
        self._held_back = False
        self._greeted = False
        self._draining = False
        self._goodbye_said = False

    # The client's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.pause_reading()
        self._links.add(self)
        self._spawn(self._open())

    def data_received(self, data: bytes) -> None:
        frames = self._calls.from_client(data)
        if self._refusal is not None:
            self._refusal.answer(frames)
        elif self._upstream is not None:
            if not self._upstream.is_closing():
                self._upstream.write(data)
        else:  # uvloop reads once more after it was told to pause
            self._early += data
            self._early_frames += frames
            self.transport.pause_reading()
        self._part()

    def pause_writing(self) -> None:
        if self._upstream is not None:
            self._upstream.pause_reading()

    def resume_writing(self) -> None:
        if self._upstream is not None:
            self._upstream.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self._calls.lost(CANCELLED, "the caller closed the connection")
        if self._upstream is not None:
            self._upstream.close()
        self._links.discard(self)
        self._on_gone()

    async def _open(self) -> None:
        try:
            await self._connect(lambda: _Upstream(self))
        except OSError as error:
            if not self.transport.is_closing():
                self._refusal = Refusal(self.transport, self._calls, str(error))
                self._refusal.answer(self._early_frames)
        self._early, self._early_frames = b"", []
        if not self.transport.is_closing() and not self._held_back:
            self.transport.resume_reading()

    # The model server's side.

    def upstream_made(self, transport: asyncio.Transport) -> None:
        self._upstream = transport
        transport.write(self._early)
        if self.transport.is_closing():
            transport.close()

    def upstream_sent(self, data: bytes) -> None:
        self._greeted = True
        self._calls.from_server(data)
        if not self.transport.is_closing():
            self.transport.write(data)
        self._part()

    def upstream_full(self) -> None:
        self._held_back = True
        self.transport.pause_reading()

    def upstream_ready(self) -> None:
        self._held_back = False
        self.transport.resume_reading()

    def upstream_lost(self, error: Exception | None) -> None:
        why = f": {error}" if error else ""
        self._calls.lost(UNAVAILABLE, f"the connection to the model server was lost{why}")
        self.transport.close()

    # The proxy's side.

    def drain(self) -> None:
        """Let the calls under way end, and then the connection."""
        self._draining = True
        if self._refusal is not None:
            self._refusal.end()
        self._part()

    def cut(self) -> None:
        """End now."""
        self._calls.lost(UNAVAILABLE, "the proxy stopped before the call ended")
        self.transport.abort()

    def _part(self) -> None:
        """While draining: ask for no new calls where a frame may stand, and close after the last call."""
        if not self._draining or self._calls.blind or self.transport.is_closing():
            return
        if self._greeted and not self._calls.responses.at_boundary:
            return
        if self._greeted and not self._goodbye_said:
            self._goodbye_said = True
            self.transport.write(goaway(_LAST_STREAM))
        if not self._calls.open:
            if self._greeted:
                self.transport.write(goaway(self._calls.last_stream))
            self.transport.close()


class _Upstream(asyncio.Protocol):
    """The model server's side."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._link.upstream_made(cast(asyncio.Transport, transport))

    def data_received(self, data: bytes) -> None:
        self._link.upstream_sent(data)

    def pause_writing(self) -> None:
        self._link.upstream_full()

    def resume_writing(self) -> None:
        self._link.upstream_ready()

    def connection_lost(self, error: Exception | None) -> None:
        self._link.upstream_lost(error)
