"""What is under way: so many calls at once, so many that wait, and bodies of so many bytes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from govern.errors import GovernError, Unavailable
from govern.telemetry.metrics import Metrics

#: Calls that are computed at once. Detectors hold a processor, models behind a pipeline only wait: more than the
#: processors of a pod, and few enough that none of them crawls.
AT_ONCE: Final = 16
#: Calls that wait for one of those places; what comes then is refused while it is still of use to its caller.
WAITING: Final = 64
#: Bytes of a body: ten times the rows that any window has, and what a pod can hold of `AT_ONCE + WAITING`.
MAX_BYTES: Final = 16 * 1024 * 1024


class TooLong(GovernError):
    """A body above the server's limit."""

    code = "too-long"
    http_status = 413

    def __init__(self, max_bytes: int) -> None:
        super().__init__(
            "the request's body is too long",
            why=f"the limit is {max_bytes} bytes",
            fix="send fewer rows in one call, or raise --max-bytes",
        )


class Busy(Unavailable):
    """All places are taken, those for waiting too."""

    code = "busy"


class Calls:
    """Bounds and counts the calls of one process, over whichever protocol they come.

    Args:
        metrics: None = not counted.
    """

    def __init__(
        self,
        *,
        at_once: int = AT_ONCE,
        waiting: int = WAITING,
        max_bytes: int = MAX_BYTES,
        metrics: Metrics | None = None,
    ) -> None:
        self.max_bytes = max_bytes
        self._places = asyncio.Semaphore(at_once)
        self._limit = at_once + waiting
        self._inside = 0
        self._metrics = metrics

    async def body(self, chunks: AsyncIterator[bytes], declared: str | None) -> bytes:
        """A request's body.

        Args:
            declared: the header Content-Length.

        Raises:
            TooLong: it is, or says that it is.
        """
        if declared is not None and declared.isdecimal() and int(declared) > self.max_bytes:
            raise TooLong(self.max_bytes)
        parts: list[bytes] = []
        size = 0
        async for chunk in chunks:
            size += len(chunk)
            if size > self.max_bytes:
                raise TooLong(self.max_bytes)
            parts.append(chunk)
        return b"".join(parts)

    @asynccontextmanager
    async def place(self, labels: tuple[str, ...]) -> AsyncIterator[None]:
        """A place to compute one answer in.

        Args:
            labels: of the model that is called, see `govern.telemetry.metrics`.

        Raises:
            Busy: there is none, and no room to wait for one.
        """
        if self._inside >= self._limit:
            if self._metrics is not None:
                self._metrics.serve_refused.labels(*labels).inc()
            raise Busy(
                "the server is busy",
                why=f"{self._inside} calls are computed or wait",
                fix="call again shortly, or run more replicas",
            )
        self._inside += 1
        began = time.perf_counter()
        try:
            async with self._places:
                yield
        except BaseException:
            if self._metrics is not None:
                self._metrics.serve_failures.labels(*labels).inc()
            raise
        finally:
            self._inside -= 1
            if self._metrics is not None:
                self._metrics.serve_duration.labels(*labels).observe(time.perf_counter() - began)
