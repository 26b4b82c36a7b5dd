"""One program of the demo: a real process with a log, started again when it dies, as Kubernetes would."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from govern.errors import Unavailable

#: Importing numpy, scikit-learn and the rest takes 2 s on an idle core; the machine may be small and busy.
READY_DEADLINE_S: Final = 90.0
#: What a worker or writer needs to finish what it holds; then it is killed, and loses nothing by it.
STOP_DEADLINE_S: Final = 15.0
#: Wait before starting again: doubles from the first to the last, and is the first again after a healthy start.
BACKOFF_S: Final = (0.2, 5.0)
#: A program that ends by itself so often before it was ever ready will not be mended by starting it again.
MAX_FAILED_STARTS: Final = 3
#: Between two looks whether a program is ready.
_LOOK_S: Final = 0.1
_TAIL_LINES: Final = 12

_LEASH: Final = Path(__file__).parent / "leash.py"


@dataclass(frozen=True, slots=True)
class Program:
    """What to run.

    Attributes:
        name: what the demo calls it.
        command: program and arguments.
        ready: whether it answers now. Must not raise.
        environment: all of it.
    """

    name: str
    command: Sequence[str]
    ready: Callable[[], Awaitable[bool]]
    environment: Mapping[str, str]


class ChildFailed(Unavailable):
    """A program of the demo that does not come up; `why` holds the end of its log."""

    code = "child-failed"

    def __init__(self, name: str, problem: str, log: Path) -> None:
        super().__init__(
            f"{name} {problem}",
            why="the end of its log:\n" + tail(log),
            fix=f"read {log}",
        )


class Child:
    """Keeps a program running until `stop`.

    Args:
        log: file that takes its output; earlier content is kept.
    """

    def __init__(self, program: Program, log: Path) -> None:
        self.program = program
        self.log = log
        self.restarts = 0
        self.ready = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()
        self._ended.set()

    @property
    def pid(self) -> int | None:
        """None between two lives."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def keep(self) -> None:
        """Start the program, and start it again whenever it ends, until `stop`.

        Raises:
            ChildFailed: it ended by itself, again and again, before it was ready, or did not become ready in time.
        """
        self._ended.clear()
        try:
            await self._keep()
        finally:
            self._ended.set()

    async def _keep(self) -> None:
        wait_s, failed = BACKOFF_S[0], 0
        while not self._stopping.is_set():
            returncode, was_ready = await self._live()
            if self._stopping.is_set():
                return
            if was_ready:
                wait_s, failed = BACKOFF_S[0], 0
            elif returncode >= 0:  # below: killed by a signal, which is not its own failure
                failed += 1
            if failed >= MAX_FAILED_STARTS:
                raise ChildFailed(self.program.name, f"ended with code {returncode}", self.log)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), wait_s)
                return
            wait_s = min(BACKOFF_S[1], wait_s * 2)
            self.restarts += 1

    async def stop(self) -> None:
        """Ask it to end, and wait until it has; past the deadline it is killed."""
        self._stopping.set()
        await self._ended.wait()

    async def _live(self) -> tuple[int, bool]:
        """One life of the program: its return code, and whether it was ever ready."""
        with self.log.open("ab") as out:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-IS", str(_LEASH), str(os.getpid())),
                *self.program.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=asyncio.subprocess.STDOUT,
                env=dict(self.program.environment),
                start_new_session=True,  # Ctrl-C is for the demo, which stops its programs in order
            )
        self._process = process
        try:
            async with asyncio.TaskGroup() as tasks:
                helpers = (tasks.create_task(self._look()), tasks.create_task(self._end_when_asked(process)))
                returncode = await process.wait()
                for helper in helpers:
                    helper.cancel()
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            was_ready = self.ready.is_set()
            self.ready.clear()
            _kill(process)
            await process.wait()
        return returncode, was_ready

    async def _end_when_asked(self, process: asyncio.subprocess.Process) -> None:
        await self._stopping.wait()
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await asyncio.sleep(STOP_DEADLINE_S)
        _kill(process)

    async def _look(self) -> None:
        deadline = time.monotonic() + READY_DEADLINE_S
        while not await self.program.ready():
            if time.monotonic() > deadline and not self._stopping.is_set():
                raise ChildFailed(self.program.name, f"is not ready after {READY_DEADLINE_S:.0f} s", self.log)
            await asyncio.sleep(_LOOK_S)
        self.ready.set()


def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()


def tail(log: Path, lines: int = _TAIL_LINES) -> str:
    """The last lines of a log."""
    if not log.exists():
        return "(it wrote nothing)"
    with log.open(encoding="utf-8", errors="replace") as file:
        return "".join(deque(file, maxlen=lines)).rstrip() or "(it wrote nothing)"
