"""One real server in a process group of its own, which never outlives the process that started it."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

#: Below Linux's ephemeral range (32768 up): a client that redials a stopped server there could be given the very
#: port as its own source port and connect to itself, and the server could then not bind it again. And below the range
#: of `govern demo`, which tests start.
PORTS = range(10_000, 20_000)
#: Byte n is locked by the process that was given port n, for as long as it lives: between the choice of a port and its
#: server's listening lie seconds, as between a server's death and its restart, and other workers choose meanwhile.
LEASES = Path(tempfile.gettempdir()) / f"govern-test-ports-{os.getuid()}"

#: Not the global one: plugins give it the same seed in processes that run tests side by side.
_RANDOM = random.SystemRandom()
_given: set[int] = set()
#: Starting a JVM takes 5 s on an idle core; the machine may be shared by many.
START_DEADLINE_S = 120.0
STOP_DEADLINE_S = 60.0


class ServiceError(RuntimeError):
    """A service that a test needs is not installed, or does not start."""


def require(program: str, *, package: str, folders: Sequence[str] = ()) -> str:
    """The path of a program, from PATH or one of `folders`; the error names the Debian package that holds it."""
    path = shutil.which(program) or shutil.which(program, path=os.pathsep.join(folders))
    if path is None:
        raise ServiceError(f"{program} is not installed, and this test needs it: apt-get install {package}")
    return path


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on, and that is given to nobody else while this process lives."""
    start = _RANDOM.randrange(len(PORTS))
    for port in itertools.chain(PORTS[start:], PORTS[:start]):
        if port in _given:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            fcntl.lockf(_leases(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
            _given.add(port)  # a process's own lock does not stop it
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise ServiceError(f"no port of {PORTS.start}-{PORTS.stop - 1} is free")


@functools.cache
def _leases() -> int:
    """The open file; it stays open, for closing it would give up every lock."""
    return os.open(LEASES, os.O_RDWR | os.O_CREAT, 0o600)


def listening(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
        return True
    return False


class Process:
    """A server process with its log.

    `setpriv --pdeathsig` lets the kernel end the server when the thread that started it is gone, so that not even
    kill -9 of pytest leaves a server behind. (Start services from the main thread, as pytest fixtures do.)
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        user: str | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        as_user = ["--reuid", user, "--regid", user, "--init-groups"] if user else []
        setpriv = require("setpriv", package="util-linux")
        self._command = [setpriv, *as_user, "--pdeathsig", stop_signal.name.removeprefix("SIG"), "--", *command]
        self._stop_signal = stop_signal
        self._process: subprocess.Popen[bytes] | None = None
        self._log = log
        self._log_start = 0

    @property
    def pid(self) -> int:
        if self._process is None:
            raise ServiceError(f"{self._command[-1]} is not running")
        return self._process.pid

    def start(self, ready: Callable[[str], bool]) -> None:
        """Start, and return when `ready`, which is given the log since this start, says so."""
        self._log.touch()
        self._log_start = self._log.stat().st_size
        with self._log.open("ab") as out:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd="/",
            )
        deadline = time.monotonic() + START_DEADLINE_S
        while not ready(self.log()):
            gone = self._process.poll() is not None
            if gone or time.monotonic() > deadline:
                log = self.log()
                self.kill()
                problem = "ended at once" if gone else f"is not ready after {START_DEADLINE_S:.0f} s"
                raise ServiceError(f"{' '.join(self._command)} {problem}:\n{log[-4000:]}")
            time.sleep(0.05)

    def log(self) -> str:
        """What the server wrote since its last start."""
        with self._log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def stop(self) -> None:
        """Ask the server to end, and wait until its whole group has; kill it past the deadline."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(self._stop_signal)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_DEADLINE_S)
        self.kill()

    def pause(self) -> None:
        """SIGSTOP: it keeps its connections and answers nobody."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def terminate(self) -> None:
        """Ask the server to end, and do not wait for it."""
        os.kill(self.pid, self._stop_signal)

    def wait(self) -> int:
        """The exit status of a server that ends by itself; fails when it does not."""
        if self._process is None:
            raise ServiceError(f"{self._command[-1]} is not running")
        return self._process.wait(STOP_DEADLINE_S)

    def kill(self) -> None:
        """SIGKILL to the whole group."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None


def wait_for_interrupt() -> None:
    """Block until Ctrl-C or SIGTERM: the command-line form of a service."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()
