"""What every bus does: topics, order, reading, transactions."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from aiokafka.partitioner import DefaultPartitioner

from govern.bus import Bus, Outgoing, Partition, TopicSpec, Transactor
from govern.bus.protocol import Fenced, TopicMismatch, UnknownTopic
from tests.bus.conftest import MakeTopic
from tests.bus.helpers import out, read_all, take, values


async def test_a_message_is_read_as_it_was_published(bus: Bus, make_topic: MakeTopic) -> None:
    topic = await make_topic()
    sent = [
        Outgoing(key=b"a", value=b"1", headers=(("ce_id", b"x"), ("ce_id", b"y"), ("empty", b""))),
        Outgoing(key=b"a", value=None),
        Outgoing(key=b"", value=b""),
        Outgoing(key=bytes(range(256)), value=bytes(300_000)),
    ]
    await bus.publish(topic, sent)
    read = await bus.read(Partition(topic, 0), 0)
    assert [(m.key, m.value, m.headers) for m in read] == [(m.key, m.value, m.headers) for m in sent]
    assert [m.offset for m in read] == [0, 1, 2, 3]
    assert {m.tp for m in read} == {Partition(topic, 0)}
    assert all(m.timestamp_ms > 1_700_000_000_000 for m in read)


async def test_a_partition_keeps_the_order_of_many_messages(bus: Bus, make_topic: MakeTopic) -> None:
    topic = await make_topic(partitions=2)
    sent = [f"{n:06d}" for n in range(12_000)]
    for start in range(0, len(sent), 5000):
        await bus.publish(topic, [out(value, partition=int(value) % 2) for value in sent[start : start + 5000]])
    read = values(await read_all(bus, topic, len(sent)))
    assert read == sent[0::2] + sent[1::2]


async def test_reading_starts_and_stops_where_it_is_told(bus: Bus, make_topic: MakeTopic) -> None:
    topic = await make_topic()
    partition = Partition(topic, 0)
    assert (await bus.start_offset(partition), await bus.end_offset(partition)) == (0, 0)
    assert await bus.read(partition, 0) == []
    await bus.publish(topic, [out(str(n)) for n in range(10)])
    assert values(await bus.read(partition, 3, max_messages=4)) == ["3", "4", "5", "6"]
    assert values(await bus.read(partition, 8)) == ["8", "9"]
    assert await bus.read(partition, 10) == []
    assert (await bus.start_offset(partition), await bus.end_offset(partition)) == (0, 10)


async def test_a_key_chooses_the_partition_that_every_kafka_client_chooses(bus: Bus, make_topic: MakeTopic) -> None:
    topic = await make_topic(partitions=5)
    keys = [f"default/income/model-{n}#0" for n in range(40)] + ["", "ä€😀"]
    await bus.publish(topic, [out(key, key=key) for key in keys])
    choose = DefaultPartitioner()
    for message in await read_all(bus, topic, len(keys)):
        assert message.partition == choose(message.key, list(range(5)), list(range(5)))


async def test_what_does_not_exist_is_named(bus: Bus, make_topic: MakeTopic, unique: str) -> None:
    missing = f"{unique}.missing"
    with pytest.raises(UnknownTopic, match=missing):
        await bus.publish(missing, [out("1")])
    with pytest.raises(UnknownTopic, match=missing):
        await bus.partitions(missing)
    with pytest.raises(UnknownTopic, match=missing):
        await bus.subscribe([missing], f"{unique}.g")
    with pytest.raises(UnknownTopic, match=missing):
        await bus.read_table(Partition(missing, 0))
    topic = await make_topic(partitions=2)
    with pytest.raises(UnknownTopic, match="partition 2"):
        await bus.read(Partition(topic, 2), 0)
    with pytest.raises(UnknownTopic, match="partition 7"):
        await bus.publish(topic, [out("1", partition=7)])
    transactor = await bus.transactor(unique)
    with pytest.raises(UnknownTopic, match=missing):
        await publish(transactor, missing, "1")
    await transactor.close()


async def test_ensuring_topics_creates_what_is_missing_and_checks_the_rest(bus: Bus, unique: str) -> None:
    log = TopicSpec(name=f"{unique}.log", partitions=3, retention_ms=3_600_000)
    table = TopicSpec(name=f"{unique}.table", compacted=True)
    await bus.ensure_topics([log])
    await bus.ensure_topics([log, table])
    await bus.ensure_topics([log, table])
    assert await bus.partitions(log.name) == 3
    assert await bus.partitions(table.name) == 1
    await bus.ensure_topics([TopicSpec(name=log.name, partitions=2)])
    assert await bus.partitions(log.name) == 3
    with pytest.raises(TopicMismatch, match=r"it has 3 partitions.*needed: 4 partitions"):
        await bus.ensure_topics([TopicSpec(name=log.name, partitions=4)])
    with pytest.raises(TopicMismatch, match=r"deleted by age; needed: .* compacted"):
        await bus.ensure_topics([TopicSpec(name=log.name, partitions=3, compacted=True)])
    with pytest.raises(TopicMismatch, match="compacted; needed"):
        await bus.ensure_topics([TopicSpec(name=table.name)])


async def test_a_transaction_is_visible_as_a_whole_or_not_at_all(
    bus: Bus, other_bus: Bus, make_topic: MakeTopic, unique: str
) -> None:
    left, right = await make_topic("left"), await make_topic("right")
    transactor = await bus.transactor(unique)
    async with transactor.transaction() as transaction:
        await transaction.publish(left, [out("1"), out("2")])
        await transaction.publish(right, [out("3")])
        assert await other_bus.read(Partition(left, 0), 0) == []
        await transaction.publish(left, [out("4")])
    with pytest.raises(ZeroDivisionError):
        await fail_after_publishing(transactor, left)
    async with transactor.transaction() as transaction:
        await transaction.publish(right, [out("5")])
    async with transactor.transaction():
        pass  # a transaction may turn out to be empty
    assert values(await read_all(other_bus, right, 2)) == ["3", "5"]
    assert values(await read_all(other_bus, left, 3)) == ["1", "2", "4"]
    await transactor.close()


async def test_offsets_travel_with_their_transaction(bus: Bus, make_topic: MakeTopic, unique: str) -> None:
    source, target = await make_topic("in", partitions=2), await make_topic("out")
    first, second = Partition(source, 0), Partition(source, 1)
    await bus.publish(source, [out("a", partition=0), out("b", partition=1)])
    transactor = await bus.transactor(unique)
    with pytest.raises(ZeroDivisionError):
        await fail_after_publishing(transactor, target, offsets={first: 1}, group=unique)
    async with transactor.transaction() as transaction:
        await transaction.publish(target, [out("b")])
        await transaction.commit_offsets(unique, {second: 1})
    await transactor.close()
    # Opening the id again waits until the transaction has ended everywhere: only then read the offset.
    transactor = await bus.transactor(unique)
    subscription = await bus.subscribe([source], unique)
    assert await subscription.committed(first) is None
    assert await subscription.committed(second) == 1
    assert values(await take(subscription, 1)) == ["a"]
    await subscription.close()
    await transactor.close()


async def test_a_new_holder_fences_the_old_one(bus: Bus, other_bus: Bus, make_topic: MakeTopic, unique: str) -> None:
    topic = await make_topic()
    zombie = await bus.transactor(unique)
    async with zombie.transaction() as transaction:
        await transaction.publish(topic, [out("before")])

    async def overtaken() -> None:
        async with zombie.transaction() as transaction:
            await transaction.publish(topic, [out("lost")])
            await transaction.commit_offsets(unique, {Partition(topic, 0): 1})
            heirs.append(await other_bus.transactor(unique))
            async with heirs[0].transaction() as inherited:
                await inherited.publish(topic, [out("after")])

    heirs: list[Transactor] = []
    with pytest.raises(Fenced, match=unique):
        await overtaken()
    heir = heirs[0]
    assert values(await read_all(bus, topic, 2)) == ["before", "after"]
    await zombie.close()
    zombie = await bus.transactor(unique)
    with pytest.raises(Fenced):
        await publish(heir, topic, "lost too")
    assert values(await read_all(bus, topic, 2)) == ["before", "after"]
    subscription = await bus.subscribe([topic], unique)
    assert await subscription.committed(Partition(topic, 0)) is None
    await subscription.close()
    await heir.close()
    await zombie.close()


async def test_opening_an_id_aborts_what_its_holder_left_open(
    bus: Bus, other_bus: Bus, make_topic: MakeTopic, unique: str
) -> None:
    topic = await make_topic()
    abandoned = await bus.transactor(unique)
    transaction = abandoned.transaction()
    await (await transaction.__aenter__()).publish(topic, [out("lost")])
    heir = await other_bus.transactor(unique)
    assert await bus.read_table(Partition(topic, 0)) == {}
    async with heir.transaction() as inherited:
        await inherited.publish(topic, [out("kept")])
    assert values(await read_all(bus, topic, 1)) == ["kept"]
    with pytest.raises(Fenced):
        await transaction.__aexit__(None, None, None)
    await abandoned.close()
    await heir.close()


async def test_a_table_is_the_newest_value_of_each_key(bus: Bus, make_topic: MakeTopic, unique: str) -> None:
    topic = await make_topic("state", compacted=True)
    partition = Partition(topic, 0)
    assert await bus.read_table(partition) == {}
    transactor = await bus.transactor(unique)
    for n in range(3):
        async with transactor.transaction() as transaction:
            await transaction.publish(topic, [out(f"{key}{n}", key=key) for key in "abc"])
    async with transactor.transaction() as transaction:
        await transaction.publish(topic, [Outgoing(key=b"b", value=None), out("d", key="d"), out("d2", key="d")])
    with pytest.raises(ZeroDivisionError):
        await fail_after_publishing(transactor, topic)
    # The last offsets are markers now; another producer's open transaction is not part of the table either.
    assert await bus.read_table(partition) == {b"a": b"a2", b"c": b"c2", b"d": b"d2"}
    assert [m.value for m in await read_all(bus, topic, 4) if m.key == b"b"][-1] is None
    assert await bus.end_offset(partition) >= 12
    await transactor.close()


async def publish(transactor: Transactor, topic: str, value: str) -> None:
    async with transactor.transaction() as transaction:
        await transaction.publish(topic, [out(value)])


async def fail_after_publishing(
    transactor: Transactor, topic: str, *, group: str = "", offsets: Mapping[Partition, int] | None = None
) -> None:
    async with transactor.transaction() as transaction:
        await transaction.publish(topic, [out("aborted", key="a")])
        if offsets:
            await transaction.commit_offsets(group, offsets)
        raise ZeroDivisionError
