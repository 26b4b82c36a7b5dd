"""The gRPC proxy sidecar: it listens in the model server's stead, relays, and records every inference.

HTTP/2 is relayed as the bytes that come, each client's connection over one of its own, so that all that gRPC has
(metadata, trailers, cancellation, deadlines, flow control, compression, messages of any size) is between the caller
and the model server as if they met. A proxy that ends the calls and makes new ones cannot do that on Python's
grpc.aio: its server reads a caller's cancellation as the regular end of the requests, and hides their compression and
authority.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Final

from govern.mirror.config import MirrorConfig
from govern.mirror.grpc.link import Link
from govern.mirror.listening import BACKLOG, listen_on
from govern.mirror.recorder import Recorder
from govern.mirror.tls import HTTP_2, Tls, towards_clients, towards_upstream

_log: Final = logging.getLogger(__name__)


class GrpcProxy:
    """Serves one upstream until told to stop.

    Args:
        recorder: where inferences are recorded; it stays the caller's to close, after `serve` returned.
    """

    def __init__(self, config: MirrorConfig, recorder: Recorder) -> None:
        self._config = config
        self._recorder = recorder
        self._links: set[Link] = set()
        self._gone = asyncio.Event()
        self._outward: Tls | None = None

    async def serve(self, stop: asyncio.Event, *, started: Callable[[int], None] = lambda _port: None) -> None:
        """Listen and relay until `stop` is set, then let the calls under way end within `drain_s`.

        Args:
            started: called with the port once connections are accepted.

        Raises:
            Unavailable: the address cannot be listened on.
            ConfigError: a file of the section `tls` cannot be used.
        """
        config = self._config
        inward = towards_clients(config.tls, HTTP_2)
        outward = self._outward = towards_upstream(config.tls, HTTP_2) if config.grpc.upstream_is_https else None
        listening = listen_on(config.grpc.listen)
        async with asyncio.TaskGroup() as tasks:
            spawn: Callable[[Coroutine[object, object, None]], object] = tasks.create_task

            def accept() -> Link:
                return Link(self._recorder, self._connect, spawn=spawn, links=self._links, on_gone=self._gone.set)

            server = await asyncio.get_running_loop().create_server(
                accept, sock=listening, backlog=BACKLOG, ssl=inward.context if inward else None
            )
            chores = [tasks.create_task(side.keep_fresh(config.tls.reload_s)) for side in (inward, outward) if side]
            try:
                started(listening.getsockname()[1])
                await stop.wait()
            finally:
                server.close()
                await self._drain()
                for chore in chores:
                    chore.cancel()

    async def _connect(self, protocol: Callable[[], asyncio.Protocol]) -> None:
        host, port = self._config.grpc.upstream_address
        limit_s = self._config.connect_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                await asyncio.get_running_loop().create_connection(
                    protocol,
                    host,
                    port,
                    ssl=self._outward.context if self._outward else None,
                    server_hostname=(self._config.tls.upstream_name or host) if self._outward else None,
                )
        except TimeoutError as error:
            raise OSError(f"the model server at {host}:{port} did not accept a connection in {limit_s} s") from error
        except (OSError, UnicodeError) as error:  # the latter of a name that is none
            raise OSError(f"the model server at {host}:{port} cannot be reached: {error}") from error

    async def _drain(self) -> None:
        for link in list(self._links):
            link.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.drain_s):
                await self._all_gone()
                return
        _log.warning("%d connections were cut after drain_s = %s", len(self._links), self._config.drain_s)
        for link in list(self._links):
            link.cut()
        await self._all_gone()

    async def _all_gone(self) -> None:
        while self._links:
            self._gone.clear()
            await self._gone.wait()
