"""Topics that others made: taken when they fit, refused with the setting that does not."""

from __future__ import annotations

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from govern.bus import Partition, TopicSpec
from govern.bus.kafka import KafkaBus
from govern.bus.protocol import MessageTooLarge, TopicMismatch
from tests.bus.helpers import out
from tests.services.kafka import Kafka

pytestmark = pytest.mark.kafka


async def make(kafka: Kafka, name: str, **configs: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    named = {key.replace("_", "."): value for key, value in configs.items()}
    await admin.create_topics([NewTopic(name=name, num_partitions=1, replication_factor=1, topic_configs=named)])
    await admin.close()


@pytest.mark.parametrize(
    ("configs", "spec", "why"),
    [
        ({"max_message_bytes": "5000"}, {"message_bytes": 6000}, "takes messages of 5,000 bytes; needed: 6,000"),
        ({"cleanup_policy": "compact"}, {}, "1 partition, compacted; needed: 1 partition, deleted by age"),
        ({"cleanup_policy": "compact,delete"}, {"compacted": True}, "compacted and deleted by age; needed"),
        ({}, {"partitions": 2}, "1 partition, deleted by age; needed: 2 partitions"),
    ],
)
async def test_a_topic_that_does_not_fit_is_refused(
    kafka: Kafka, unique: str, configs: dict[str, str], spec: dict[str, object], why: str
) -> None:
    await make(kafka, unique, **configs)
    async with KafkaBus(kafka.bootstrap) as bus:
        with pytest.raises(TopicMismatch, match=unique) as caught:
            await bus.ensure_topics([TopicSpec(name=unique, **spec)])  # type: ignore[arg-type]
        assert why in caught.value.why
        assert not caught.value.retriable


async def test_a_topic_is_made_for_the_messages_that_it_is_to_take(kafka: Kafka, unique: str) -> None:
    size = 3_000_000
    spec = TopicSpec(name=unique, message_bytes=size)
    async with KafkaBus(kafka.bootstrap, message_bytes=size) as bus:
        await bus.ensure_topics([spec])
        await bus.ensure_topics([spec])
        await bus.publish(unique, [out("x" * (size - 1000))])
        (message,) = await bus.read(Partition(unique, 0), 0)
        assert message.value is not None
        assert len(message.value) == size - 1000
        with pytest.raises(MessageTooLarge, match="limit is 3,000,000"):
            await bus.publish(unique, [out("x" * size)])
