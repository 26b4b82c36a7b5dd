"""An agent: one run of a process that captures. Its file holds who it is and what it has counted.

The counters lie in a mapped page of their own, `<agent>.agent`, so that they survive kill -9 of the agent and the
deletion of its segments. The agent holds a lock (flock) on the file for as long as it lives: whoever can take the
lock knows that it is dead.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import re
import secrets
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from govern.errors import ArtifactError

MAGIC: Final = b"GOVAGNT\n"
#: One page: the smallest thing that can be mapped.
FILE_BYTES: Final = 4096
_CAPTURED: Final = 1
_SAMPLED_OUT: Final = 2
_DROPPED: Final = 3
_REFUSED: Final = 4
_META_AT: Final = 64
_META_BYTES_MAX: Final = FILE_BYTES - _META_AT
#: Long enough for a pod's name (63 characters); short enough for a segment's header and a file's name.
_POD_CHARS_MAX: Final = 63


class AgentInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Who an agent is: the labels of its counters."""

    agent: str
    pod: str = ""
    namespace: str = ""
    service: str = ""
    model: str = ""
    revision: str = ""
    endpoint: str = ""
    #: What it captures: "inferences", or "feedback", which is shipped but no part of the account of inferences.
    stream: str = "inferences"


class Counts(NamedTuple):
    """What an agent has counted since it began. `seen` is their sum at every moment, by construction."""

    captured: int = 0
    sampled_out: int = 0
    dropped: int = 0

    @property
    def seen(self) -> int:
        return self.captured + self.sampled_out + self.dropped

    def __add__(self, other: object) -> Counts:
        if not isinstance(other, Counts):
            return NotImplemented
        return Counts(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


def agent_name(pod: str) -> str:
    """A name that no other run of any process has: pod, process id, 64 random bits."""
    safe = re.sub(r"[^A-Za-z0-9_-]", "-", pod)[:_POD_CHARS_MAX]
    return f"{safe}.{os.getpid()}.{secrets.token_hex(8)}"


class AgentFile:
    """The agent's own side of its file.

    Raises:
        OSError: the file cannot be created (ENOSPC, EACCES).
    """

    def __init__(self, folder: Path, info: AgentInfo) -> None:
        self.path = folder / f"{info.agent}.agent"
        meta = msgspec.json.encode(info)
        if len(meta) > _META_BYTES_MAX:
            raise ValueError("an agent's labels must fit in one page")
        # Made under another name and locked before it gets its own: nobody sees it unlocked while we live.
        draft = folder / f".{info.agent}.draft"
        self._fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            os.posix_fallocate(self._fd, 0, FILE_BYTES)
            self._map = mmap.mmap(self._fd, FILE_BYTES)
            self._map[:8] = MAGIC
            self._map[_META_AT : _META_AT + len(meta)] = meta
            os.rename(draft, self.path)
        except OSError:
            draft.unlink(missing_ok=True)
            os.close(self._fd)
            raise
        self._words = memoryview(self._map)[:_META_AT].cast("Q")

    def set_captured(self, count: int) -> None:
        self._words[_CAPTURED] = count

    def set_sampled_out(self, count: int) -> None:
        self._words[_SAMPLED_OUT] = count

    def set_dropped(self, count: int) -> None:
        self._words[_DROPPED] = count

    def set_refused(self, refused: bool) -> None:
        """Whether its configuration file, as it is now, is refused."""
        self._words[_REFUSED] = refused

    def close(self) -> None:
        """Give up the lock: the agent is dead from now on. The file stays for whoever ships."""
        self._words.release()
        self._map.close()
        os.close(self._fd)


class AgentView:
    """Another process's view of an agent's file.

    Raises:
        OSError: the file cannot be read.
        ArtifactError: it is no agent's file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.pread(self._fd, FILE_BYTES, 0)
            if data[:8] != MAGIC:
                raise ArtifactError(
                    f"{path} is no agent's file",
                    why="it does not begin with the header of one",
                    fix="keep other files out of the spool's folders; move this one away",
                )
            self.info = msgspec.json.decode(data[_META_AT:].rstrip(b"\0"), type=AgentInfo)
        except msgspec.DecodeError as error:
            os.close(self._fd)
            raise ArtifactError(
                f"{path} is damaged", why=f"its description cannot be read: {error}", fix="move it away"
            ) from error
        except BaseException:
            os.close(self._fd)
            raise

    def counts(self) -> Counts:
        words = memoryview(os.pread(self._fd, _META_AT, 0)).cast("Q")
        return Counts(words[_CAPTURED], words[_SAMPLED_OUT], words[_DROPPED])

    def refuses(self) -> bool:
        """Whether it refuses its configuration file, and goes by older rules."""
        return bool(memoryview(os.pread(self._fd, _META_AT, 0)).cast("Q")[_REFUSED])

    def alive(self) -> bool:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        return False

    def close(self) -> None:
        os.close(self._fd)
