"""Where alibi-detect runs: in processes of its own, of an interpreter that has it.

alibi-detect needs numpy < 2, and what it saves is code as much as it is data. So govern neither imports it nor opens
what it saved: a child of this process does, and govern speaks to it in plain arrays (`detectors.alibi.child.wire`).
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from pathlib import Path
from typing import Final

from detectors.alibi.child import wire
from govern.errors import MissingExtra, Unavailable

#: The interpreter whose environment has alibi-detect; this one by default.
PYTHON_VARIABLE: Final = "GOVERN_ALIBI_PYTHON"
#: Address space of the process that holds a detector. A small one on TensorFlow takes 1.8 GB of it.
MEMORY_VARIABLE: Final = "GOVERN_ALIBI_MEMORY_MB"
MEMORY_MB: Final = 8 * 1024
#: Importing alibi-detect with TensorFlow takes 7 s on an idle core; the machine may be shared by many.
START_DEADLINE_S: Final = 180.0
#: A process that was forked speaks at once.
FORK_DEADLINE_S: Final = 30.0
STOP_DEADLINE_S: Final = 10.0

#: The status with which an interpreter without alibi-detect ends.
_ABSENT: Final = 66
#: Run by path, so that nothing of govern's environment is on its way: the folder is a package by another name there.
_PROGRAM: Final = (
    "import importlib.util as u, sys; "
    f"u.find_spec('numpy') and u.find_spec('alibi_detect') or sys.exit({_ABSENT}); "
    "s = u.spec_from_file_location('govern_alibi', sys.argv[1] + '/__init__.py'); "
    "m = sys.modules['govern_alibi'] = u.module_from_spec(s); s.loader.exec_module(m); "
    "from govern_alibi.main import main; main(int(sys.argv[2]))"
)
#: Of our environment, all that it is given: passwords and tokens are not its business.
_HANDED_ON: Final = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "NUMBA_CACHE_DIR", "TF_USE_LEGACY_KERAS")
#: Threads would make sums come out otherwise; nothing may be fetched while a window waits.
_SET: Final = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "TF_DETERMINISTIC_OPS": "1",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
}


class Host:
    """A process that has imported alibi-detect and forks one for each detector. It ends when this object is gone.

    Args:
        python: path of the interpreter.
        memory_bytes: address space of each process that holds a detector.
    """

    def __init__(self, python: str, *, memory_bytes: int = MEMORY_MB << 20) -> None:
        self._python = python
        self.memory_bytes = memory_bytes
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._pid = 0
        self._end: weakref.finalize[[subprocess.Popen[bytes], socket.socket, str, int], Host] | None = None

    def fork(self) -> tuple[socket.socket, int]:
        """A process for one detector: the socket that it answers on, and its pid.

        Raises:
            MissingExtra: the interpreter has no alibi-detect.
            Unavailable: it does not start.
        """
        with self._lock:
            for _ in ("as it is", "once more"):  # it may have been killed since
                control = self._started()
                link, theirs = socket.socketpair()
                with theirs:
                    try:
                        socket.send_fds(control, [b"f"], [theirs.fileno()])
                    except OSError:
                        link.close()
                        self._stop()
                        continue
                try:
                    hello = wire.receive(link, deadline_s=time.monotonic() + FORK_DEADLINE_S)
                    return link, int(hello.said["pid"])
                except (wire.Gone, wire.Malformed, TimeoutError, KeyError):
                    link.close()
                    self._stop()
        raise self._unavailable("it ends before it holds a detector")

    def _started(self) -> socket.socket:
        if self._process is not None and self._pid == os.getpid() and self._process.poll() is None:
            assert self._control is not None
            return self._control
        self._stop()
        folder = tempfile.mkdtemp(prefix="govern-alibi-")
        control, theirs = socket.socketpair()
        environment = {name: os.environ[name] for name in _HANDED_ON if name in os.environ}
        program = str(Path(__file__).with_name("child"))
        try:
            process = subprocess.Popen(  # noqa: S603 - the operator names the interpreter
                [self._python, "-I", "-c", _PROGRAM, program, str(self.memory_bytes)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=folder,
                env={"TF_USE_LEGACY_KERAS": "1", **environment, **_SET, "HOME": folder, "TMPDIR": folder},
                start_new_session=True,
            )
        except OSError as error:
            control.close()
            shutil.rmtree(folder, ignore_errors=True)
            raise self._unavailable(str(error)) from error
        finally:
            theirs.close()
        self._process, self._control, self._pid = process, control, os.getpid()
        self._end = weakref.finalize(self, _end, process, control, folder, os.getpid())
        try:
            ready = wire.receive(control, deadline_s=time.monotonic() + START_DEADLINE_S)
        except (wire.Gone, wire.Malformed, TimeoutError) as error:
            self._stop()
            if process.returncode == _ABSENT:
                raise MissingExtra("alibi", needed_by=f"{self._python}, which is to run alibi-detect,") from None
            raise self._unavailable(str(error)) from error
        control.settimeout(FORK_DEADLINE_S)
        if "error" in ready.said:
            self._stop()
            raise self._unavailable(str(ready.said["error"]))
        return control

    def _stop(self) -> None:
        if self._end is not None:
            self._end()
        self._process = self._control = self._end = None

    def _unavailable(self, why: str) -> Unavailable:
        return Unavailable(
            f"alibi-detect does not start in {self._python}",
            why=why,
            fix=f"name the Python of an environment that has alibi-detect in {PYTHON_VARIABLE}",
        )


@functools.cache
def host() -> Host:
    """The one that this process's detectors share: it imports alibi-detect once for all of them.

    Raises:
        MissingExtra: this interpreter has no alibi-detect, and no other is named.
    """
    return Host(interpreter(), memory_bytes=int(os.environ.get(MEMORY_VARIABLE, MEMORY_MB)) << 20)


def interpreter() -> str:
    """The Python that alibi-detect runs in.

    Raises:
        MissingExtra: this one has no alibi-detect, and no other is named.
    """
    python = os.environ.get(PYTHON_VARIABLE)
    if python is None:
        if importlib.util.find_spec("alibi_detect") is None:
            raise MissingExtra("alibi", needed_by=f"alibi-detect, without another Python in {PYTHON_VARIABLE},")
        python = sys.executable
    return os.path.abspath(shutil.which(python) or python)  # it is started in another folder


def _end(process: subprocess.Popen[bytes], control: socket.socket, folder: str, pid: int) -> None:
    """Close its input, at which it ends and with it what it forked; kill it if it does not."""
    control.close()
    if pid != os.getpid():
        return  # it is the process's that this one was forked from
    try:
        process.wait(STOP_DEADLINE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    shutil.rmtree(folder, ignore_errors=True)
