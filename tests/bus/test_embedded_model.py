"""The embedded bus against a model in plain dictionaries: any order of calls, on two connections, with reopening."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from govern.bus import Outgoing, Partition, TopicSpec, Transactor
from govern.bus.embedded import EmbeddedBus
from govern.bus.partitioner import partition_of
from govern.bus.protocol import Fenced

TOPICS = {"log": TopicSpec(name="log", partitions=2), "table": TopicSpec(name="table", compacted=True)}
PARTITIONS = [Partition(spec.name, number) for spec in TOPICS.values() for number in range(spec.partitions)]

topics = st.sampled_from(sorted(TOPICS))
keys = st.sampled_from([b"", b"a", b"b", b"c"])
batches = st.lists(st.builds(Outgoing, key=keys, value=st.none() | st.binary(max_size=3)), max_size=5)
buses = st.integers(0, 1)
ids = st.sampled_from(["x", "y"])

#: offset, key, value
Row = tuple[int, bytes, bytes | None]


class Model:
    def __init__(self) -> None:
        self.rows: dict[Partition, list[Row]] = {partition: [] for partition in PARTITIONS}
        self.ends = dict.fromkeys(PARTITIONS, 0)
        self.offsets: dict[Partition, int] = {}

    def append(self, topic: str, messages: list[Outgoing]) -> None:
        for message in messages:
            partition = Partition(topic, partition_of(message.key, TOPICS[topic].partitions))
            if TOPICS[topic].compacted:
                self.rows[partition] = [row for row in self.rows[partition] if row[1] != message.key]
            self.rows[partition].append((self.ends[partition], message.key, message.value))
            self.ends[partition] += 1


class EmbeddedBusMachine(RuleBasedStateMachine):
    @initialize()
    def open(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.loop = asyncio.Runner()
        self.model = Model()
        self.buses = [EmbeddedBus(self.folder / "bus.db") for _ in range(2)]
        self.transactors: dict[str, tuple[int, Transactor]] = {}
        self.zombies: list[tuple[int, Transactor]] = []
        for bus in self.buses:
            self.loop.run(bus.__aenter__())
        self.loop.run(self.buses[0].ensure_topics(list(TOPICS.values())))

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            for bus in self.buses:
                self.loop.run(bus.__aexit__())
            self.loop.close()
            shutil.rmtree(self.folder)

    @rule(bus=buses, topic=topics, messages=batches)
    def publish(self, bus: int, topic: str, messages: list[Outgoing]) -> None:
        self.loop.run(self.buses[bus].publish(topic, messages))
        self.model.append(topic, messages)

    @rule(bus=buses, name=ids)
    def take_over(self, bus: int, name: str) -> None:
        if name in self.transactors:
            self.zombies.append(self.transactors[name])
        self.transactors[name] = (bus, self.loop.run(self.buses[bus].transactor(name)))

    @precondition(lambda self: self.transactors)
    @rule(
        data=st.data(),
        parts=st.lists(st.tuples(topics, batches), max_size=3),
        offset=st.none() | st.tuples(st.sampled_from(PARTITIONS), st.integers(0, 9)),
        fails=st.booleans(),
    )
    def transact(
        self,
        data: st.DataObject,
        parts: list[tuple[str, list[Outgoing]]],
        offset: tuple[Partition, int] | None,
        fails: bool,
    ) -> None:
        _, transactor = self.transactors[data.draw(st.sampled_from(sorted(self.transactors)))]

        async def run() -> None:
            async with transactor.transaction() as transaction:
                for topic, messages in parts:
                    await transaction.publish(topic, messages)
                if offset:
                    await transaction.commit_offsets("group", dict([offset]))
                if fails:
                    raise ZeroDivisionError

        try:
            self.loop.run(run())
        except ZeroDivisionError:
            return
        for topic, messages in parts:
            self.model.append(topic, messages)
        if offset:
            self.model.offsets.update([offset])

    @precondition(lambda self: self.zombies)
    @rule(data=st.data(), topic=topics, messages=batches)
    def zombie(self, data: st.DataObject, topic: str, messages: list[Outgoing]) -> None:
        index = data.draw(st.integers(0, len(self.zombies) - 1))
        _, transactor = self.zombies.pop(index)

        async def run() -> None:
            async with transactor.transaction() as transaction:
                await transaction.publish(topic, messages)

        try:
            self.loop.run(run())
        except Fenced:
            return
        raise AssertionError("a fenced transactor committed")

    @rule(bus=buses)
    def reopen(self, bus: int) -> None:
        self.loop.run(self.buses[bus].__aexit__())
        self.buses[bus] = EmbeddedBus(self.folder / "bus.db")
        self.loop.run(self.buses[bus].__aenter__())
        self.transactors = {name: held for name, held in self.transactors.items() if held[0] != bus}
        self.zombies = [held for held in self.zombies if held[0] != bus]

    @rule(bus=buses, partition=st.sampled_from(PARTITIONS), start=st.integers(0, 20), limit=st.integers(1, 5))
    def read(self, bus: int, partition: Partition, start: int, limit: int) -> None:
        found = self.loop.run(self.buses[bus].read(partition, start, max_messages=limit))
        expected = [row for row in self.model.rows[partition] if row[0] >= start][:limit]
        assert [(m.offset, m.key, m.value) for m in found] == expected

    @invariant()
    def both_connections_see_the_model(self) -> None:
        if not hasattr(self, "loop"):
            return
        for bus in self.buses:
            for partition in PARTITIONS:
                rows = self.model.rows[partition]
                newest = {key: value for _, key, value in rows}
                assert self.loop.run(bus.end_offset(partition)) == self.model.ends[partition]
                assert [(m.offset, m.key, m.value) for m in self.loop.run(bus.read(partition, 0))] == rows
                table = {key: value for key, value in newest.items() if value is not None}
                assert self.loop.run(bus.read_table(partition)) == table
            subscription = self.loop.run(bus.subscribe(list(TOPICS), "group"))
            for partition in PARTITIONS:
                assert self.loop.run(subscription.committed(partition)) == self.model.offsets.get(partition)
            self.loop.run(subscription.close())


TestEmbeddedBus = EmbeddedBusMachine.TestCase
TestEmbeddedBus.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
