"""Groups of the embedded bus: who is a member, and who holds which partition. Synchronous, over the SQLite file.

A member is alive while the process that opened its bus lives (the kernel says so: a file lock) and while it polls
within its lease. A partition passes from hand to hand: its new member gets it only once the old one has given it
back, or is known to be gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from govern.bus.protocol import Fenced, Partition
from govern.bus.sqlite_log import SqliteLog
from govern.ids import uuid7


class Liveness:
    """A file that its process keeps locked. However the process ends, the kernel lets the lock go at once."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / uuid7()
        self._file = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR)
        fcntl.flock(self._file, fcntl.LOCK_EX)

    @property
    def owner(self) -> str:
        """The name by which others ask whether this process lives."""
        return self._path.name

    def close(self) -> None:
        self._path.unlink(missing_ok=True)
        os.close(self._file)

    @staticmethod
    def lives(folder: Path, owner: str) -> bool:
        try:
            file = os.open(folder / owner, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            # Shared, so that two who ask at the same time do not take each other for the owner.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(file)
        (folder / owner).unlink(missing_ok=True)
        return False


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Within the block no other process is within its own."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


class Standing(NamedTuple):
    """What a member has in its group at one moment.

    Attributes:
        joined: the generation in which the member joined; another number than before = its lease had ended.
        held: the partitions that are its own.
        surplus: those of `held` that it must give back to others.
        generation: changes whenever anybody's standing may have changed.
    """

    joined: int
    held: frozenset[Partition]
    surplus: frozenset[Partition]
    generation: int


class Member:
    """One member's row in the file.

    Args:
        log: the connection to write with.
        owner: the name of the lock that this process holds (see `Liveness`).
        folder: where the locks of all processes are.
        lease_ms: how long a member may be silent before it counts as hung.
    """

    def __init__(
        self, log: SqliteLog, group: str, topics: Sequence[str], *, owner: str, folder: Path, lease_ms: int
    ) -> None:
        self._log = log
        self._group = group
        self._topics = sorted(set(topics))
        self._owner = owner
        self._folder = folder
        self._lease_ms = lease_ms
        # UUIDv7 sorts by time: a newcomer takes the last seat, and the others keep theirs.
        self._name = uuid7()

    def standing(self, now_ms: int) -> Standing:
        """Renew the lease (join if need be), bury the dead, take the free partitions that are ours."""
        with self._log.write():
            changed = self._bury(now_ms)
            joined = self._renew(now_ms)
            if joined is None:
                changed, joined = True, self._generation() + 1
                row = (self._group, self._name, self._owner, json.dumps(self._topics), joined, now_ms + self._lease_ms)
                self._log.connection.execute("INSERT INTO members VALUES (?, ?, ?, ?, ?, ?)", row)
            holders = self._holders()
            shares = self._shares()
            free = [partition for partition, name in shares.items() if name == self._name and partition not in holders]
            self._log.connection.executemany(
                "INSERT INTO holdings VALUES (?, ?, ?, ?)", [(self._group, *tp, self._name) for tp in free]
            )
            held = {tp for tp, name in holders.items() if name == self._name} | set(free)
            if changed:
                self._bump()
            surplus = {tp for tp in held if shares.get(tp) != self._name}
            return Standing(joined, frozenset(held), frozenset(surplus), self._generation())

    def release(self, partitions: Iterable[Partition]) -> None:
        """Give partitions back."""
        rows = [(self._group, self._name, *partition) for partition in partitions]
        with self._log.write():
            self._log.connection.executemany(
                "DELETE FROM holdings WHERE group_name = ? AND member = ? AND topic = ? AND partition = ?", rows
            )
            self._bump()

    def leave(self) -> None:
        with self._log.write():
            self._remove(self._name)
            self._bump()

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Set the group's offsets.

        Raises:
            Fenced: one of the partitions is not ours (any more).
        """
        with self._log.write():
            holders = self._holders()
            if any(holders.get(partition) != self._name for partition in offsets):
                raise Fenced.member(self._group)
            self._log.set_offsets({(self._group, partition): offset for partition, offset in offsets.items()})

    def _bury(self, now_ms: int) -> bool:
        """Remove the members that are gone or silent; whether there were any."""
        rows = self._log.connection.execute(
            "SELECT member, owner, lease_until_ms FROM members WHERE group_name = ?", (self._group,)
        ).fetchall()
        gone = [
            member
            for member, owner, lease_until_ms in rows
            if lease_until_ms < now_ms or (owner != self._owner and not Liveness.lives(self._folder, owner))
        ]
        for member in gone:
            self._remove(member)
        return bool(gone)

    def _renew(self, now_ms: int) -> int | None:
        row: tuple[int] | None = self._log.connection.execute(
            "UPDATE members SET lease_until_ms = ? WHERE group_name = ? AND member = ? RETURNING joined",
            (now_ms + self._lease_ms, self._group, self._name),
        ).fetchone()
        return row and row[0]

    def _remove(self, member: str) -> None:
        for table in ("members", "holdings"):
            self._log.connection.execute(
                f"DELETE FROM {table} WHERE group_name = ? AND member = ?",  # noqa: S608  # our own two names
                (self._group, member),
            )

    def _holders(self) -> dict[Partition, str]:
        rows = self._log.connection.execute(
            "SELECT topic, partition, member FROM holdings WHERE group_name = ?", (self._group,)
        )
        return {Partition(topic, number): member for topic, number, member in rows}

    def _shares(self) -> dict[Partition, str]:
        rows = self._log.connection.execute("SELECT member, topics FROM members WHERE group_name = ?", (self._group,))
        members: dict[str, frozenset[str]] = {name: frozenset(json.loads(topics)) for name, topics in rows}
        counts = {topic: self._log.topic(topic).partitions for topic in frozenset[str]().union(*members.values())}
        return shares(members, counts)

    def _generation(self) -> int:
        return generation(self._log, self._group)

    def _bump(self) -> None:
        self._log.connection.execute(
            "INSERT INTO groups VALUES (?, 1) ON CONFLICT DO UPDATE SET generation = generation + 1", (self._group,)
        )


def generation(log: SqliteLog, group: str) -> int:
    """The number that changes whenever a member of the group comes or goes or gives a partition back."""
    row = log.connection.execute("SELECT generation FROM groups WHERE name = ?", (group,)).fetchone()
    return row[0] if row else 0


def someone_died(log: SqliteLog, group: str, folder: Path) -> bool:
    """Whether the process of a member of the group is gone. Reads only."""
    owners = log.connection.execute("SELECT DISTINCT owner FROM members WHERE group_name = ?", (group,)).fetchall()
    return not all(Liveness.lives(folder, owner) for (owner,) in owners)


def shares(members: Mapping[str, frozenset[str]], counts: Mapping[str, int]) -> dict[Partition, str]:
    """Deal the partitions out in turn: every member computes the same.

    Args:
        members: name -> the topics that it subscribes to.
        counts: topic -> number of partitions.
    """
    dealt: dict[Partition, str] = {}
    seats = itertools.cycle(sorted(members)) if members else itertools.repeat("")
    for topic in sorted(counts):
        if not any(topic in topics for topics in members.values()):
            continue
        for number in range(counts[topic]):
            dealt[Partition(topic, number)] = next(seat for seat in seats if topic in members[seat])
    return dealt
