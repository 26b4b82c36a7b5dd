"""Index: the newest explanations by id, kept up with the topic, so that an API answers for any worker's work."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from typing import Final

from explainers.scan import event_id, newest_first
from govern.bus import Bus, Message, Partition
from govern.bus.protocol import BusError
from govern.bus.topics import topic
from govern.codecs import cloudevents
from govern.errors import BadInput
from govern.record import Explanation
from govern.telemetry.logging import get_logger

#: Explanations in memory: a few kB each.
SIZE: Final = 10_000
#: Between two looks for new messages: adds half of it to the time of an explanation.
_LOOK_S: Final = 0.05
_PAGE: Final = 1000
#: Wait after a failure of the bus.
_BACKOFF_S: Final = 1.0

_log = get_logger(__name__)


class ExplanationIndex:
    """Explanations of one namespace.

    Args:
        bus: entered by the caller.
        size: how many are kept in memory; older ones are looked up on the topic.
    """

    def __init__(self, bus: Bus, namespace: str, *, size: int = SIZE) -> None:
        self._bus = bus
        self._topic = topic(namespace, "explanations")
        self._requests = topic(namespace, "explain-requests")
        self._size = size
        self._known: OrderedDict[str, Explanation] = OrderedDict()
        self._awaited: dict[str, asyncio.Event] = {}
        self._positions: dict[Partition, int] = {}

    async def follow(self) -> None:
        """Take in what workers publish, for ever, the newest of today first. Outlives the bus's absence."""
        while True:
            try:
                if not self._positions:
                    await self._start()
                if not await self._advance():
                    await asyncio.sleep(_LOOK_S)
            except BusError as error:
                _log.warning("explanations topic cannot be read", what=error.what, why=error.why)
                await asyncio.sleep(_BACKOFF_S)

    def get(self, id_: str) -> Explanation | None:
        """The explanation, if it is in memory."""
        return self._known.get(id_)

    async def wait(self, id_: str, seconds: float) -> Explanation | None:
        """The explanation as soon as it is known; None when it is not within that time."""
        known = self._known.get(id_)
        if known is not None:
            return known
        event = self._awaited.setdefault(id_, asyncio.Event())
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(event.wait(), seconds)
        finally:
            if self._awaited.get(id_) is event and not event.is_set():
                del self._awaited[id_]
        return self._known.get(id_)

    async def find(self, id_: str) -> Explanation | None:
        """The explanation, from memory or from the topic."""
        known = self._known.get(id_)
        if known is not None:
            return known
        async for message in newest_first(self._bus, self._topic):
            if event_id(message) == id_ and (found := _explanation(message)) is not None:
                return found
        return None

    async def is_requested(self, id_: str) -> bool:
        """Whether a request for it is on the bus."""
        async for message in newest_first(self._bus, self._requests):
            if event_id(message) == id_:
                return True
        return False

    async def _start(self) -> None:
        positions = {}
        for number in range(await self._bus.partitions(self._topic)):
            tp = Partition(self._topic, number)
            positions[tp] = max(0, await self._bus.end_offset(tp) - self._size)
        self._positions = positions

    async def _advance(self) -> bool:
        moved = False
        for tp, position in self._positions.items():
            messages = await self._bus.read(tp, position, max_messages=_PAGE)
            for message in messages:
                explanation = _explanation(message)
                if explanation is not None:
                    self._take(explanation)
            if messages:
                self._positions[tp] = messages[-1].offset + 1
                moved = True
        return moved

    def _take(self, explanation: Explanation) -> None:
        self._known[explanation.id] = explanation
        while len(self._known) > self._size:
            self._known.popitem(last=False)
        event = self._awaited.pop(explanation.id, None)
        if event is not None:
            event.set()


def _explanation(message: Message) -> Explanation | None:
    try:
        record = cloudevents.from_message(message)
    except BadInput as error:
        _log.warning("message of the explanations topic is no explanation", what=error.what, why=error.why)
        return None
    return record if isinstance(record, Explanation) else None
