"""kill -9 at random moments: what a consumer makes of its input is complete, in order, and there once."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from govern.bus import Bus, Partition
from tests.bus.conftest import MakeTopic
from tests.bus.helpers import assert_numbered, out, read_all, until

REPOSITORY = Path(__file__).parents[2]
PARTITIONS = 2
#: A kill on Kafka costs the 2 s after which the group misses the member; one on the embedded bus costs nothing.
KILLS = {"embedded": 15, "kafka": 8}

#: 20 messages each time: what gathers while a killed member is missed must be worked off within the deadline.
FEED_EVERY_S = 0.1
FEED_MOST = 500


@pytest.mark.timeout(600)
async def test_a_consumer_killed_again_and_again_works_exactly_once(
    bus: Bus, bus_url: str, make_topic: MakeTopic, unique: str
) -> None:
    source, target = await make_topic("in", partitions=PARTITIONS), await make_topic("out")
    state = await make_topic("state", partitions=PARTITIONS, compacted=True)
    moments = random.Random(unique)
    sent: list[str] = []
    topics = (source, target, state, unique)
    for _ in range(KILLS[bus_url.partition(":")[0]]):
        async with consumer(bus_url, *topics), asyncio.TaskGroup() as tasks:
            before = await bus.end_offset(Partition(target, 0))
            feeding = tasks.create_task(feed(bus, source, sent))
            await until(lambda before=before: grown(bus, target, before), "the consumer to work")
            # Anywhere in the loop: a turn of it takes 1 to 30 ms.
            await asyncio.sleep(moments.uniform(0.0, 0.1))
            feeding.cancel()
    async with consumer(bus_url, *topics):
        found = await read_all(bus, target, len(sent))
    assert_numbered(found, sent, partitions=PARTITIONS)
    counts = [await bus.read_table(Partition(state, number)) for number in range(PARTITIONS)]
    assert counts == [{str(n).encode(): str(len(sent[n::PARTITIONS])).encode()} for n in range(PARTITIONS)]


@contextlib.asynccontextmanager
async def consumer(*arguments: str) -> AsyncIterator[None]:
    """A process that is killed at the end of the block."""
    command = [sys.executable, "-m", "tests.bus.counter_process", *arguments]
    process = await asyncio.create_subprocess_exec(*command, cwd=REPOSITORY)
    try:
        yield
    finally:
        assert process.returncode is None, "the consumer ended by itself"
        process.send_signal(signal.SIGKILL)
        await process.wait()


async def feed(bus: Bus, topic: str, sent: list[str]) -> None:
    """Publish for as long as it is let; `sent` is what is in the topic, whatever moment it is cancelled at.

    No more than can be worked off: on a busy machine the consumer is slow, and this is not.
    """
    most = len(sent) + FEED_MOST
    while True:
        if len(sent) >= most:
            await asyncio.sleep(FEED_EVERY_S)
            continue
        fresh = [str(n) for n in range(len(sent), len(sent) + 20)]
        publishing = asyncio.ensure_future(
            bus.publish(topic, [out(value, partition=int(value) % PARTITIONS) for value in fresh])
        )
        sent += fresh
        try:
            await asyncio.shield(publishing)
            await asyncio.sleep(FEED_EVERY_S)
        except asyncio.CancelledError:
            await publishing
            raise


async def grown(bus: Bus, topic: str, before: int) -> bool:
    await asyncio.sleep(0.01)
    return await bus.end_offset(Partition(topic, 0)) > before
