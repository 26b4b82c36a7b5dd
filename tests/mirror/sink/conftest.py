"""A sink that runs in this process, on a port of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from govern.mirror.captured import CapturedFeedback, decode
from govern.mirror.config import MirrorConfig
from govern.mirror.inspect import inspect_segments
from govern.mirror.segment import Frame, SegmentReader
from govern.mirror.sink.server import serve
from govern.mirror.sink.sink import Sink
from govern.record import Inference
from govern.telemetry.metrics import Metrics
from tests.mirror.conftest import DEADLINE_S, records
from tests.mirror.sink.events import Answer, send

MakeConfig = Callable[..., MirrorConfig]


@dataclass(frozen=True)
class RunningSink:
    """The server's port, and what it recorded."""

    port: int
    sink: Sink
    registry: CollectorRegistry
    spool_dir: Path
    _stop: asyncio.Event
    _ended: asyncio.Task[None]

    async def send(self, data: bytes) -> Answer:
        return await send(self.port, data)

    def recorded(self) -> list[Inference]:
        return records([self.spool_dir])

    async def until_recorded(self, count: int) -> list[Inference]:
        async with asyncio.timeout(DEADLINE_S):
            while len(found := self.recorded()) < count:
                await asyncio.sleep(0.01)
        return found

    def count(self, name: str) -> float:
        """A counter's or a gauge's sum over all labels."""
        return sum(
            sample.value
            for family in self.registry.collect()
            for sample in family.samples
            if sample.name == f"govern_sink_{name}"
        )

    async def stop(self) -> None:
        self._stop.set()
        await self._ended
        self.sink.close()


def entries(spool_dir: Path) -> list[Inference | CapturedFeedback]:
    """All that lies in the spool, as a shipper reads it after its writers are dead."""
    found = []
    for segment in inspect_segments([spool_dir]):
        frames = [item for item in segment.frames() if isinstance(item, Frame)]
        with SegmentReader(segment.path) as reader:
            frames += reader.beyond(segment.header.end)
        found += [decode(frame.payload) for frame in frames]
    return found


def sides_of(entry: Inference | CapturedFeedback) -> list[tuple[str, str]]:
    if isinstance(entry, CapturedFeedback):
        return [(entry.feedback.request_id, "feedback")]
    return [(entry.request_id, side) for side in ("request", "response") if side not in entry.missing]


StartSink = Callable[..., Awaitable[RunningSink]]


@pytest.fixture
async def start_sink(make_config: MakeConfig, spool_dir: Path) -> AsyncIterator[StartSink]:
    """`await start_sink(**config)`, where `sink` is a dictionary; stopped after the test."""
    running: list[RunningSink] = []

    async def start(**values: object) -> RunningSink:
        config = make_config(**values)
        registry = CollectorRegistry()
        sink = Sink(config, Metrics(registry))
        stop = asyncio.Event()
        port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(serve(sink, registry, stop, started=port.set_result))
        await asyncio.wait([port, task], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            sink.close()
            await task
        running.append(RunningSink(await port, sink, registry, spool_dir, stop, task))
        return running[-1]

    yield start
    for one in running:
        if not one._ended.done():
            await one.stop()
