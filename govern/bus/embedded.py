"""The bus in one SQLite file: for one machine, for any number of its processes, with nothing to install."""

from __future__ import annotations

import asyncio
import contextlib
import time
import weakref
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from govern.bus.embedded_group import EmbeddedSubscription
from govern.bus.log_thread import LogThread
from govern.bus.membership import Liveness, Member, alone
from govern.bus.protocol import (
    BusError,
    Message,
    Outgoing,
    Partition,
    Rebalance,
    Subscription,
    TopicSpec,
    Transaction,
    Transactor,
)
from govern.bus.sqlite_log import BUSY_TIMEOUT_S, Batch, SqliteLog, place

#: How long a member may go without polling before it counts as hung, seconds. A process that died is noticed at once,
#: by its file lock; so this can be long enough for a slow detector between two polls.
LEASE_S: Final = 30.0

#: How often the retention is applied, seconds.
_SWEEP_S: Final = 60.0


class EmbeddedBus:
    """A `Bus` in the file `path`, and in a folder of locks beside it.

    Args:
        lease_s: how long a group's member may go without polling.
        max_bytes: the size that this process lets the file grow to; publishing then fails as on a full disk.
        clock: seconds since the Unix epoch.
    """

    def __init__(
        self,
        path: Path,
        *,
        lease_s: float = LEASE_S,
        max_bytes: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._folder = path.with_name(f"{path.name}-live")
        self._lease_s = lease_s
        self._max_bytes = max_bytes
        self._clock = clock
        self._next_sweep = 0.0
        self._topics: dict[str, TopicSpec] = {}
        self._subscriptions = weakref.WeakSet[EmbeddedSubscription]()
        self._open = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as opening:
            try:
                self._liveness = await asyncio.to_thread(Liveness, self._folder)
            except OSError as error:
                raise BusError(
                    f"bus file {self._path}",
                    why=f"the folder beside it cannot be used: {error}",
                    fix="check that the bus file's folder exists and is writable",
                ) from error
            opening.callback(self._liveness.close)
            # Three connections: reading never waits behind a writer that waits for another process; and the third
            # only asks whether anything has changed, which takes microseconds and so is done without a thread.
            self._writer = LogThread(await asyncio.to_thread(self._connect))
            opening.push_async_callback(self._writer.close)
            self._reader = LogThread(await asyncio.to_thread(self._connect))
            opening.push_async_callback(self._reader.close)
            self._watcher = await asyncio.to_thread(self._connect, timeout_s=0.0)
            opening.callback(self._watcher.close)
            opening.push_async_callback(self._leave_groups)
            self._open = opening.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._open.aclose()

    async def ensure_topics(self, specs: Sequence[TopicSpec]) -> None:
        await self._writer.run(self._writer.log.ensure_topics, specs)

    async def partitions(self, topic: str) -> int:
        return (await self.topic(topic)).partitions

    async def topic(self, name: str) -> TopicSpec:
        """A topic's settings.

        Raises:
            UnknownTopic: there is no such topic.
        """
        known = self._topics.get(name)
        if known is None:
            known = self._topics[name] = await self._reader.run(self._reader.log.topic, name)
        return known

    async def publish(self, topic: str, messages: Sequence[Outgoing]) -> None:
        await self._sweep()
        await self._writer.run(self._writer.log.publish, [(topic, messages)], self._now_ms())

    async def transactor(self, transactional_id: str) -> Transactor:
        epoch = await self._writer.run(self._writer.log.open_transactor, transactional_id)
        return EmbeddedTransactor(self, transactional_id, epoch)

    async def commit(
        self,
        transactional_id: str,
        epoch: int,
        batches: Sequence[Batch],
        offsets: Mapping[tuple[str, Partition], int],
    ) -> None:
        """Write a whole transaction.

        Raises:
            Fenced: `epoch` is not the newest of the id.
        """
        await self._sweep()
        commit = self._writer.log.commit
        await self._writer.run(commit, transactional_id, epoch, batches, offsets, self._now_ms())

    async def subscribe(
        self,
        topics: Sequence[str],
        group: str,
        *,
        on_assigned: Rebalance | None = None,
        on_revoked: Rebalance | None = None,
    ) -> Subscription:
        for name in topics:
            await self.topic(name)
        member = Member(
            self._writer.log,
            group,
            topics,
            owner=self._liveness.owner,
            folder=self._folder,
            lease_ms=int(self._lease_s * 1000),
        )
        subscription = EmbeddedSubscription(
            group,
            member,
            reader=self._reader,
            writer=self._writer,
            watcher=self._watcher,
            folder=self._folder,
            heartbeat_s=self._lease_s / 3,
            clock=self._clock,
            on_assigned=on_assigned,
            on_revoked=on_revoked,
        )
        await subscription.join()
        self._subscriptions.add(subscription)
        return subscription

    async def read(self, partition: Partition, start: int, *, max_messages: int = 1000) -> list[Message]:
        return await self._reader.run(self._reader.log.fetch, partition, start, max_messages)

    async def start_offset(self, partition: Partition) -> int:
        return await self._reader.run(self._reader.log.start_offset, partition)

    async def end_offset(self, partition: Partition) -> int:
        return await self._reader.run(self._reader.log.end_offset, partition)

    async def read_table(self, partition: Partition) -> dict[bytes, bytes]:
        return await self._reader.run(self._reader.log.table, partition)

    def _connect(self, *, timeout_s: float = BUSY_TIMEOUT_S) -> SqliteLog:
        with alone(self._folder):
            return SqliteLog(self._path, max_bytes=self._max_bytes, timeout_s=timeout_s).create()

    async def _leave_groups(self) -> None:
        for left_open in list(self._subscriptions):
            await left_open.close()

    async def _sweep(self) -> None:
        now = self._clock()
        if now >= self._next_sweep:
            self._next_sweep = now + _SWEEP_S
            await self._writer.run(self._writer.log.sweep, self._now_ms())

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


class EmbeddedTransactor:
    """A `Transactor`: what it publishes waits in memory, and is written in one go at the end."""

    def __init__(self, bus: EmbeddedBus, transactional_id: str, epoch: int) -> None:
        self._bus = bus
        self._id = transactional_id
        self._epoch = epoch
        self._lost = False

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        if self._lost:
            raise BusError(
                f"transactional id {self._id}",
                why="an earlier transaction of this transactor has failed, or it was closed",
                fix="open a new transactor and start from the last commit",
            )
        transaction = EmbeddedTransaction(self._bus)
        yield transaction
        self._lost = True  # whatever interrupts the commit, cancellation included, leaves its outcome unknown
        await self._bus.commit(self._id, self._epoch, transaction.batches, transaction.offsets)
        self._lost = False

    async def close(self) -> None:
        self._lost = True


class EmbeddedTransaction:
    """A `Transaction` in memory."""

    def __init__(self, bus: EmbeddedBus) -> None:
        self._bus = bus
        self.batches: list[Batch] = []
        self.offsets: dict[tuple[str, Partition], int] = {}

    async def publish(self, topic: str, messages: Sequence[Outgoing]) -> None:
        spec = await self._bus.topic(topic)
        for message in messages:
            place(spec, message)
        self.batches.append((topic, tuple(messages)))

    async def commit_offsets(self, group: str, offsets: Mapping[Partition, int]) -> None:
        self.offsets.update({(group, partition): offset for partition, offset in offsets.items()})
