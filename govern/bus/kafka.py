"""The bus on Apache Kafka, through aiokafka."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import Mapping, Sequence
from typing import Final, Self

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import TopicAlreadyExistsError, for_code

from govern.bus.kafka_access import KafkaAccess
from govern.bus.kafka_errors import kafka_errors
from govern.bus.kafka_group import KafkaSubscription
from govern.bus.kafka_member import KafkaMember
from govern.bus.kafka_producer import KafkaProducer, KafkaTransactor
from govern.bus.kafka_reader import KafkaReader
from govern.bus.protocol import (
    MAX_MESSAGE_BYTES,
    Message,
    Outgoing,
    Partition,
    Rebalance,
    Subscription,
    TopicMismatch,
    TopicSpec,
    Transactor,
    UnknownTopic,
)

#: How long a call waits for the broker, seconds. A restart of a broker, with its election, takes about 10 s.
TIMEOUT_S: Final = 30.0

_OPEN: Final = KafkaAccess()
_ANYBODY: Final = KafkaMember()

#: As many copies of a topic as the cluster has brokers for, up to this.
_REPLICAS: Final = 3

#: A compacted topic holds state that is read as a whole at each start. Kafka compacts closed segments only, and by
#: default closes one after a week: these settings keep the reading short.
_COMPACTED: Final = {"cleanup.policy": "compact", "segment.ms": "600000", "min.cleanable.dirty.ratio": "0.1"}

#: What Kafka counts beside a message's key, value and headers: the head of its batch and its lengths.
_BATCH_OVERHEAD_BYTES: Final = 1024

#: How often to look whether a topic just created has become known, seconds.
_LOOK_S: Final = 0.05


class KafkaBus:
    """A `Bus` on the cluster that `bootstrap` ("host:port[,host:port...]") belongs to.

    Args:
        access: how it is reached; without one, unencrypted and as nobody.
        client_id: by what name the broker's log and quotas know this process.
        timeout_s: how long a call waits for the broker before it raises a retriable `BusError`.
        member: who it is in the groups that it joins.
        message_bytes: the longest message to send.
    """

    def __init__(
        self,
        bootstrap: str,
        *,
        access: KafkaAccess = _OPEN,
        client_id: str = "govern",
        timeout_s: float = TIMEOUT_S,
        member: KafkaMember = _ANYBODY,
        message_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        self._bootstrap = bootstrap
        self._access = access
        self._client_id = client_id
        self._connect: Mapping[str, object] = {}
        self._timeout_s = timeout_s
        self._member = member
        self._known_as: dict[str, str] = {}
        self._message_bytes = message_bytes
        self._counts: dict[str, int] = {}
        self._handed_out = weakref.WeakSet[KafkaTransactor | KafkaSubscription]()
        self._producer: KafkaProducer | None = None
        self._reader: KafkaReader | None = None
        self._starting = asyncio.Lock()  # of the producer and the reader, which are made when first needed

    async def __aenter__(self) -> Self:
        self._connect = {
            "bootstrap_servers": self._bootstrap,
            "client_id": self._client_id,
            **self._access.options(),
        }
        self._admin = AIOKafkaAdminClient(**self._connect)
        try:
            async with kafka_errors(f"Kafka at {self._bootstrap}", timeout_s=self._timeout_s):
                await self._admin.start()
        except BaseException:
            await self._admin.close()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        async with contextlib.AsyncExitStack() as closing:
            closing.push_async_callback(self._admin.close)
            if self._reader is not None:
                closing.push_async_callback(self._reader.close)
            if self._producer is not None:
                closing.push_async_callback(self._producer.close)
            for left_open in self._handed_out:
                closing.push_async_callback(left_open.close)

    async def ensure_topics(self, specs: Sequence[TopicSpec]) -> None:
        async with kafka_errors(f"Kafka at {self._bootstrap}", timeout_s=self._timeout_s):
            existing = await self._describe()
            missing = [spec for spec in specs if spec.name not in existing]
            if missing:
                await self._create(missing)
                while not {spec.name for spec in specs} <= existing.keys():
                    await asyncio.sleep(_LOOK_S)
                    existing = await self._describe()
            settings = await self._settings([spec.name for spec in specs])
        for spec in specs:
            count, (policies, message_bytes) = existing[spec.name], settings[spec.name]
            compacted, aged = "compact" in policies, "delete" in policies
            # A compacted topic that is also deleted by age forgets its state.
            if count < spec.partitions or (compacted, aged) != (spec.compacted, not spec.compacted):
                raise TopicMismatch.between(spec, partitions=count, compacted=compacted, aged=aged)
            if message_bytes < spec.message_bytes:
                raise TopicMismatch.too_small(spec, message_bytes=message_bytes)

    async def partitions(self, topic: str) -> int:
        if topic not in self._counts:
            async with kafka_errors(topic, timeout_s=self._timeout_s):
                self._counts = await self._describe()
        count = self._counts.get(topic)
        if count is None:
            raise UnknownTopic.named(topic)
        return count

    async def publish(self, topic: str, messages: Sequence[Outgoing]) -> None:
        await self.partitions(topic)
        async with self._starting:
            if self._producer is None:
                self._producer = await KafkaProducer.start(
                    self._connect,
                    self.partitions,
                    name=self._client_id,
                    timeout_s=self._timeout_s,
                    message_bytes=self._message_bytes,
                )
            producer = self._producer
        try:
            await producer.delivered(topic, await producer.send(topic, messages))
        except BaseException:
            if self._producer is producer:
                self._producer = None
            await producer.discard()
            raise

    async def transactor(self, transactional_id: str) -> Transactor:
        producer = await KafkaProducer.start(
            self._connect,
            self.partitions,
            name=transactional_id,
            timeout_s=self._timeout_s,
            message_bytes=self._message_bytes,
            transactional_id=transactional_id,
        )
        transactor = KafkaTransactor(producer, transactional_id)
        self._handed_out.add(transactor)
        return transactor

    async def subscribe(
        self,
        topics: Sequence[str],
        group: str,
        *,
        on_assigned: Rebalance | None = None,
        on_revoked: Rebalance | None = None,
    ) -> Subscription:
        for topic in topics:
            await self.partitions(topic)
        subscription = await KafkaSubscription.join(
            self._connect,
            topics,
            group,
            member=self._member,
            known_as=self._known_as,
            timeout_s=self._timeout_s,
            on_assigned=on_assigned,
            on_revoked=on_revoked,
        )
        self._handed_out.add(subscription)
        return subscription

    async def read(self, partition: Partition, start: int, *, max_messages: int = 1000) -> list[Message]:
        return await (await self._reader_of(partition)).read(partition, start, max_messages)

    async def start_offset(self, partition: Partition) -> int:
        return await (await self._reader_of(partition)).start_offset(partition)

    async def end_offset(self, partition: Partition) -> int:
        return await (await self._reader_of(partition)).end_offset(partition)

    async def read_table(self, partition: Partition) -> dict[bytes, bytes]:
        return await (await self._reader_of(partition)).table(partition)

    async def _reader_of(self, partition: Partition) -> KafkaReader:
        if partition.partition >= await self.partitions(partition.topic):
            raise UnknownTopic.named(f"{partition.topic}, partition {partition.partition}")
        async with self._starting:
            if self._reader is None:
                self._reader = await KafkaReader.start(self._connect, timeout_s=self._timeout_s)
            return self._reader

    async def _describe(self) -> dict[str, int]:
        """Topic -> number of partitions. Of all topics: to ask for one could create it (auto.create.topics.enable)."""
        found = await self._admin.describe_topics()
        return {topic["topic"]: len(topic["partitions"]) for topic in found if not topic["error_code"]}

    async def _create(self, specs: Sequence[TopicSpec]) -> None:
        brokers = (await self._admin.describe_cluster())["brokers"]
        topics = [
            NewTopic(
                name=spec.name,
                num_partitions=spec.partitions,
                replication_factor=min(_REPLICAS, len(brokers)),
                topic_configs=_configs(spec),
            )
            for spec in specs
        ]
        response = await self._admin.create_topics(topics)
        for name, code, *_ in response.topic_errors:
            # Another process may have been a moment faster; the check that follows holds for its topic too.
            if code not in (0, TopicAlreadyExistsError.errno):
                raise for_code(code)(name)

    async def _settings(self, topics: Sequence[str]) -> dict[str, tuple[frozenset[str], int]]:
        """Topic -> its cleanup policies and the longest message that it takes, as they are in force."""
        wanted = {"cleanup.policy": "", "max.message.bytes": ""}
        resources = [ConfigResource(ConfigResourceType.TOPIC, name, wanted) for name in topics]
        found = {}
        for response in await self._admin.describe_configs(resources):
            for _error, _why, _kind, name, entries in response.resources:
                values = {key: value for key, value, *_ in entries}
                policies = frozenset(policy.strip() for policy in values["cleanup.policy"].split(","))
                found[name] = (policies, int(values["max.message.bytes"]))
        return found


def _configs(spec: TopicSpec) -> dict[str, str]:
    configs = _COMPACTED if spec.compacted else {"retention.ms": str(spec.retention_ms or -1)}
    if spec.message_bytes > MAX_MESSAGE_BYTES:
        configs = {**configs, "max.message.bytes": str(spec.message_bytes + _BATCH_OVERHEAD_BYTES)}
    return configs
