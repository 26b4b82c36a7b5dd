"""A worker that follows its fleet."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Final

from govern.bus import Bus, Partition
from govern.bus.topics import needed, topic
from govern.errors import BadInput, GovernError
from govern.runtime.fleet.contents import ContentReader
from govern.runtime.fleet.entry import CONTENTS, ENTRIES, Content, Entry, contents_of, decode_entry
from govern.runtime.fleet.shelf import Shelf
from govern.runtime.fleet.together import Following, check_together
from govern.runtime.loader import Check, LoadedPipeline, load
from govern.telemetry.logging import get_logger

#: How often it looks at the topic.
LOOK_EVERY_S: Final = 1.0
#: Changes are taken over together once a look finds no more of them, and after this time at the latest.
SETTLE_S: Final = 10.0
#: How long the contents of an entry may take to be seen after it: what a transaction wrote into several partitions is
#: seen in each a moment after it has ended, not in all at once.
CONTENTS_LATE_S: Final = 10.0

log = get_logger("govern.worker")


class Follower:
    """
    Args:
        bus: entered by the caller.
        shelf: entered, too.
        placement: of the worker that follows.
        check: of each artifact, before it is read.
    """

    def __init__(
        self, bus: Bus, namespace: str, shelf: Shelf, placement: str = "", *, check: Check | None = None
    ) -> None:
        self._check = check
        self._bus = bus
        self._placement = placement
        self._namespace = namespace
        self._shelf = shelf
        self._topic = topic(namespace, "pipelines")
        self._position = 0
        self._reader = ContentReader(bus, Partition(self._topic, CONTENTS))
        #: What the topic says, or why that cannot be read; and when each was first seen, seconds.
        self._entries: dict[str, Entry | BadInput] = {}
        self._seen_s: dict[str, float] = {}
        #: Of each pipeline, what was last loaded or refused; and what was last loaded.
        self._tried: dict[str, Entry | BadInput] = {}
        self._loaded: dict[str, tuple[LoadedPipeline, ...]] = {}
        self._refused: set[str] = set()

    async def start(self) -> Following:
        """What the fleet holds now, loaded.

        Raises:
            BusError: the bus fails, or has another such topic.
            Unavailable: the shelf cannot be written to.
        """
        await self._bus.ensure_topics(needed(self._namespace, ["pipelines"], message_bytes=0))
        await self._read_entries()
        self._shelf.keep({content.digest for content in _contents(self._entries.values())})
        await self._read_contents()
        following = await self.load()
        while self._pending():
            await asyncio.sleep(LOOK_EVERY_S)
            await self.look()
            following = await self.load()
        return following

    @contextlib.asynccontextmanager
    async def following(self, take_over: Callable[[Following], None]) -> AsyncIterator[None]:
        """While the block runs, `run`."""
        task = asyncio.create_task(self.run(take_over))
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def run(self, take_over: Callable[[Following], None]) -> None:
        """Follow for good: changes are loaded and handed over, many of them together."""
        since_s: float | None = None
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                more = await self.look()
                if not self.due:
                    continue
                since_s = since_s or time.monotonic()
                if not more or time.monotonic() - since_s >= SETTLE_S:
                    since_s = None
                    take_over(await self.load())
            except GovernError as error:
                log.error("the pipelines in force stay", what=error.what, why=error.why, fix=error.fix)

    async def look(self) -> bool:
        """Read what the topic says by now; whether that is anything new."""
        more = await self._read_entries()
        await self._read_contents()
        return more

    @property
    def due(self) -> bool:
        """Whether there is something to load or to let go."""
        return bool(self._ready()) or bool(self._tried.keys() - self._entries.keys())

    async def load(self) -> Following:
        """Load what is new, refuse what cannot be loaded, let go of what was deleted; nothing else is touched."""
        before = _contents(self._tried.values())
        for name in self._ready():
            entry = self._tried[name] = self._entries[name]
            try:
                self._loaded[name] = await self._load_one(entry)
            except GovernError as error:
                self._refuse(name, error)
            except Exception as error:  # noqa: BLE001 - any detector, a user's own included; the others run on
                self._refuse(name, error)
            else:
                self._refused.discard(name)
        for name in self._tried.keys() - self._entries.keys():
            del self._tried[name]
            self._loaded.pop(name, None)
            self._refused.discard(name)
        for content in before - _contents(self._entries.values()):
            self._shelf.drop(content.digest)
        return Following(tuple(part for parts in self._loaded.values() for part in parts), frozenset(self._refused))

    def _refuse(self, name: str, error: Exception) -> None:
        self._refused.add(name)
        stays = "the form in force stays" if name in self._loaded else "it does not run"
        why = {"what": error.what, "why": error.why, "fix": error.fix} if isinstance(error, GovernError) else {}
        log.error("pipeline of the fleet refused", pipeline=name, so=stays, exc_info=None if why else error, **why)

    async def _load_one(self, entry: Entry | BadInput) -> tuple[LoadedPipeline, ...]:
        if isinstance(entry, BadInput):
            raise entry
        if await asyncio.to_thread(self._shelf.damaged, entry):
            self._reader = ContentReader(self._bus, Partition(self._topic, CONTENTS))
            await self._read_contents()
        return await asyncio.to_thread(self._from_shelf, entry)

    def _from_shelf(self, entry: Entry) -> tuple[LoadedPipeline, ...]:
        with self._shelf.laid_out(entry) as file:
            parts = tuple(load(file, placement=self._placement, check=self._check))
        check_together(parts, self._namespace)
        return parts

    def _pending(self) -> list[str]:
        return [name for name, entry in self._entries.items() if self._tried.get(name) is not entry]

    def _ready(self) -> list[str]:
        """Pending ones that can be tried: all of their contents are there, or will not come any more."""
        now = time.monotonic()
        return [
            name
            for name in self._pending()
            if now - self._seen_s[name] >= CONTENTS_LATE_S or not self._missing(self._entries[name])
        ]

    def _missing(self, entry: Entry | BadInput) -> bool:
        return any(content not in self._shelf for content in _contents([entry]))

    async def _read_entries(self) -> bool:
        more = False
        while messages := await self._bus.read(Partition(self._topic, ENTRIES), self._position):
            more = True
            for message in messages:
                self._position = message.offset + 1
                name = message.key.decode("utf-8", "replace")
                self._entries.pop(name, None)
                if message.value is not None:
                    self._entries[name] = _decoded(name, message.value)
                    self._seen_s[name] = time.monotonic()
        return more

    async def _read_contents(self) -> None:
        """Put on the shelf what is not there yet."""
        if not any(self._missing(entry) for entry in self._entries.values()):
            return
        named = {content.digest for content in _contents(self._entries.values())}
        try:
            async for digest, data in self._reader.more():
                if data is not None:
                    await asyncio.to_thread(self._shelf.put, digest, data)
                elif digest not in named:
                    self._shelf.drop(digest)
        except BaseException:
            # What it has read is not all on the shelf: read from the beginning again.
            self._reader = ContentReader(self._bus, Partition(self._topic, CONTENTS))
            raise


def _decoded(name: str, data: bytes) -> Entry | BadInput:
    try:
        return decode_entry(name, data)
    except BadInput as error:
        return error


def _contents(entries: Iterable[Entry | BadInput]) -> frozenset[Content]:
    return contents_of(entry for entry in entries if isinstance(entry, Entry))
