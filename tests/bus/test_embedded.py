"""What only the embedded bus has: leases, retention, a full disk, a file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from govern.bus import Outgoing, Partition, TopicSpec
from govern.bus.embedded import EmbeddedBus
from govern.bus.membership import shares
from govern.bus.protocol import BusError, Fenced
from tests.bus.helpers import out, read_all, take, until, values

ONE = Partition("in", 0)


class Clock:
    """A wall clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now_s


async def test_a_member_that_hangs_past_its_lease_loses_its_partitions(tmp_path: Path) -> None:
    clock = Clock()
    log: list[str] = []

    def note(text: str) -> Callable[[frozenset[Partition]], object]:
        async def callback(partitions: frozenset[Partition]) -> None:
            log.append(f"{text} {sorted(p.partition for p in partitions)}")

        return callback

    path = tmp_path / "bus.db"
    async with EmbeddedBus(path, lease_s=5.0, clock=clock) as bus, EmbeddedBus(path, lease_s=5.0, clock=clock) as other:
        await bus.ensure_topics([TopicSpec(name="in", partitions=2)])
        await bus.publish("in", [out("a", partition=0), out("b", partition=1)])
        hung = await bus.subscribe(["in"], "g", on_assigned=note("+hung"), on_revoked=note("-hung"))
        await take(hung, 2)
        clock.now_s += 5.1
        heir = await other.subscribe(["in"], "g", on_assigned=note("+heir"), on_revoked=note("-heir"))
        assert sorted(values(await take(heir, 2))) == ["a", "b"]
        with pytest.raises(Fenced, match="another member"):
            await hung.commit({ONE: 1})
        await heir.commit({ONE: 1})
        assert await hung.poll(timeout_s=0.0) == []
        assert log == ["+hung [0, 1]", "+heir [0, 1]", "-hung [0, 1]"]

        async def shared() -> bool:
            await heir.poll(timeout_s=0.05)
            await hung.poll(timeout_s=0.05)
            return log[-1].startswith("+hung")

        await until(shared, "the member to come back")
        assert log[3:] == ["-heir [0]", "+hung [0]"] or log[3:] == ["-heir [1]", "+hung [1]"]
        await hung.close()
        await heir.close()


async def test_old_messages_go_and_offsets_stay(tmp_path: Path) -> None:
    clock = Clock()
    async with EmbeddedBus(tmp_path / "bus.db", clock=clock) as bus:
        await bus.ensure_topics([TopicSpec(name="in", retention_ms=3_600_000), TopicSpec(name="kept")])
        await bus.publish("in", [out("1"), out("2")])
        await bus.publish("kept", [out("1")])
        clock.now_s += 3000
        await bus.publish("in", [out("3")])
        assert values(await bus.read(ONE, 0)) == ["1", "2", "3"]
        clock.now_s += 1000
        await bus.publish("in", [out("4")])
        assert [(m.offset, m.value) for m in await bus.read(ONE, 0)] == [(2, b"3"), (3, b"4")]
        assert values(await bus.read(Partition("kept", 0), 0)) == ["1"]
        late = await bus.subscribe(["in"], "g")
        assert values(await take(late, 2)) == ["3", "4"]
        await late.close()


async def test_a_compacted_topic_keeps_one_row_of_a_key_and_drops_old_tombstones(tmp_path: Path) -> None:
    clock = Clock()
    path = tmp_path / "bus.db"
    async with EmbeddedBus(path, clock=clock) as bus:
        await bus.ensure_topics([TopicSpec(name="in", compacted=True)])
        for n in range(50):
            await bus.publish("in", [out(str(n), key="a"), out(str(n), key="b")])
        await bus.publish("in", [Outgoing(key=b"b", value=None)])
        assert [(m.offset, m.value) for m in await bus.read(ONE, 0)] == [(98, b"49"), (100, None)]
        assert await bus.end_offset(ONE) == 101
        clock.now_s += 25 * 3600
        await bus.publish("in", [out("50", key="a")])
        assert [(m.offset, m.value) for m in await bus.read(ONE, 0)] == [(101, b"50")]


async def test_a_full_disk_refuses_whole_batches_and_recovers(tmp_path: Path) -> None:
    clock = Clock()
    batch = [out("x" * 10_000) for _ in range(20)]
    async with EmbeddedBus(tmp_path / "bus.db", max_bytes=2_000_000, clock=clock) as bus:
        await bus.ensure_topics([TopicSpec(name="in", retention_ms=60_000), TopicSpec(name="out")])
        transactor = await bus.transactor("work")
        written = 0

        async def fill() -> None:
            nonlocal written
            while written < 1000:
                await bus.publish("in", batch)
                written += len(batch)

        with pytest.raises(BusError, match="disk is full") as caught:
            await fill()
        assert caught.value.retriable
        assert 0 < written < 200
        assert await bus.end_offset(ONE) == len(await bus.read(ONE, 0)) == written

        async def transaction() -> None:
            async with transactor.transaction() as opened:
                await opened.publish("out", [out("small")])
                await opened.commit_offsets("g", {ONE: 1})
                await opened.publish("in", batch)

        with pytest.raises(BusError, match="disk is full"):
            await transaction()
        assert await bus.end_offset(Partition("out", 0)) == 0
        with pytest.raises(BusError, match="open a new transactor"):
            await transaction()

        clock.now_s += 120  # past the retention: there is room again
        await bus.publish("in", batch)
        transactor = await bus.transactor("work")
        await transaction()
        assert len(await read_all(bus, "in", 2 * len(batch))) == 2 * len(batch)
        assert values(await bus.read(Partition("out", 0), 0)) == ["small"]


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: path.write_bytes(b"no database" * 1000), "no whole SQLite database"),
        (lambda path: sqlite3.connect(path).execute("PRAGMA user_version = 99").connection.close(), "version 99"),
        (lambda path: path.mkdir(), "cannot be opened"),
        (lambda path: path.with_name("bus.db-live").write_text(""), "folder beside it"),
    ],
)
async def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, make: Callable[[Path], object], why: str) -> None:
    path = tmp_path / "bus.db"
    make(path)
    with pytest.raises(BusError, match=why) as caught:
        async with EmbeddedBus(path):
            pass
    assert str(path) in caught.value.what


async def test_nothing_is_left_beside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "bus.db"
    async with EmbeddedBus(path) as bus, EmbeddedBus(path):
        await bus.ensure_topics([TopicSpec(name="in")])
        left_open = await bus.subscribe(["in"], "left-open")
    with pytest.raises(BusError, match="has left"):
        await left_open.poll()
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_file()] == ["bus.db"]
    assert list((tmp_path / "bus.db-live").iterdir()) == []
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT * FROM members").fetchall() == []
    connection.close()


@given(
    members=st.dictionaries(st.text(max_size=3), st.frozensets(st.sampled_from("abc"), min_size=1), max_size=6),
    counts=st.fixed_dictionaries({topic: st.integers(1, 9) for topic in "abc"}),
)
def test_every_partition_that_anybody_wants_has_one_member_that_wants_it(
    members: dict[str, frozenset[str]], counts: dict[str, int]
) -> None:
    dealt = shares(members, counts)
    wanted = frozenset[str]().union(*members.values())
    assert dealt.keys() == {Partition(topic, n) for topic in wanted for n in range(counts[topic])}
    assert all(partition.topic in members[name] for partition, name in dealt.items())
    if all(topics == wanted for topics in members.values()) and members:
        load = [list(dealt.values()).count(name) for name in members]
        assert max(load) - min(load) <= 1
