"""What every bus does for groups: sharing, handing over, positions."""

from __future__ import annotations

import asyncio

import pytest

from govern.bus import Bus, Partition, Subscription
from govern.bus.protocol import Fenced
from tests.bus.conftest import MakeTopic
from tests.bus.helpers import Counter, assert_numbered, out, read_all, take, until, values


async def test_a_group_starts_at_the_beginning_and_goes_on_from_its_commit(
    bus: Bus, make_topic: MakeTopic, unique: str
) -> None:
    topic = await make_topic()
    partition = Partition(topic, 0)
    await bus.publish(topic, [out("1"), out("2"), out("3")])
    first = await bus.subscribe([topic], unique)
    assert await first.committed(partition) is None
    assert values(await take(first, 3)) == ["1", "2", "3"]
    await first.commit({partition: 2})
    assert await first.committed(partition) == 2
    await first.close()
    second = await bus.subscribe([topic], unique)
    assert values(await take(second, 1)) == ["3"]
    await second.close()
    stranger = await bus.subscribe([topic], f"{unique}.other")
    assert values(await take(stranger, 3)) == ["1", "2", "3"]
    await stranger.close()


async def test_a_poll_wakes_up_for_a_message_and_returns_empty_after_its_time(
    bus: Bus, other_bus: Bus, make_topic: MakeTopic, unique: str
) -> None:
    topic = await make_topic()
    subscription = await bus.subscribe([topic], unique)
    assert await take(subscription, 0) == []
    loop = asyncio.get_running_loop()
    started = loop.time()
    assert await subscription.poll(timeout_s=0.3) == []
    assert loop.time() - started > 0.25
    await until(lambda: _positioned(subscription, Partition(topic, 0)), "an assignment")
    async with asyncio.timeout(60.0), asyncio.TaskGroup() as tasks:
        polled = tasks.create_task(subscription.poll(timeout_s=600.0))
        tasks.create_task(other_bus.publish(topic, [out("1")]))
    assert values(polled.result()) == ["1"]
    await subscription.close()


async def test_a_poll_takes_no_more_than_it_is_told(bus: Bus, make_topic: MakeTopic, unique: str) -> None:
    topic = await make_topic(partitions=2)
    await bus.publish(topic, [out(str(n), partition=n % 2) for n in range(10)])
    subscription = await bus.subscribe([topic], unique)
    seen: list[str] = []
    while len(seen) < 10:
        batch = await subscription.poll(max_messages=3)
        assert len(batch) <= 3
        seen += values(batch)
    assert sorted(seen, key=int) == [str(n) for n in range(10)]
    await subscription.close()


async def test_seek_pause_and_lag(bus: Bus, make_topic: MakeTopic, unique: str) -> None:
    topic = await make_topic(partitions=2)
    quiet, busy = Partition(topic, 0), Partition(topic, 1)
    await bus.publish(topic, [out(f"q{n}", partition=0) for n in range(3)])
    await bus.publish(topic, [out(f"b{n}", partition=1) for n in range(3)])
    subscription = await bus.subscribe([topic], unique)
    await take(subscription, 6)
    assert await subscription.lag() == {quiet: 0, busy: 0}
    await subscription.seek(quiet, 1)
    assert await subscription.lag() == {quiet: 2, busy: 0}
    subscription.pause(frozenset({quiet}))
    await bus.publish(topic, [out("b3", partition=1)])
    assert values(await take(subscription, 1)) == ["b3"]
    assert await subscription.lag() == {quiet: 2, busy: 0}
    subscription.resume(frozenset({quiet}))
    assert values(await take(subscription, 2)) == ["q1", "q2"]
    await subscription.close()


async def test_a_seek_while_assigning_decides_where_reading_starts(
    bus: Bus, make_topic: MakeTopic, unique: str
) -> None:
    topic = await make_topic(partitions=2)
    await bus.publish(topic, [out(f"{p}:{n}", partition=p) for p in range(2) for n in range(4)])
    log: list[str] = []

    async def on_assigned(partitions: frozenset[Partition]) -> None:
        log.append(f"assigned {len(partitions)}")
        await subscription.seek(Partition(topic, 0), 3)

    async def on_revoked(partitions: frozenset[Partition]) -> None:
        log.append(f"revoked {len(partitions)}")

    subscription = await bus.subscribe([topic], unique, on_assigned=on_assigned, on_revoked=on_revoked)
    assert log == []  # callbacks run inside poll
    assert sorted(values(await take(subscription, 5))) == ["0:3", "1:0", "1:1", "1:2", "1:3"]
    await subscription.close()
    assert log == ["assigned 2", "revoked 2"]


async def test_the_partitions_of_a_group_are_shared_and_handed_over_exactly_once(
    bus: Bus, other_bus: Bus, make_topic: MakeTopic, unique: str
) -> None:
    source, target = await make_topic("in", partitions=4), await make_topic("out")
    state = await make_topic("state", partitions=4, compacted=True)
    sent = [str(n) for n in range(400)]
    await bus.publish(source, [out(value, partition=int(value) % 4) for value in sent])
    old, new = (Counter(each, source, target, state, unique) for each in (bus, other_bus))
    await old.start()
    await until(lambda: _holds(old, 4), "the first member to hold everything")
    await old.step()
    await new.start()

    async def shared() -> bool:
        async with asyncio.TaskGroup() as tasks:
            for member in (old, new):
                tasks.create_task(member.step())
        assert not old.holds & new.holds
        return (len(old.holds), len(new.holds)) == (2, 2)

    await until(shared, "two members to share")
    await old.close()
    assert not old.holds

    async def done() -> bool:
        await new.step()
        return len(new.holds) == 4 and not any((await new.subscription.lag()).values())

    await until(done, "the other member to take over and finish")
    await new.close()
    assert_numbered(await read_all(bus, target, len(sent)), sent, partitions=4)


async def test_a_member_cannot_commit_what_another_one_holds(
    bus: Bus, other_bus: Bus, make_topic: MakeTopic, unique: str
) -> None:
    topic = await make_topic(partitions=2)
    everything = {Partition(topic, 0): 1, Partition(topic, 1): 1}
    await bus.publish(topic, [out("a", partition=0), out("b", partition=1)])
    one = await bus.subscribe([topic], unique)
    await take(one, 2)
    other = await other_bus.subscribe([topic], unique)

    async def shared() -> bool:
        async with asyncio.TaskGroup() as tasks:
            for member in (one, other):
                tasks.create_task(member.poll(timeout_s=0.1))
        return len(await one.lag()) == len(await other.lag()) == 1

    await until(shared, "two members to share")
    for member in (one, other):
        with pytest.raises(Fenced, match=unique):
            await member.commit(everything)
        mine = next(iter(await member.lag()))
        await member.commit({mine: 1})
        assert await member.committed(mine) == 1
    await one.close()
    await other.close()


async def _holds(member: Counter, count: int) -> bool:
    await member.step(max_messages=1)
    return len(member.holds) == count


async def _positioned(subscription: Subscription, partition: Partition) -> bool:
    await subscription.poll(timeout_s=0.05)
    return partition in await subscription.lag()
