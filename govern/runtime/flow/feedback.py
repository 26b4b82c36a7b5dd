"""What requests were worth, read from the bus for the routers that learn from it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from govern.bus import Bus
from govern.bus.protocol import BusError, Message, Partition, UnknownTopic
from govern.bus.topics import topic
from govern.codecs import cloudevents
from govern.errors import GovernError
from govern.record import Feedback
from govern.runtime.flow.model import FlowModel
from govern.telemetry.logging import get_logger

#: How soon a reward counts once it is on the bus.
LOOK_EVERY_S: Final = 0.2
#: Wait while the bus is away or the topic is not there.
_AWAY_S: Final = 2.0

log = get_logger("govern.serve")


async def follow_feedback(
    open_bus: Callable[[], Bus], namespace: str, models: Callable[[], Iterable[FlowModel]]
) -> None:
    """Tell the models each feedback of a namespace that comes from now on, until cancelled.

    Each server reads all of it: which routes a request took is known where it was routed. Nothing is committed; a
    server that starts anew begins to learn anew.

    Args:
        open_bus: a new connection; while there is none it is tried again, and requests are routed meanwhile.
        models: those that are served at the moment.
    """
    places: dict[Partition, int] = {}
    while True:
        try:
            async with open_bus() as bus:
                await _follow(bus, topic(namespace, "feedback"), places, models)
        except BusError as error:
            if not error.retriable and not isinstance(error, UnknownTopic):
                raise
            log.warning("no feedback can be read, trying again", what=error.what, why=error.why)
        await asyncio.sleep(_AWAY_S)


async def _follow(bus: Bus, name: str, places: dict[Partition, int], models: Callable[[], Iterable[FlowModel]]) -> None:
    partitions = [Partition(name, number) for number in range(await bus.partitions(name))]
    for each in partitions:
        if each not in places:
            places[each] = await bus.end_offset(each)
    log.info("routers learn from feedback", topic=name)
    while True:
        for each in partitions:
            for message in await bus.read(each, places[each]):
                _tell(message, models())
                places[each] = message.offset + 1
        await asyncio.sleep(LOOK_EVERY_S)


def _tell(message: Message, models: Iterable[FlowModel]) -> None:
    try:
        feedback = cloudevents.from_message(message)
        if isinstance(feedback, Feedback):
            for model in models:
                model.learn(feedback)
    except GovernError as error:
        log.warning(
            "feedback teaches nothing", partition=message.partition, offset=message.offset, why=error.why, fix=error.fix
        )
