"""The process that imports alibi-detect once, and forks one for each detector: its memory and its crash are its own.

It is run by path, isolated (`python -I`), in whichever environment has alibi-detect. On its standard input it is sent
sockets; for each it forks a process that answers there until the other end closes.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import shutil
import signal
import socket
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Final

from . import wire

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38
#: What a detector may write to disk in one file; it has nothing to write but its own saved folder.
FILE_BYTES_MAX: Final = wire.BODY_BYTES_MAX
#: Of an error, what explains it: the end of its text.
WHY_CHARACTERS: Final = 2000


def main(memory_bytes: int) -> None:
    """Serve until standard input ends.

    Args:
        memory_bytes: address space of each process that holds a detector.
    """
    root, control = Path.cwd(), socket.socket(fileno=os.dup(0))
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)  # what is forked is not to find it
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # whoever ends needs nobody to wait for it
        try:
            from . import detector  # noqa: F401 - imported here, before there is a fork that would import it again
        except Exception as error:  # noqa: BLE001 - whatever an environment's packages raise, the other side is told
            wire.send(control, {"error": _text(error)})
            return
        wire.send(control, {"ready": sys.version})
        libc = ctypes.CDLL(None, use_errno=True)
        while True:
            _, descriptors, _, _ = socket.recv_fds(control, 1, 1)
            if not descriptors:
                return
            link, mine = socket.socket(fileno=descriptors[0]), os.getpid()
            if os.fork() == 0:
                control.close()
                with contextlib.suppress(BaseException):
                    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
                    if os.getppid() == mine:  # it had not ended before it could be watched
                        _hold(link, memory_bytes, libc, root)
                os._exit(0)
            link.close()
    finally:
        if control.fileno() >= 0:
            shutil.rmtree(root, ignore_errors=True)


def _hold(link: socket.socket, memory_bytes: int, libc: ctypes.CDLL, root: Path) -> None:
    """Answer for one detector."""
    from . import detector

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES_MAX, FILE_BYTES_MAX))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    folder = Path(tempfile.mkdtemp(dir=root))
    os.chdir(folder)
    os.environ["TMPDIR"] = str(folder)
    tempfile.tempdir = None
    wire.send(link, {"pid": os.getpid()})
    held: detector.Nothing | detector.Opened = detector.Nothing()
    try:
        while True:
            asked = wire.receive(link)
            try:
                held, answer = held.answer(asked)
            except Exception as error:  # noqa: BLE001 - whatever a saved detector's code raises, the other side is told
                answer = wire.Message({"error": _text(error)}, {})
            wire.send(link, answer.said, answer.arrays)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _text(error: BaseException) -> str:
    """The error and what it came from, last first: alibi-detect wraps what the reader needs to know."""
    causes = []
    one: BaseException | None = error
    while one is not None:
        causes.append("".join(traceback.format_exception_only(one)).strip())
        one = one.__cause__
    return "; from ".join(causes)[-WHY_CHARACTERS:]
