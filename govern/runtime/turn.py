"""A piece of judging in a thread of its own, which nobody has to wait for.

What a detector does cannot be interrupted from outside. So whoever starts a turn may stop waiting and leave the thread
to itself; the threads are daemons, so that one which never returns does not keep the process from ending.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Turn(Generic[T]):
    """
    Args:
        call: run at once.
        name: of the thread, for whoever looks at the process.
    """

    def __init__(self, call: Callable[[], T], *, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._outcome: asyncio.Future[T] = self._loop.create_future()
        self._began_s = time.monotonic()
        threading.Thread(target=self._run, args=(call,), name=name, daemon=True).start()

    @property
    def done(self) -> bool:
        return self._outcome.done()

    @property
    def age_s(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._began_s

    async def wait(self, timeout_s: float) -> bool:
        """Whether it has come to its end, at the latest after `timeout_s`."""
        await asyncio.wait({self._outcome}, timeout=timeout_s)
        return self.done

    def result(self) -> T:
        """What the call returned, or raise what it raised. It must be done."""
        return self._outcome.result()

    def _run(self, call: Callable[[], T]) -> None:
        try:
            result = call()
        except Exception as error:  # noqa: BLE001 - handed to whoever asks for the result
            self._tell(self._failed, error)
        else:
            self._tell(self._succeeded, result)

    def _tell(self, what: Callable[..., None], value: object) -> None:
        try:
            self._loop.call_soon_threadsafe(what, value)
        except RuntimeError:
            return  # the loop is closed: the turn was left to itself, and nobody wants to know any more

    def _succeeded(self, result: T) -> None:
        if not self._outcome.done():
            self._outcome.set_result(result)

    def _failed(self, error: Exception) -> None:
        if not self._outcome.done():
            self._outcome.set_exception(error)
            self._outcome.exception()  # one that was left to itself may fail unheard
