"""A member of a group on the embedded bus, as a `Subscription`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from govern.bus import membership
from govern.bus.log_thread import LogThread
from govern.bus.membership import Member
from govern.bus.protocol import BusError, Message, Partition, Rebalance
from govern.bus.sqlite_log import SqliteLog, bus_errors

#: How often a waiting poll looks whether the file has changed, seconds. A look takes about 10 µs.
_LOOK_S: Final = 0.01

#: How often a member looks whether the process of another one has died, seconds.
_ROLL_CALL_S: Final = 1.0


class EmbeddedSubscription:
    """A `Subscription`. Its member row is renewed by polling, every `heartbeat_s`."""

    def __init__(
        self,
        group: str,
        member: Member,
        *,
        reader: LogThread,
        writer: LogThread,
        watcher: SqliteLog,
        folder: Path,
        heartbeat_s: float,
        clock: Callable[[], float],
        on_assigned: Rebalance | None,
        on_revoked: Rebalance | None,
    ) -> None:
        self._group = group
        self._member = member
        self._reader = reader
        self._writer = writer
        self._watcher = watcher
        self._folder = folder
        self._heartbeat_s = heartbeat_s
        self._clock = clock
        self._on_assigned = on_assigned
        self._on_revoked = on_revoked
        self._assigned: frozenset[Partition] = frozenset()
        self._arriving: frozenset[Partition] = frozenset()  # assigned as soon as `on_assigned` has returned
        self._positions: dict[Partition, int] = {}
        self._paused: frozenset[Partition] = frozenset()
        self._joined: int | None = None
        self._generation = -1
        self._next_heartbeat = 0.0
        self._next_roll_call = 0.0
        self._turn = 0
        self._closed = False

    async def join(self) -> None:
        """Take a seat in the group; the first poll then brings the partitions."""
        await self._writer.run(self._member.standing, self._now_ms())

    async def poll(self, *, max_messages: int = 1000, timeout_s: float = 0.5) -> list[Message]:
        deadline = time.monotonic() + timeout_s
        while True:
            if self._closed:
                raise BusError(f"group {self._group}", why="this member has left it", fix="subscribe again")
            version = self._watcher.version()
            if self._generation < 0 or await self._due():
                await self._settle()
            generation, positions, messages = await self._reader.run(self._fetch, max_messages)
            if generation != self._generation:
                self._generation = -1
                continue
            self._positions.update(positions)
            if messages or time.monotonic() >= deadline:
                return messages
            # A commit of another process wakes no event of ours: looking is the only way.
            while self._watcher.version() == version and time.monotonic() < min(deadline, self._next_roll_call):  # noqa: ASYNC110
                await asyncio.sleep(_LOOK_S)

    async def seek(self, partition: Partition, offset: int) -> None:
        self._check_ours(partition)
        self._positions[partition] = offset

    async def committed(self, partition: Partition) -> int | None:
        return await self._reader.run(self._reader.log.committed, self._group, partition)

    async def commit(self, offsets: Mapping[Partition, int]) -> None:
        await self._writer.run(self._member.commit, dict(offsets))

    async def lag(self) -> Mapping[Partition, int]:
        ends = {tp: await self._reader.run(self._reader.log.end_offset, tp) for tp in self._assigned}
        return {tp: max(0, ends[tp] - self._positions[tp]) for tp in ends}

    def pause(self, partitions: frozenset[Partition]) -> None:
        self._paused |= partitions

    def resume(self, partitions: frozenset[Partition]) -> None:
        self._paused -= partitions

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            await self._revoke(self._assigned)
        finally:
            await self._writer.run(self._member.leave)

    async def _due(self) -> bool:
        """Whether it is time to renew the lease, or a member has died."""
        now = time.monotonic()
        if now >= self._next_heartbeat:
            return True
        if now < self._next_roll_call:
            return False
        self._next_roll_call = now + _ROLL_CALL_S
        with bus_errors(self._reader.log.path):
            return await self._reader.run(membership.someone_died, self._reader.log, self._group, self._folder)

    async def _settle(self) -> None:
        """Renew the lease, give up what is not ours any more, and take what has become ours."""
        started = time.monotonic()
        standing = await self._writer.run(self._member.standing, self._now_ms())
        # What the group took away while we were silent is gone even where it has fallen to us again since.
        lost = self._assigned if standing.joined != self._joined else self._assigned - standing.held
        await self._revoke(lost | self._assigned & standing.surplus)
        self._joined = standing.joined
        if standing.surplus:
            await self._writer.run(self._member.release, standing.surplus)
        await self._assign(standing.held - standing.surplus - self._assigned)
        self._generation = standing.generation
        self._next_heartbeat = started + self._heartbeat_s
        self._next_roll_call = started + _ROLL_CALL_S

    async def _revoke(self, partitions: frozenset[Partition]) -> None:
        if not partitions:
            return
        if self._on_revoked is not None:
            await self._on_revoked(partitions)
        self._assigned -= partitions
        self._paused -= partitions
        for partition in partitions:
            self._positions.pop(partition, None)

    async def _assign(self, partitions: frozenset[Partition]) -> None:
        if not partitions:
            return
        self._arriving = partitions
        try:
            if self._on_assigned is not None:
                await self._on_assigned(partitions)
            for partition in partitions - self._positions.keys():
                # Only now: a transactor opened in `on_assigned` has fenced whoever could still commit here.
                self._positions[partition] = await self.committed(partition) or 0
            self._assigned |= partitions
        finally:
            self._arriving = frozenset()
            for partition in partitions - self._assigned:
                self._positions.pop(partition, None)

    def _fetch(self, limit: int) -> tuple[int, dict[Partition, int], list[Message]]:
        """In the reader's thread: the group's generation, the messages, and the positions after them."""
        positions: dict[Partition, int] = {}
        messages: list[Message] = []
        with bus_errors(self._reader.log.path):
            generation = membership.generation(self._reader.log, self._group)
        open_partitions = sorted(self._assigned - self._paused)
        # Each poll starts with another partition, so that one that never runs dry does not starve the others.
        self._turn += 1
        start = self._turn % max(1, len(open_partitions))
        for partition in open_partitions[start:] + open_partitions[:start]:
            if len(messages) >= limit:
                break
            found = self._reader.log.fetch(partition, self._positions[partition], limit - len(messages))
            if found:
                positions[partition] = found[-1].offset + 1
                messages += found
        return generation, positions, messages

    def _check_ours(self, partition: Partition) -> None:
        if partition not in self._assigned | self._arriving:
            raise BusError(
                f"seek of {partition.topic}, partition {partition.partition}",
                why="the partition is not assigned to this member",
                fix="seek within on_assigned, or after it",
            )

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)
