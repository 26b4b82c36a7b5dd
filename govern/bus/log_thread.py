"""The bridge from asyncio to the synchronous SQLite log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from govern.bus.sqlite_log import SqliteLog

P = ParamSpec("P")
T = TypeVar("T")


class LogThread:
    """A connection to the file and the one thread that uses it."""

    def __init__(self, log: SqliteLog) -> None:
        self.log = log
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="govern-bus")

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run it there. A caller that is cancelled does not interrupt it: it ends, and its result is dropped."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, lambda: function(*args, **kwargs))

    async def close(self) -> None:
        await self.run(self.log.close)
        self._executor.shutdown()
