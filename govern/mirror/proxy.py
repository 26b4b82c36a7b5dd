"""The HTTP proxy sidecar: it listens in the model server's stead, relays, and records every inference."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Final

from govern.mirror.config import MirrorConfig
from govern.mirror.http1 import ClientConnection
from govern.mirror.inline.judges import Judges
from govern.mirror.listening import BACKLOG, listen_on
from govern.mirror.recorder import Recorder
from govern.mirror.tls import towards_clients, towards_upstream
from govern.mirror.upstream import UpstreamPool

_log: Final = logging.getLogger(__name__)


class Proxy:
    """Serves one upstream until told to stop.

    Args:
        recorder: where inferences are recorded; it stays the caller's to close, after `serve` returned.
    """

    def __init__(self, config: MirrorConfig, recorder: Recorder) -> None:
        self._config = config
        self._recorder = recorder
        self._clients: set[ClientConnection] = set()
        self._gone = asyncio.Event()

    async def serve(self, stop: asyncio.Event, *, started: Callable[[int], None] = lambda _port: None) -> None:
        """Listen and relay until `stop` is set, then let the requests under way end within `drain_s`.

        Args:
            started: called with the port once connections are accepted.

        Raises:
            Unavailable: the address cannot be listened on.
            ConfigError: a file of the section `tls` cannot be used.
        """
        config = self._config
        host, port = config.upstream_address
        inward = towards_clients(config.tls)
        outward = towards_upstream(config.tls) if config.upstream_is_https else None
        pool = UpstreamPool(
            host,
            port,
            connect_timeout_s=config.connect_timeout_s,
            idle_s=config.upstream_idle_s,
            tls=outward.context if outward else None,
            tls_name=config.tls.upstream_name or host,
        )
        judges = Judges()
        listening = listen_on(self._config.listen)
        async with asyncio.TaskGroup() as tasks:
            spawn: Callable[[Coroutine[object, object, None]], object] = tasks.create_task

            def accept() -> ClientConnection:
                return ClientConnection(
                    self._recorder,
                    pool,
                    judges,
                    spawn=spawn,
                    clients=self._clients,
                    on_gone=self._gone.set,
                )

            server = await asyncio.get_running_loop().create_server(
                accept, sock=listening, backlog=BACKLOG, ssl=inward.context if inward else None
            )
            chores = [tasks.create_task(pool.close_stale()), tasks.create_task(judges.close_stale())]
            chores += [tasks.create_task(side.keep_fresh(config.tls.reload_s)) for side in (inward, outward) if side]
            try:
                started(listening.getsockname()[1])
                await stop.wait()
            finally:
                server.close()
                await self._drain()
                for chore in chores:
                    chore.cancel()
                pool.close()
                judges.close()

    async def _drain(self) -> None:
        for client in list(self._clients):
            client.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.drain_s):
                await self._all_gone()
                return
        _log.warning("%d connections were cut after drain_s = %s", len(self._clients), self._config.drain_s)
        for client in list(self._clients):
            client.transport.abort()
        await self._all_gone()

    async def _all_gone(self) -> None:
        while self._clients:
            self._gone.clear()
            await self._gone.wait()
