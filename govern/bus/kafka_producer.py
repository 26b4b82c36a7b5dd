"""Writing to Kafka: an idempotent producer, and with it the transactor."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final, Protocol, Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, ProducerClosed
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from govern.bus.kafka_errors import kafka_errors, too_large
from govern.bus.partitioner import partition_of
from govern.bus.protocol import BusError, Outgoing, Partition, Transaction, UnknownTopic

#: What one batch of a partition is filled up to, bytes: a quarter of the largest request that brokers take.
_BATCH_BYTES: Final = 256 * 1024

#: The largest request to a broker: aiokafka's default, and Kafka's for a batch.
_REQUEST_BYTES: Final = 1024 * 1024

#: A transaction left open by a process that died holds back the readers of its partitions; the broker ends it after
#: this time, unless the next holder of its id comes first. Long enough for the slowest window's verdicts.
_TRANSACTION_TIMEOUT_MS: Final = 60_000

#: How long closing may wait for the broker, seconds.
_STOP_S: Final = 5.0


class Partitions(Protocol):
    """How many partitions a topic has."""

    async def __call__(self, topic: str) -> int: ...


class KafkaProducer:
    """One aiokafka producer, started. After an error of any kind it is to be discarded.

    (An idempotent producer numbers its batches per partition: once one is refused, the ones after it are out of order.)
    """

    def __init__(
        self, producer: AIOKafkaProducer, partitions: Partitions, *, name: str, timeout_s: float, message_bytes: int
    ) -> None:
        self._producer = producer
        self._partitions = partitions
        self._name = name
        self._timeout_s = timeout_s
        self._message_bytes = message_bytes

    @classmethod
    async def start(
        cls,
        connect: Mapping[str, object],
        partitions: Partitions,
        *,
        name: str,
        timeout_s: float,
        message_bytes: int,
        transactional_id: str | None = None,
    ) -> Self:
        """Connect. With an id: fence its earlier holders, and wait until their last transaction has ended.

        (InitProducerId is answered CONCURRENT_TRANSACTIONS until the markers of that transaction, of its offsets too,
        have been written to every partition; aiokafka repeats it until then.)
        """
        producer = AIOKafkaProducer(
            **connect,
            acks="all",
            enable_idempotence=True,
            compression_type="zstd",
            max_batch_size=_BATCH_BYTES,
            max_request_size=max(_REQUEST_BYTES, message_bytes + _BATCH_BYTES),
            transactional_id=transactional_id,
            transaction_timeout_ms=_TRANSACTION_TIMEOUT_MS,
        )
        try:
            async with kafka_errors(name, timeout_s=timeout_s):
                await producer.start()
        except BaseException:
            await _discard(producer)
            raise
        return cls(producer, partitions, name=name, timeout_s=timeout_s, message_bytes=message_bytes)

    async def send(self, topic: str, messages: Sequence[Outgoing]) -> list[asyncio.Future[object]]:
        """Hand messages to the sender; the futures, one per batch, are done when the broker has them."""
        count = await self._partitions(topic)
        by_partition: dict[int, list[Outgoing]] = {}
        for message in messages:
            size = len(message.key) + len(message.value or b"") + sum(len(k) + len(v) for k, v in message.headers)
            if size > self._message_bytes:
                raise too_large(topic, why=f"a message has {size:,} bytes; the limit is {self._message_bytes:,}")
            number = partition_of(message.key, count) if message.partition is None else message.partition
            if not 0 <= number < count:
                raise UnknownTopic.named(f"{topic}, partition {number}")
            by_partition.setdefault(number, []).append(message)
        sent: list[asyncio.Future[object]] = []
        async with kafka_errors(self._named(topic), timeout_s=self._timeout_s):
            for number, chosen in by_partition.items():
                rest = chosen
                while rest:
                    batch = self._producer.create_batch()
                    rest = rest[_fill(batch, rest) :]
                    future = await self._producer.send_batch(batch, topic, partition=number)
                    future.add_done_callback(_note_outcome)
                    sent.append(future)
        return sent

    async def delivered(self, topic: str, sent: Sequence[asyncio.Future[object]]) -> None:
        """Wait until the broker has every batch; aiokafka's commit would not mind a batch that failed."""
        async with kafka_errors(self._named(topic), timeout_s=self._timeout_s):
            if sent:
                await asyncio.wait(sent)
            for batch in sent:
                batch.result()

    async def begin(self) -> None:
        async with kafka_errors(self._name, timeout_s=self._timeout_s):
            await self._producer.begin_transaction()
            # Set when the transaction ends, in an error too; nobody asks for it when we are told by another call.
            self._producer._txn_manager._transaction_waiter.add_done_callback(_note_outcome)

    async def add_offsets(self, group: str, offsets: Mapping[Partition, int]) -> None:
        async with kafka_errors(self._name, timeout_s=self._timeout_s):
            named = {TopicPartition(*tp): OffsetAndMetadata(offset, "") for tp, offset in offsets.items()}
            await self._producer.send_offsets_to_transaction(named, group)

    async def commit(self) -> None:
        async with kafka_errors(self._name, timeout_s=self._timeout_s):
            await self._producer.commit_transaction()

    async def abort(self) -> None:
        async with kafka_errors(self._name, timeout_s=_STOP_S):
            await self._producer.abort_transaction()

    async def close(self) -> None:
        """Deliver what is waiting, as far as the broker is there."""
        with contextlib.suppress(BusError):
            async with kafka_errors(self._name, timeout_s=_STOP_S):
                await self._producer.flush()
        await self.discard()

    async def discard(self) -> None:
        """Close the connections at once; what was not delivered is given up."""
        await _discard(self._producer)

    def _named(self, topic: str) -> str:
        transactional: str | None = self._producer._txn_manager.transactional_id
        return transactional or topic


def _fill(batch: object, messages: Sequence[Outgoing]) -> int:
    """Append messages until the batch is full; how many. The first always fits."""
    append = batch.append  # type: ignore[attr-defined]
    for index, message in enumerate(messages):
        if append(key=message.key, value=message.value, timestamp=None, headers=list(message.headers)) is None:
            return index
    return len(messages)


def _note_outcome(done: asyncio.Future[object]) -> None:
    """Nobody asks for the outcome of a transaction that is given up, or of its batches; asyncio would log that."""
    if not done.cancelled():
        done.exception()


async def _discard(producer: AIOKafkaProducer) -> None:
    """aiokafka's `stop` waits without end for batches that it cannot deliver; so they are failed first."""
    producer._message_accumulator.fail_all(ProducerClosed())
    # An error that follows another has a waiter of its own, which `begin` has not seen.
    waiter = producer._txn_manager._transaction_waiter
    if waiter is not None:
        waiter.add_done_callback(_note_outcome)
    try:
        async with asyncio.timeout(_STOP_S):
            await producer.stop()
    except (TimeoutError, KafkaError, KeyError):
        # KeyError: a batch that was on its way when it was failed cannot be put back into the queue.
        pass
    finally:
        await producer.client.close()


class KafkaTransactor:
    """A `Transactor`."""

    def __init__(self, producer: KafkaProducer, transactional_id: str) -> None:
        self._producer = producer
        self._id = transactional_id
        self._lost = False

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        if self._lost:
            raise BusError(
                f"transactional id {self._id}",
                why="an earlier transaction of this transactor has failed, or it was closed",
                fix="open a new transactor and start from the last commit",
            )
        self._lost = True  # until it has ended well
        transaction = KafkaTransaction(self._producer)
        try:
            await self._producer.begin()
            yield transaction
        except BaseException:
            await self._abort()
            raise
        try:
            await self._producer.delivered(self._id, transaction.sent)
            await self._producer.commit()
        except BaseException:
            await self.close()
            raise
        self._lost = False

    async def close(self) -> None:
        self._lost = True
        await self._producer.discard()

    async def _abort(self) -> None:
        """End the transaction; if that fails too, leave it to the broker (see `_TRANSACTION_TIMEOUT_MS`)."""
        try:
            await self._producer.abort()
            self._lost = False
        except (BusError, AssertionError):
            # AssertionError: aiokafka's state machine, when the producer has been fenced.
            await self.close()


class KafkaTransaction:
    """A `Transaction`."""

    def __init__(self, producer: KafkaProducer) -> None:
        self._producer = producer
        self._group: str | None = None
        self.sent: list[asyncio.Future[object]] = []

    async def publish(self, topic: str, messages: Sequence[Outgoing]) -> None:
        self.sent += await self._producer.send(topic, messages)

    async def commit_offsets(self, group: str, offsets: Mapping[Partition, int]) -> None:
        if self._group not in (None, group):
            # aiokafka would add the second group's offsets without telling the transaction's coordinator of it.
            raise ValueError(f"a transaction commits the offsets of one group, {self._group}, not also of {group}")
        self._group = group
        await self._producer.add_offsets(group, offsets)
