"""Reading Seldon's topics: a Kafka consumer without a group, because its places are kept on govern's bus."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Set
from typing import Final, NamedTuple, Self

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import TopicPartition

from govern.bus.kafka_access import KafkaAccess
from govern.bus.kafka_consumer import FETCH_WAIT_MS, message_of, stop_consumer
from govern.bus.kafka_errors import kafka_errors
from govern.bus.protocol import Message, Partition
from govern.mirror.seldon.topics import Selection, Stream

#: How long a call waits for the broker, seconds; as on govern's own bus.
_TIMEOUT_S: Final = 30.0
#: What one answer of the broker may hold, bytes: memory, in front of the join.
_FETCH_BYTES: Final = 16 * 1024 * 1024

_OPEN: Final = KafkaAccess()


class Standing(NamedTuple):
    """Messages between the position and the last committed one, as the broker last said, and when it said so."""

    lag: int
    asked_ms: int


class SeldonSource:
    """The selected partitions of one cluster. Use as an async context manager.

    Args:
        access: how the cluster is reached; without one, unencrypted and as nobody.
    """

    def __init__(self, bootstrap: str, selection: Selection, *, access: KafkaAccess = _OPEN) -> None:
        self._bootstrap = bootstrap
        self._access = access
        self._selection = selection

    async def __aenter__(self) -> Self:
        connect = {
            "bootstrap_servers": self._bootstrap,
            "client_id": "govern-seldon-topics",
            **self._access.options(),
        }
        self._admin = AIOKafkaAdminClient(**connect)
        self._consumer = AIOKafkaConsumer(
            **connect,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            fetch_max_wait_ms=FETCH_WAIT_MS,
            fetch_max_bytes=_FETCH_BYTES,
        )
        try:
            async with kafka_errors(f"Kafka at {self._bootstrap}", timeout_s=_TIMEOUT_S):
                await self._admin.start()
                await self._consumer.start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        async with contextlib.AsyncExitStack() as closing:
            closing.push_async_callback(self._admin.close)
            closing.push_async_callback(stop_consumer, self._consumer)

    async def discover(self) -> dict[Partition, Stream]:
        """The partitions to read, as they are now. All topics are asked for: to ask for one could create it."""
        async with kafka_errors(f"Kafka at {self._bootstrap}", timeout_s=_TIMEOUT_S):
            topics = await self._admin.describe_topics()
        found = {}
        for topic in topics:
            stream = self._selection.stream(topic["topic"])
            if stream is not None and not topic["error_code"]:
                for partition in topic["partitions"]:
                    found[Partition(topic["topic"], partition["partition"])] = stream
        return found

    async def ends(self, partitions: Set[Partition]) -> dict[Partition, int]:
        """The offset after the last committed message of each."""
        if not partitions:
            return {}
        async with kafka_errors(f"Kafka at {self._bootstrap}", timeout_s=_TIMEOUT_S):
            ends = await self._consumer.end_offsets([TopicPartition(*tp) for tp in partitions])
        return {Partition(*tp): end for tp, end in ends.items()}

    def assign(self, starts: Mapping[Partition, int]) -> None:
        """Read these partitions from now on, each from an offset; one that retention has passed begins later."""
        self._consumer.assign([TopicPartition(*tp) for tp in starts])
        for tp, start in starts.items():
            self._consumer.seek(TopicPartition(*tp), start)

    async def read(self, *, max_messages: int, timeout_s: float) -> list[Message]:
        """What comes next; empty when nothing does in time, and at once when nothing is assigned."""
        if not self._consumer.assignment():
            return []  # aiokafka would wait for an assignment, without end
        async with kafka_errors(f"Kafka at {self._bootstrap}", timeout_s=_TIMEOUT_S):
            fetched = await self._consumer.getmany(timeout_ms=int(timeout_s * 1000), max_records=max_messages)
        return [message_of(record) for records in fetched.values() for record in records]

    async def standing(self, partition: Partition) -> Standing | None:
        """How far a partition is read; None before the broker's first answer."""
        tp = TopicPartition(*partition)
        end, asked_ms = self._consumer.last_stable_offset(tp), self._consumer.last_poll_timestamp(tp)
        if end is None or asked_ms is None:
            return None
        async with kafka_errors(partition.topic, timeout_s=_TIMEOUT_S):
            return Standing(lag=max(0, end - await self._consumer.position(tp)), asked_ms=asked_ms)

    def hold(self, partitions: Set[Partition]) -> None:
        """Read all assigned partitions but these for now."""
        held = {TopicPartition(*tp) for tp in partitions}
        paused = self._consumer.paused()
        if held - paused:
            self._consumer.pause(*(held - paused))
        if paused - held:
            self._consumer.resume(*(paused - held))
