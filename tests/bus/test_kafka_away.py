"""The broker goes away and comes back: calls fail within their time with a retriable error, and then work again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import pytest

from govern.bus import Partition, TopicSpec, Transactor
from govern.bus.kafka import KafkaBus
from govern.bus.protocol import BusError, MessageTooLarge
from tests.bus.helpers import out, read_all, take, until, values
from tests.services.kafka import Kafka
from tests.services.process import free_port

pytestmark = pytest.mark.kafka


@pytest.fixture
def broker() -> Iterator[Kafka]:
    """A broker of its own, to be killed."""
    with Kafka() as service:
        yield service


async def test_a_bus_outlives_its_broker(broker: Kafka) -> None:
    partition = Partition("in", 0)
    async with KafkaBus(broker.bootstrap, timeout_s=3.0) as bus:
        await bus.ensure_topics([TopicSpec(name="in"), TopicSpec(name="new")])
        transactor = await bus.transactor("work")
        await publish(transactor, "1")
        subscription = await bus.subscribe(["in"], "group")
        assert values(await take(subscription, 1)) == ["1"]
        await subscription.commit({partition: 1})

        broker.kill()
        for call in (
            lambda: bus.publish("in", [out("lost")]),
            lambda: publish(transactor, "lost"),
            lambda: bus.transactor("other"),
            lambda: bus.read(partition, 0),
            lambda: bus.end_offset(partition),
            lambda: bus.read_table(partition),
            lambda: bus.ensure_topics([TopicSpec(name="in")]),
            lambda: subscription.commit({partition: 1}),
            lambda: subscription.committed(partition),
            lambda: subscription.lag(),
        ):
            with pytest.raises(BusError) as caught:
                await asyncio.wait_for(call(), 20.0)
            assert caught.value.retriable
            assert caught.value.fix
        with pytest.raises(BusError, match="open a new transactor"):
            await publish(transactor, "lost")
        await transactor.close()
        assert await subscription.poll(timeout_s=0.5) == []

        broker.restart()
        opened: list[Transactor] = []

        async def reopened() -> bool:
            with contextlib.suppress(BusError):
                await subscription.committed(partition)
                await bus.end_offset(partition)
                opened.append(await bus.transactor("work"))
            return bool(opened)

        await until(reopened, "the broker to answer again")
        await publish(opened[0], "2")
        await bus.publish("in", [out("3")])
        assert values(await take(subscription, 2)) == ["2", "3"]
        await subscription.commit({partition: (await bus.end_offset(partition))})
        assert values(await read_all(bus, "in", 3)) == ["1", "2", "3"]
        assert await bus.read_table(partition) == {b"k": b"3"}
        await bus.ensure_topics([TopicSpec(name="later")])
        await subscription.close()


async def test_a_broker_that_is_not_there_is_named() -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(BusError, match=address):
        async with KafkaBus(address, timeout_s=2.0):
            pass


async def test_a_message_too_large_is_refused_and_the_bus_goes_on(kafka: Kafka, unique: str) -> None:
    async with KafkaBus(kafka.bootstrap) as bus:
        await bus.ensure_topics([TopicSpec(name=unique)])
        with pytest.raises(MessageTooLarge, match="1,100,001 bytes"):
            await bus.publish(unique, [out("x" * 1_100_000)])
        transactor = await bus.transactor(unique)
        with pytest.raises(MessageTooLarge):
            await publish(transactor, "x" * 1_100_000, topic=unique)
        await publish(transactor, "1", topic=unique)
        await bus.publish(unique, [out("2")])
        assert values(await read_all(bus, unique, 2)) == ["1", "2"]


async def publish(transactor: Transactor, value: str, *, topic: str = "in") -> None:
    async with transactor.transaction() as transaction:
        await transaction.publish(topic, [out(value)])
