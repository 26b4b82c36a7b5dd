from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from govern.bus import Bus, TopicSpec, open_bus

MakeTopic = Callable[..., Awaitable[str]]


@pytest.fixture
async def bus(bus_url: str) -> AsyncIterator[Bus]:
    async with open_bus(bus_url) as opened:
        yield opened


@pytest.fixture
async def other_bus(bus_url: str) -> AsyncIterator[Bus]:
    """A second connection, as another process would have it."""
    async with open_bus(bus_url) as opened:
        yield opened


@pytest.fixture
def make_topic(bus: Bus, unique: str) -> MakeTopic:
    async def make(name: str = "in", *, partitions: int = 1, compacted: bool = False) -> str:
        spec = TopicSpec(name=f"{unique}.{name}", partitions=partitions, compacted=compacted)
        await bus.ensure_topics([spec])
        return spec.name

    return make
