"""A member of a Kafka consumer group, as a `Subscription`.

aiokafka rebalances in the background. This class brings that into `poll`: it lets the group wait, before a partition
is given up, until the member's next poll has run `on_revoked` (the group waits as long as `REBALANCE_S`), and it
returns no message of a new partition before a poll has run `on_assigned`.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import time
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Final, NamedTuple, Self

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import CommitFailedError, IllegalStateError
from aiokafka.structs import TopicPartition

from govern.bus.kafka_consumer import FETCH_WAIT_MS, message_of, stop_consumer
from govern.bus.kafka_errors import kafka_errors
from govern.bus.kafka_member import KafkaMember, StaticCoordinator
from govern.bus.protocol import BusError, Fenced, Message, Partition, Rebalance

#: How long the group waits for a member to poll before it takes the partitions from it, seconds.
REBALANCE_S: Final = 60.0

#: Longest time between two heartbeats, seconds, with which a member hears that the others wait for it in a rebalance.
_HEARTBEAT_S: Final = 3.0

#: How long a member may go without polling when there is no rebalance, seconds (Kafka's max.poll.interval).
_MAX_POLL_INTERVAL_S: Final = 300.0

#: How often a waiting poll looks at what aiokafka has fetched, seconds.
_LOOK_S: Final = 0.01


class _Change(NamedTuple):
    """A rebalance callback that the next poll has to run; `done` lets the group go on."""

    partitions: frozenset[Partition]
    done: asyncio.Future[None] | None


class KafkaSubscription(ConsumerRebalanceListener):  # type: ignore[misc]
    """A `Subscription`."""

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        group: str,
        *,
        on_assigned: Rebalance | None,
        on_revoked: Rebalance | None,
        timeout_s: float,
    ) -> None:
        self._consumer = consumer
        self._group = group
        self._on_assigned = on_assigned
        self._on_revoked = on_revoked
        self._timeout_s = timeout_s
        self._changes: collections.deque[_Change] = collections.deque()
        self._changed = asyncio.Event()
        self._rebalancing = True
        self._assigned: frozenset[Partition] = frozenset()
        self._sought: set[Partition] = set()
        self._closed = False

    @classmethod
    async def join(
        cls,
        connect: Mapping[str, object],
        topics: Sequence[str],
        group: str,
        *,
        member: KafkaMember,
        known_as: MutableMapping[str, str],
        timeout_s: float,
        on_assigned: Rebalance | None,
        on_revoked: Rebalance | None,
    ) -> Self:
        """
        Args:
            known_as: group -> the member id that the broker last gave this process, kept up to date.
        """
        consumer = AIOKafkaConsumer(
            **connect,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            partition_assignment_strategy=(RoundRobinPartitionAssignor,),
            group_instance_id=member.instance_id,
            session_timeout_ms=int(member.session_timeout_s * 1000),
            heartbeat_interval_ms=int(min(_HEARTBEAT_S, member.session_timeout_s / 4) * 1000),
            rebalance_timeout_ms=int(REBALANCE_S * 1000),
            max_poll_interval_ms=int(_MAX_POLL_INTERVAL_S * 1000),
            fetch_max_wait_ms=FETCH_WAIT_MS,
        )
        subscription = cls(consumer, group, on_assigned=on_assigned, on_revoked=on_revoked, timeout_s=timeout_s)
        try:
            async with kafka_errors(group, timeout_s=timeout_s):
                await consumer.start()
            if member.instance_id is not None:
                StaticCoordinator.adopt(consumer, known_as)
            # Not handed to the constructor: `start` would then wait for the other members, who may wait for us.
            consumer.subscribe(topics, listener=subscription)
        except BaseException:
            await subscription.close()
            raise
        return subscription

    async def poll(self, *, max_messages: int = 1000, timeout_s: float = 0.5) -> list[Message]:
        deadline = time.monotonic() + timeout_s
        while True:
            if self._closed:
                raise BusError(f"group {self._group}", why="this member has left it", fix="subscribe again")
            await self._run_callbacks()
            if self._rebalancing:
                # What keeps this member from joining would else be heard of by nobody.
                async with kafka_errors(self._group, timeout_s=self._timeout_s):
                    self._consumer._coordinator.check_errors()
            else:
                # With no timeout it returns what has been fetched without ever waiting: no message can get lost
                # between aiokafka and a caller that is cancelled.
                async with kafka_errors(self._group, timeout_s=self._timeout_s):
                    fetched = await self._consumer.getmany(timeout_ms=0, max_records=max_messages)
                if fetched:
                    return [message_of(record) for records in fetched.values() for record in records]
            rest = deadline - time.monotonic()
            if rest <= 0:
                return []
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(_LOOK_S, rest)):
                    await self._changed.wait()

    async def seek(self, partition: Partition, offset: int) -> None:
        try:
            self._consumer.seek(TopicPartition(*partition), offset)
        except IllegalStateError as error:
            raise BusError(
                f"seek of {partition.topic}, partition {partition.partition}",
                why="the partition is not assigned to this member",
                fix="seek within on_assigned, or after it",
            ) from error
        self._sought.add(partition)

    async def committed(self, partition: Partition) -> int | None:
        async with kafka_errors(self._group, timeout_s=self._timeout_s):
            offset: int | None = await self._consumer.committed(TopicPartition(*partition))
        return offset

    async def commit(self, offsets: Mapping[Partition, int]) -> None:
        if not offsets.keys() <= self._assigned:
            raise Fenced.member(self._group)
        async with kafka_errors(self._group, timeout_s=self._timeout_s):
            try:
                await self._consumer.commit({TopicPartition(*tp): offset for tp, offset in offsets.items()})
            except (CommitFailedError, IllegalStateError) as error:
                raise Fenced.member(self._group) from error

    async def lag(self) -> Mapping[Partition, int]:
        async with kafka_errors(self._group, timeout_s=self._timeout_s):
            ends = await self._consumer.end_offsets([TopicPartition(*tp) for tp in self._assigned])
            return {Partition(*tp): max(0, end - await self._consumer.position(tp)) for tp, end in ends.items()}

    def pause(self, partitions: frozenset[Partition]) -> None:
        self._consumer.pause(*self._ours(partitions))

    def resume(self, partitions: frozenset[Partition]) -> None:
        self._consumer.resume(*self._ours(partitions))

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            await self._revoke(self._assigned)
        finally:
            for change in self._changes:
                if change.done is not None and not change.done.done():
                    change.done.set_result(None)
            self._changes.clear()
            await stop_consumer(self._consumer)

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """aiokafka's background task: nothing is fetched any more; wait until a poll has told the user."""
        self._rebalancing = True
        if revoked and not self._closed:
            done = asyncio.get_running_loop().create_future()
            self._changes.append(_Change(_partitions(revoked), done))
            self._changed.set()
            await done

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """aiokafka's background task, which goes on to send heartbeats; a poll tells the user."""
        self._changes.append(_Change(_partitions(assigned), None))
        self._changed.set()

    async def _run_callbacks(self) -> None:
        while self._changes:
            change = self._changes.popleft()
            if change.done is None:
                await self._assign(change.partitions)
                self._rebalancing = False
                continue
            try:
                await self._revoke(change.partitions & self._assigned)
            finally:
                if not change.done.done():
                    change.done.set_result(None)

    async def _revoke(self, partitions: frozenset[Partition]) -> None:
        if partitions and self._on_revoked is not None:
            await self._on_revoked(partitions)
        self._assigned -= partitions

    async def _assign(self, partitions: frozenset[Partition]) -> None:
        self._sought.clear()
        if partitions and self._on_assigned is not None:
            await self._on_assigned(partitions)
        for partition in partitions - self._sought:
            # Only now: a transactor opened in `on_assigned` has fenced whoever could still commit here. Where the
            # log no longer reaches back to 0, `auto_offset_reset` takes its beginning.
            await self.seek(partition, await self.committed(partition) or 0)
        self._assigned = partitions

    def _ours(self, partitions: frozenset[Partition]) -> list[TopicPartition]:
        return [TopicPartition(*tp) for tp in partitions & self._assigned]


def _partitions(named: set[TopicPartition]) -> frozenset[Partition]:
    return frozenset(Partition(tp.topic, tp.partition) for tp in named)
