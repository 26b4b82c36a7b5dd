"""What the bus tests share: waiting with a deadline, and the consumer that the protocol describes."""

from __future__ import annotations

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
        return len(found) >= count

    await until(there, f"{count} messages in {topic}")
    return found


class Copier:
    """The consumer of the protocol's docstring: one transactor per partition, opened when it is assigned.

    Copies each message to `target` and the offset with it.
    """

    def __init__(self, bus: Bus, source: str, target: str, group: str) -> None:
        self._bus = bus
        self._source = source
        self._target = target
        self._group = group
        self._transactors: dict[Partition, Transactor] = {}
        self.subscription: Subscription
        self.copied = 0

    @property
    def holds(self) -> frozenset[Partition]:
        return frozenset(self._transactors)

    async def start(self) -> None:
        self.subscription = await self._bus.subscribe(
            [self._source], self._group, on_assigned=self._assigned, on_revoked=self._revoked
        )

    async def step(self, *, max_messages: int = 20) -> None:
        """Copy what one poll brings."""
        messages = await self.subscription.poll(max_messages=max_messages, timeout_s=0.1)
        for partition in {message.tp for message in messages}:
            mine = [message for message in messages if message.tp == partition]
            try:
                async with self._transactors[partition].transaction() as transaction:
                    outgoing = [Outgoing(key=message.key, value=message.value) for message in mine]
                    await transaction.publish(self._target, outgoing)
                    await transaction.commit_offsets(self._group, {partition: mine[-1].offset + 1})
            except Fenced:
                continue  # another member has the partition, and the messages; the next poll says so
            self.copied += len(mine)

    async def close(self) -> None:
        await self.subscription.close()

    async def _assigned(self, partitions: frozenset[Partition]) -> None:
        for partition in partitions:
            name = f"{self._group}.{partition.topic}.{partition.partition}"
            self._transactors[partition] = await self._bus.transactor(name)
            await self.subscription.seek(partition, await self.subscription.committed(partition) or 0)

    async def _revoked(self, partitions: frozenset[Partition]) -> None:
        for partition in partitions:
            await self._transactors.pop(partition).close()
