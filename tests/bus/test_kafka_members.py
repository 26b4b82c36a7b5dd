"""Members of a group that have a name: a restart under it moves nothing, and nobody else has it meanwhile."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
from aiokafka.errors import for_code

from govern.bus import Bus, Partition, Subscription, open_bus
from govern.bus.kafka_errors import kafka_errors
from govern.bus.protocol import MemberRefused
from govern.errors import ConfigError
from tests.bus.conftest import MakeTopic
from tests.bus.helpers import DEADLINE_S, out, take, until, values


class Member:
    """A process of a group: a connection of its own, and what it was told of its partitions."""

    def __init__(self, bus: Bus, topic: str, group: str) -> None:
        self._bus = bus
        self._topic = topic
        self._group = group
        self.holds: frozenset[Partition] = frozenset()
        self.revoked = 0
        self.subscription: Subscription

    async def join(self) -> None:
        self.subscription = await self._bus.subscribe(
            [self._topic], self._group, on_assigned=self._on_assigned, on_revoked=self._on_revoked
        )

    async def _on_assigned(self, partitions: frozenset[Partition]) -> None:
        self.holds = partitions

    async def _on_revoked(self, partitions: frozenset[Partition]) -> None:
        self.holds, self.revoked = frozenset(), self.revoked + 1


@pytest.mark.parametrize("bus_url", [pytest.param("kafka", marks=pytest.mark.kafka)], indirect=True)
async def test_a_restart_under_the_same_name_takes_nothing_from_others(
    bus_url: str, make_topic: MakeTopic, unique: str
) -> None:
    topic = await make_topic(partitions=2)
    async with AsyncExitStack() as opened:

        async def start(name: str) -> Member:
            bus = await opened.enter_async_context(open_bus(bus_url, instance_id=name, session_timeout_s=60.0))
            member = Member(bus, topic, unique)
            await member.join()
            return member

        first, other = await start("worker-0"), await start("worker-1")

        async def shared() -> bool:
            await first.subscription.poll(timeout_s=0.05)
            await other.subscription.poll(timeout_s=0.05)
            return (len(first.holds), len(other.holds)) == (1, 1)

        await until(shared, "two members to share")
        held, revoked = first.holds, other.revoked
        await first.subscription.close()  # as the broker sees it, a kill is the same: the member does not leave
        again = await start("worker-0")

        async def back() -> bool:
            await again.subscription.poll(timeout_s=0.05)
            await other.subscription.poll(timeout_s=0.05)
            return bool(again.holds)

        await until(back, "the member to have its partition again")
        assert again.holds == held
        assert other.revoked == revoked


@pytest.mark.parametrize("bus_url", [pytest.param("kafka", marks=pytest.mark.kafka)], indirect=True)
async def test_the_newest_of_two_with_one_name_has_it_and_the_other_is_told(
    bus_url: str, make_topic: MakeTopic, unique: str
) -> None:
    topic = await make_topic()
    named = [open_bus(bus_url, instance_id="worker-0", session_timeout_s=60.0) for _ in range(2)]
    async with named[0] as old_bus, named[1] as new_bus:
        old, new = Member(old_bus, topic, unique), Member(new_bus, topic, unique)
        for member in (old, new):
            await member.join()
            await until(lambda member=member: _holds(member), "the partition")

        async def polled() -> bool:
            await old.subscription.poll(timeout_s=0.05)
            await new.subscription.poll(timeout_s=0.05)
            return False

        with pytest.raises(MemberRefused, match="worker-0") as told:
            await until(polled, "the first to be told")
        assert not told.value.retriable
        await old.subscription.close()
        # It would have the name, were it a stranger. Whoever tries again after an error must not take it back.
        await old.join()
        with pytest.raises(MemberRefused, match="worker-0"):
            await until(polled, "the first to be told again")
        await new_bus.publish(topic, [out("1")])
        assert values(await take(new.subscription, 1)) == ["1"]


async def test_a_broker_that_refuses_the_session_timeout_is_heard() -> None:
    with pytest.raises(MemberRefused, match="session timeout of group income"):
        async with kafka_errors("income", timeout_s=DEADLINE_S):
            raise for_code(26)()


@pytest.mark.parametrize(
    ("url", "instance_id", "session_timeout_s", "says"),
    [
        ("kafka://127.0.0.1:9092", "two words", None, "two words"),
        ("kafka://127.0.0.1:9092", "worker-0", 0.5, "0.5 s"),
        ("kafka://127.0.0.1:9092", None, 3600.0, "3600 s"),
        ("embedded:///bus.db", "worker-0", None, "embedded"),
        ("embedded:///bus.db", None, 10.0, "embedded"),
    ],
)
def test_what_a_member_cannot_have_is_refused(
    url: str, instance_id: str | None, session_timeout_s: float | None, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        open_bus(url, instance_id=instance_id, session_timeout_s=session_timeout_s)


async def _holds(member: Member) -> bool:
    await member.subscription.poll(timeout_s=0.05)
    return bool(member.holds)
