"""The sink's server: events in, time passing, and an end in order."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import uvicorn
from prometheus_client import CollectorRegistry

from govern.errors import Unavailable
from govern.mirror.sink.app import SinkApp
from govern.mirror.sink.sink import Sink

_log: Final = logging.getLogger(__name__)

#: How often halves are looked at: fine beside any time limit that makes sense.
_TICK_S: Final = 0.1
#: At the end: how often to look for room in the spool.
_FLUSH_AGAIN_S: Final = 0.1


async def serve(
    sink: Sink, registry: CollectorRegistry, stop: asyncio.Event, *, started: Callable[[int], None]
) -> None:
    """Serve until `stop` is set; then finish the events that are under way and record the halves that wait.

    Both together take `drain_s`, and one look for room in the spool more.

    Args:
        started: called with the port once events are accepted.

    Raises:
        Unavailable: the address cannot be listened on.
    """
    config = sink.config
    with _listening(*config.listen_address) as listening:
        server = _Server(
            uvicorn.Config(
                SinkApp(sink, registry),
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="off",
                ws="none",
                timeout_graceful_shutdown=max(1, int(config.drain_s)),
            )
        )
        async with asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(server.serve(sockets=[listening]))
            ticking = tasks.create_task(_keep_ticking(sink))
            started(listening.getsockname()[1])
            await stop.wait()
            deadline = asyncio.get_running_loop().time() + config.drain_s
            server.should_exit = True
            await serving
            ticking.cancel()
        if config.sink.on_stop == "record":
            await _flush(sink, deadline)


async def _keep_ticking(sink: Sink) -> None:
    while True:
        await asyncio.sleep(_TICK_S)
        try:
            sink.tick()
        except OSError:
            _log.exception("halves cannot be looked at now")


async def _flush(sink: Sink, deadline: float) -> None:
    while left := sink.flush():
        if asyncio.get_running_loop().time() > deadline:
            _log.error("the spool has no room: %d inferences stay in the journal for the next start", left)
            return
        await asyncio.sleep(_FLUSH_AGAIN_S)


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    with listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
            listening.listen(1024)  # connections of a broker's burst wait here
        except OSError as error:
            raise Unavailable(
                f"listen address {host}:{port}",
                why=error.strerror or str(error),
                fix="stop what listens there, or give another address (--listen)",
            ) from error
        yield listening


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to the process, which sets `stop`."""
        yield
