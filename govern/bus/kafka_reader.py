"""Reading a Kafka partition outside any group."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Final, Self

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from govern.bus.kafka_consumer import FETCH_WAIT_MS, message_of, stop_consumer
from govern.bus.kafka_errors import kafka_errors
from govern.bus.protocol import Message, Partition

#: How long one look for fetched messages waits, milliseconds.
_LOOK_MS: Final = 100

_TABLE_BATCH: Final = 10_000


class KafkaReader:
    """Two consumers without a group: one sees committed messages only, the other tells where the log ends."""

    def __init__(self, committed: AIOKafkaConsumer, uncommitted: AIOKafkaConsumer, *, timeout_s: float) -> None:
        self._committed = committed
        self._uncommitted = uncommitted
        self._timeout_s = timeout_s
        self._free = asyncio.Lock()  # a consumer reads one partition at a time

    @classmethod
    async def start(cls, connect: Mapping[str, object], *, timeout_s: float) -> Self:
        started = []
        try:
            for isolation in ("read_committed", "read_uncommitted"):
                consumer = AIOKafkaConsumer(
                    **connect,
                    enable_auto_commit=False,
                    auto_offset_reset="earliest",
                    isolation_level=isolation,
                    fetch_max_wait_ms=FETCH_WAIT_MS,
                )
                started.append(consumer)
                async with kafka_errors(f"Kafka at {connect['bootstrap_servers']}", timeout_s=timeout_s):
                    await consumer.start()
        except BaseException:
            for consumer in started:
                await stop_consumer(consumer)
            raise
        return cls(*started, timeout_s=timeout_s)

    async def close(self) -> None:
        await stop_consumer(self._committed)
        await stop_consumer(self._uncommitted)

    async def read(self, partition: Partition, start: int, limit: int) -> list[Message]:
        async with self._reading(partition, start) as tp:
            # The last stable offset: where the first transaction that is still open begins, or the end.
            end = await self._end(self._committed, tp)
            return await self._up_to(tp, end, limit) if start < end else []

    async def start_offset(self, partition: Partition) -> int:
        tp = TopicPartition(*partition)
        async with kafka_errors(tp.topic, timeout_s=self._timeout_s):
            start: int = (await self._committed.beginning_offsets([tp]))[tp]
        return start

    async def end_offset(self, partition: Partition) -> int:
        return await self._end(self._committed, TopicPartition(*partition))

    async def table(self, partition: Partition) -> dict[bytes, bytes]:
        """The newest values up to the end of the log, the messages of transactions that are still open included in
        that end: the reader waits for those to finish, since a committed message may lie behind them."""
        newest: dict[bytes, bytes | None] = {}
        async with self._reading(partition, 0) as tp:
            end = await self._end(self._uncommitted, tp)
            while batch := await self._up_to(tp, end, _TABLE_BATCH):
                newest.update((message.key, message.value) for message in batch)
        return {key: value for key, value in newest.items() if value is not None}

    @contextlib.asynccontextmanager
    async def _reading(self, partition: Partition, start: int) -> AsyncIterator[TopicPartition]:
        tp = TopicPartition(*partition)
        async with self._free:
            self._committed.assign([tp])
            self._committed.seek(tp, start)
            yield tp

    async def _end(self, consumer: AIOKafkaConsumer, tp: TopicPartition) -> int:
        async with kafka_errors(tp.topic, timeout_s=self._timeout_s):
            end: int = (await consumer.end_offsets([tp]))[tp]
        return end

    async def _up_to(self, tp: TopicPartition, end: int, limit: int) -> list[Message]:
        """The next messages; none only once the position, which also moves over markers, has come to `end`."""
        async with kafka_errors(tp.topic, timeout_s=self._timeout_s):
            while await self._committed.position(tp) < end:
                found = await self._committed.getmany(tp, timeout_ms=_LOOK_MS, max_records=limit)
                if found:
                    return [message_of(record) for record in found[tp]]
        return []
