"""Looking for something on a topic, newest first."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from govern.bus import Bus, Message, Partition

#: Offsets that are read at a time.
_PAGE: Final = 1000


async def newest_first(bus: Bus, topic: str) -> AsyncIterator[Message]:
    """All messages of a topic, from the end to the beginning, one partition after the other."""
    for number in range(await bus.partitions(topic)):
        tp = Partition(topic, number)
        high = await bus.end_offset(tp)
        while high > 0:
            low = max(0, high - _PAGE)
            page = await bus.read(tp, low, max_messages=_PAGE)
            for message in reversed(page):
                if message.offset < high:
                    yield message
            high = low


def event_id(message: Message) -> str:
    """The record's id, from the CloudEvent's header: without decoding the record."""
    return next((value.decode("utf-8", "replace") for name, value in message.headers if name == "ce_id"), "")
