"""What the bus tests share: waiting with a deadline, and the consumer that the protocol describes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence

from govern.bus import Bus, Message, Outgoing, Partition, Subscription, Transactor
from govern.bus.protocol import Fenced

DEADLINE_S = 60.0


def out(value: str, *, key: str = "k", partition: int | None = None) -> Outgoing:
    return Outgoing(key=key.encode(), value=value.encode(), partition=partition)


def values(messages: Sequence[Message]) -> list[str]:
    return [message.value.decode() for message in messages if message.value is not None]


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait for a condition whose check itself waits a little (a poll)."""
    deadline = time.monotonic() + DEADLINE_S
    while not await condition():
        assert time.monotonic() < deadline, f"{what}: not within {DEADLINE_S:.0f} s"


async def take(subscription: Subscription, count: int) -> list[Message]:
    """Poll until `count` messages have come, and see that no more do."""
    taken: list[Message] = []

    async def enough() -> bool:
        taken.extend(await subscription.poll(timeout_s=0.2))
        return len(taken) >= count

    await until(enough, f"{count} messages")
    taken += await subscription.poll(timeout_s=0.2)
    assert len(taken) == count
    return taken


async def read_all(bus: Bus, topic: str, count: int) -> list[Message]:
    """Everything in a topic, in partition order, once `count` messages are there.

    On Kafka the messages of a transaction appear a moment after it has ended.
    """
    found: list[Message] = []

    async def there() -> bool:
        found.clear()
        for number in range(await bus.partitions(topic)):
            start = 0
            while batch := await bus.read(Partition(topic, number), start):
                found.extend(batch)
                start = batch[-1].offset + 1
        if len(found) < count:
            await asyncio.sleep(0.2)  # reading a long topic again and again would keep others from working
        return len(found) >= count

    await until(there, f"{count} messages in {topic}")
    return found


async def settled(bus: Bus, topic: str) -> list[Message]:
    """Everything in a topic, in partition order, once no transaction in it is open.

    On Kafka a transaction's messages appear in each partition on its own, a moment after the transaction has ended:
    what is seen of it in one topic says nothing of another. The reader of a table waits for open transactions.
    """
    found: list[Message] = []
    for number in range(await bus.partitions(topic)):
        partition = Partition(topic, number)
        await bus.read_table(partition)
        start = 0
        while batch := await bus.read(partition, start):
            found.extend(batch)
            start = batch[-1].offset + 1
    return found


class Counter:
    """The consumer of the protocol's docstring: one transactor per partition, opened when it is assigned.

    It numbers the messages of each partition: `value` becomes `value#n` in `target`. The number, the message and the
    offset go into one transaction; the number is kept in the compacted topic `state`. So each loss, repetition or
    reordering shows in `target`.
    """

    def __init__(self, bus: Bus, source: str, target: str, state: str, group: str) -> None:
        self._bus = bus
        self._source = source
        self._target = target
        self._state = state
        self._group = group
        self._transactors: dict[Partition, Transactor] = {}
        self._counts: dict[Partition, int] = {}
        self.subscription: Subscription

    @property
    def holds(self) -> frozenset[Partition]:
        return frozenset(self._transactors)

    async def start(self) -> None:
        self.subscription = await self._bus.subscribe(
            [self._source], self._group, on_assigned=self._assigned, on_revoked=self._revoked
        )

    async def step(self, *, max_messages: int = 20) -> None:
        """Handle what one poll brings."""
        messages = await self.subscription.poll(max_messages=max_messages, timeout_s=0.1)
        for partition in {message.tp for message in messages}:
            mine = [message for message in messages if message.tp == partition]
            # Fenced: another member has the partition, and does this work; the next poll says so.
            with contextlib.suppress(Fenced):
                await self._handle(partition, mine)

    async def close(self) -> None:
        await self.subscription.close()

    async def _handle(self, partition: Partition, messages: list[Message]) -> None:
        numbered = list(enumerate(values(messages), self._counts[partition] + 1))
        async with self._transactors[partition].transaction() as transaction:
            await transaction.publish(self._target, [out(f"{value}#{n}", key="n") for n, value in numbered])
            count = out(str(numbered[-1][0]), key=str(partition.partition), partition=partition.partition)
            await transaction.publish(self._state, [count])
            await transaction.commit_offsets(self._group, {partition: messages[-1].offset + 1})
        self._counts[partition] = numbered[-1][0]

    async def _assigned(self, partitions: frozenset[Partition]) -> None:
        for partition in partitions:
            name = f"{self._group}.{partition.topic}.{partition.partition}"
            self._transactors[partition] = await self._bus.transactor(name)
            table = await self._bus.read_table(Partition(self._state, partition.partition))
            self._counts[partition] = int(table.get(str(partition.partition).encode(), b"0"))
            await self.subscription.seek(partition, await self.subscription.committed(partition) or 0)

    async def _revoked(self, partitions: frozenset[Partition]) -> None:
        for partition in partitions:
            await self._transactors.pop(partition).close()


def assert_numbered(found: Sequence[Message], sent: Sequence[str], *, partitions: int) -> None:
    """`found` is what a `Counter` makes of `sent`, whose n-th message went to partition n modulo `partitions`."""
    by_partition: dict[int, list[str]] = {number: [] for number in range(partitions)}
    for value in values(found):
        text, n = value.split("#")
        by_partition[int(text) % partitions].append(value)
        assert int(n) == len(by_partition[int(text) % partitions]), f"{value} is out of turn"
    for number, numbered in by_partition.items():
        assert [value.split("#")[0] for value in numbered] == sent[number::partitions]
