"""The process that holds one detector, as govern sees it: asked, waited for, started again."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
import weakref
from collections.abc import Mapping
from typing import Any, Final

from detectors.alibi.child import wire
from detectors.alibi.child.wire import Array, Message
from detectors.alibi.host import MEMORY_VARIABLE, Host
from govern.errors import Unavailable

_FIX: Final = "see whether the detector works in its own environment, or give it fewer rows"


class Child:
    """The process that holds one detector. It starts when it is first asked, and again when it was killed.

    Each answer is a function of its question and of what it opened, so that a question which was cut off by the
    process's end is put once more, to the next.

    Args:
        opening: the first message to each process, after which it holds the detector.
        files: name -> content, what the message is about.
        what: the detector, as errors call it.
        open_deadline_s: for the first answer; thresholds of online detectors are simulated then.
    """

    def __init__(
        self, host: Host, opening: Mapping[str, Any], files: Mapping[str, Array], *, what: str, open_deadline_s: float
    ) -> None:
        self._host = host
        self._opening = opening
        self._files = files
        self._what = what
        self._open_deadline_s = open_deadline_s
        self._lock = threading.Lock()
        self._link: socket.socket | None = None
        self._end: weakref.finalize[[socket.socket, int | None, int], Child] | None = None
        self._opened: Message | None = None
        self._owner = 0
        self.pid: int | None = None

    def opened(self) -> Message:
        """The answer to the first message.

        Raises:
            Refused: alibi-detect, or code that was saved with the detector, raised.
            Unavailable: it could not be opened in time, or the process died of it.
        """
        with self._lock:
            if self._opened is None:
                self._attempt(None, 0.0)
            assert self._opened is not None
            return self._opened

    def ask(self, said: Mapping[str, Any], arrays: Mapping[str, Array], *, deadline_s: float) -> Message:
        """The answer to a question.

        Args:
            deadline_s: seconds from now.

        Raises:
            Refused: alibi-detect, or code that was saved with the detector, raised.
            Unavailable: no answer in time, or the process died of it.
        """
        with self._lock:
            answer = self._attempt((said, arrays), deadline_s)
        assert answer is not None
        return answer

    def close(self) -> None:
        """End the process; the next question starts another."""
        with self._lock:
            self._drop()

    def _attempt(
        self, question: tuple[Mapping[str, Any], Mapping[str, Array]] | None, seconds: float
    ) -> Message | None:
        for _ in ("as it is", "once more"):
            try:
                if self._link is None or self._owner != os.getpid():
                    self._drop()
                    self._open()
                assert self._link is not None
                return None if question is None else self._exchange(*question, seconds)
            except wire.Gone:
                self._drop()
            except (wire.Malformed, TimeoutError) as error:
                self._drop()
                raise Unavailable(
                    f"{self._what}: the process that holds it gave no answer", why=str(error), fix=_FIX
                ) from error
        raise Unavailable(
            f"{self._what}: the process that holds it died twice",
            why="it was killed, or ended itself, in the middle of its work",
            fix=f"{_FIX}; it may have {self._host.memory_bytes >> 20:,} MB ({MEMORY_VARIABLE})",
        )

    def _open(self) -> None:
        link, self.pid = self._host.fork()
        descriptor = None
        with contextlib.suppress(OSError):  # it may have died already; then nobody is to be killed
            descriptor = os.pidfd_open(self.pid)
        self._link, self._owner = link, os.getpid()
        self._end = weakref.finalize(self, _kill, link, descriptor, os.getpid())
        try:
            self._opened = self._exchange(self._opening, self._files, self._open_deadline_s)
        except Refused:
            self._drop()
            raise

    def _exchange(self, said: Mapping[str, Any], arrays: Mapping[str, Array], seconds: float) -> Message:
        assert self._link is not None
        self._link.settimeout(seconds)
        wire.send(self._link, said, arrays)
        answer = wire.receive(self._link, deadline_s=time.monotonic() + seconds)
        if "error" in answer.said:
            raise Refused(str(answer.said["error"]))
        return answer

    def _drop(self) -> None:
        if self._end is not None:
            self._end()
        self._link = self._end = self.pid = None


class Refused(Exception):
    """What was raised in the child, as text."""


def _kill(link: socket.socket, descriptor: int | None, pid: int) -> None:
    link.close()
    if descriptor is not None and pid == os.getpid():
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    if descriptor is not None:
        os.close(descriptor)
