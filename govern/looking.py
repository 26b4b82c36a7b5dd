"""When a process looks whether its files have changed: after each interval, and at once on SIGHUP."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def on_hangup() -> Iterator[asyncio.Event]:
    """While the block runs, SIGHUP sets the event and does nothing else. On the event loop of the main thread."""
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, asked.set)
    try:
        yield asked
    finally:
        loop.remove_signal_handler(signal.SIGHUP)


async def due(asked: asyncio.Event, every_s: float) -> bool:
    """Wait until it is time to look; whether somebody has asked for it."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(every_s):
            await asked.wait()
    signalled = asked.is_set()
    asked.clear()
    return signalled
