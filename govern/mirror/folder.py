"""The spool's folders: what lies where, and under which name.

<spool>/<agent>.agent                 who the agent is, its counters, its lock
<spool>/<agent>.<number>.seg           segments in memory (tmpfs)
<disk>/<agent>.<number>.seg            sealed segments that the shipper moved out of memory
<spool>/spool.id                      the spool's own name, part of the shipper's transactional id
<spool>/retired.json                  what dead agents had counted
<spool>/key.id                        names the key of encrypted segments: see `cipher`

The one shipper holds a lock (flock) on each of the two folders themselves.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from govern.errors import Unavailable

_SEGMENT: Final = re.compile(r"(?P<agent>[^.].*)\.(?P<number>[0-9]{10})\.seg")
_MEMORY: Final = frozenset({"tmpfs", "ramfs"})
_SHM: Final = Path("/dev/shm")  # noqa: S108 - the folder made there is private, and checked to be


class SegmentPath(NamedTuple):
    agent: str
    number: int
    path: Path


def default_spool_dir() -> Path:
    """On tmpfs where there is one: a store into the map then never waits for a disk."""
    base = _SHM if os.access(_SHM, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())
    return base / f"govern-spool-{os.geteuid()}"


def make_private(folder: Path) -> None:
    """Create the folder with mode 0700, or check that it is ours alone.

    Raises:
        Unavailable: it cannot be made, or others can reach what lies in it.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = folder.lstat()
    except OSError as error:
        raise Unavailable(
            f"spool folder {folder}",
            why=f"it cannot be made: {error.strerror}",
            fix="name a folder that this user can create (spool_dir, disk_dir)",
        ) from error
    if state.st_uid != os.geteuid() or state.st_mode & 0o077:
        raise Unavailable(
            f"spool folder {folder}",
            why=f"it belongs to user {state.st_uid} with mode {state.st_mode & 0o777:04o}: others could read payloads",
            fix=f"chmod 700 {folder}, or name another folder (spool_dir, disk_dir)",
        )


def take(folder: Path, *, by: str) -> int:
    """Lock a folder until the file descriptor that is returned is closed; the kernel does it when the process dies.

    Args:
        by: which kind of process works on a folder alone: shipper or sink.

    Raises:
        Unavailable: another one works on it.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise Unavailable(
            f"{by} folder {folder}",
            why=f"another {by} works on it",
            fix=f"run one {by} per spool; stop the other one first, or name another spool (spool_dir)",
        ) from error
    return fd


def in_memory(folder: Path) -> bool:
    """Whether the folder is on tmpfs or ramfs; where that cannot be said (no Linux), it is taken for a disk."""
    device = os.stat(folder).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return False
    for fields in map(str.split, mounts):  # proc(5): the type follows the field "-"
        if fields[2] == wanted:
            return fields[fields.index("-") + 1] in _MEMORY
    return False


def segment_path(folder: Path, agent: str, number: int) -> Path:
    return folder / f"{agent}.{number:010d}.seg"


def segments(folder: Path) -> Iterator[SegmentPath]:
    """The folder's segments, in no order. None when there is no such folder."""
    for name in _names(folder):
        match = _SEGMENT.fullmatch(name)
        if match:
            yield SegmentPath(match["agent"], int(match["number"]), folder / name)


def agents(folder: Path) -> Iterator[Path]:
    """The files of the folder's agents, in no order."""
    for name in _names(folder):
        if name.endswith(".agent") and not name.startswith("."):
            yield folder / name


def drafts(folder: Path, agent: str) -> Iterator[Path]:
    """Files of the agent that were being made when it was killed."""
    for name in _names(folder):
        if name.startswith(f".{agent}."):
            yield folder / name


def held_bytes(folder: Path) -> int:
    """Bytes that the folder's segments take."""
    total = 0
    for segment in segments(folder):
        try:
            total += segment.path.stat().st_size
        except FileNotFoundError:  # shipped and deleted since it was listed
            continue
    return total


def spool_id(folder: Path) -> str:
    """The name that this spool keeps for its whole life."""
    path = folder / "spool.id"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        known = path.read_text().strip()
        if known:
            return known
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)  # its maker died before it wrote
    with os.fdopen(fd, "w") as file:
        name = secrets.token_hex(8)
        file.write(name)
    return name


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []
