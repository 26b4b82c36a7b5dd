"""A worker that follows its fleet: pipelines come, change, are refused and go on the bus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from govern.bus import Bus, Outgoing
from govern.bus.topics import topic
from govern.codecs import cloudevents
from govern.errors import BadInput
from govern.record import Verdict, decode
from govern.runtime.fleet import follower
from govern.runtime.fleet.entry import CONTENTS, ENTRIES, entry_message
from govern.runtime.fleet.fleet import Fleet
from govern.runtime.fleet.follower import Follower
from govern.runtime.fleet.shelf import shelf
from govern.runtime.fleet.together import Together
from govern.runtime.loader import load
from govern.runtime.report import Reporter
from govern.runtime.worker import Worker
from govern.telemetry.metrics import Metrics
from tests.bus.helpers import settled
from tests.runtime.conftest import Make
from tests.runtime.fleet.conftest import PARTITIONS, Write, on_record, packed

DEADLINE_S = 60.0


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "LOOK_EVERY_S", 0.1)


class Running:
    """A worker with a file's pipelines and the fleet's, as `govern worker FILE --fleet` runs it."""

    def __init__(self, bus: Bus, namespace: str) -> None:
        self._bus = bus
        self._namespace = namespace

    @asynccontextmanager
    async def running(self, folder: Path, *files: Path) -> AsyncIterator[None]:
        self.registry = CollectorRegistry()
        reporter = Reporter(Metrics(self.registry))
        together = Together(lambda names: reporter.refused(self._namespace, names))
        together.files([loaded for file in files for loaded in load(file)])
        stop = asyncio.Event()
        with shelf(folder) as cache:
            followed = Follower(self._bus, self._namespace, cache)
            pipelines = together.fleet(await followed.start())
            worker = Worker(bus=self._bus, namespace=self._namespace, pipelines=pipelines, reporter=reporter)
            following = followed.following(lambda found: worker.take_over(together.fleet(found)))
            async with following, asyncio.TaskGroup() as group:
                group.create_task(worker.run(stop))
                try:
                    yield
                finally:
                    stop.set()

    async def in_force(self) -> dict[str, str]:
        """Name -> digest of what the worker has put on record as running."""
        running: dict[str, str] = {}
        for one in await on_record(self._bus, self._namespace):
            if one.actor == "/govern/worker" and one.action == "removed":
                del running[one.subject]
            elif one.actor == "/govern/worker":
                running[one.subject] = one.digest
        return running

    def refused(self) -> set[str]:
        (family,) = [one for one in self.registry.collect() if one.name == "govern_pipelines_refused"]
        return {sample.labels["pipeline"] for sample in family.samples if sample.value == 1}

    async def judged(self) -> set[str]:
        """Of which pipelines there are verdicts."""
        found = await settled(self._bus, topic(self._namespace, "verdicts"))
        return {decode(Verdict, message.value or b"").pipeline for message in found}


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not await condition():
            await asyncio.sleep(0.05)


def digests(*files: Path) -> dict[str, str]:
    return {loaded.plan.name: loaded.plan.digest for file in files for loaded in load(file)}


async def publish(bus: Bus, namespace: str, make: Make, numbers: range) -> None:
    made = [
        cloudevents.to_message(make(i, rows=4, namespace=namespace), source="/test", partition=i % PARTITIONS)
        for i in numbers
    ]
    await bus.publish(topic(namespace, "inferences"), made)


async def test_pipelines_come_change_and_go_on_the_bus(
    bus: Bus, unique: str, write: Write, make_inference: Make, tmp_path: Path
) -> None:
    """Beside one of a file, which no pipeline of the fleet displaces."""
    fleet = Fleet(bus, unique, actor="test")
    one = Running(bus, unique)
    own, first, second = write("own"), write("first"), write("second")
    await fleet.apply(packed(first))

    async def has(*files: Path, refused: frozenset[str] = frozenset()) -> None:
        async def reached() -> bool:
            return await one.in_force() == digests(*files) and one.refused() == refused

        await until(reached)

    async with one.running(tmp_path / "cache", own):
        await has(own, first)
        await fleet.apply(packed(second, own))
        await has(own, first, second, refused=frozenset({"own"}))
        await publish(bus, unique, make_inference, range(40))

        async def all_judged() -> bool:
            return await one.judged() == {"own", "first", "second"}

        await until(all_judged)
        write("first", "size: 300", "size: 200")
        await fleet.apply(packed(first))
        await fleet.delete(["second", "own"])
        await has(own, first)
    # What the shelf has need not come from the bus again; somebody has changed a file there, and one is left over.
    contents = tmp_path / "cache" / "contents"
    next(contents.iterdir()).write_bytes(b"changed")
    (contents / ("0" * 64)).write_bytes(b"left over")
    async with one.running(tmp_path / "cache", own):
        await has(own, first)
        assert not (contents / ("0" * 64)).exists()


@pytest.mark.parametrize("bus_url", ["embedded"], indirect=True)
async def test_what_cannot_be_loaded_stops_nobody(
    bus: Bus, unique: str, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "CONTENTS_LATE_S", 0.5)
    fleet = Fleet(bus, unique, actor="test")
    one = Running(bus, unique)
    first, second = write("first"), write("second")
    await fleet.apply(packed(first, second))
    before = digests(first, second)

    async def reached(in_force: dict[str, str], refused: set[str]) -> None:
        async def there() -> bool:
            return await one.in_force() == in_force and one.refused() == refused

        await until(there)

    async with one.running(tmp_path / "cache"):
        await reached(before, set())
        # A pipeline that is to change, of whose document the bus holds something else.
        write("first", "size: 300", "size: 200")
        (changed,) = packed(first)
        (key,) = changed.entry.files[changed.entry.document].keys
        place = topic(unique, "pipelines")
        await bus.publish(place, [Outgoing(key=key, value=b"damaged", partition=CONTENTS)])
        await bus.publish(place, [entry_message(changed.entry)])
        await reached(before, {"first"})
        write("second", "size: 300", "size: 200")
        await fleet.apply(packed(second))
        await reached(before | digests(second), {"first"})
        newer = b'{"format_version": 99}'
        await bus.publish(place, [Outgoing(key=b"third", value=newer, partition=ENTRIES)])
        await reached(before | digests(second), {"first", "third"})
        with pytest.raises(BadInput, match="'third' has format_version 99"):
            await fleet.delete(["first"])
        await bus.publish(place, [Outgoing(key=b"third", value=None, partition=ENTRIES)])
        await fleet.delete(["first"])
        await fleet.apply([changed])
        await reached(digests(first, second), set())
