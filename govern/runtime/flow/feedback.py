"""What requests were worth, read from the bus for the routers that learn from it, and what they learned, kept there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Final

from govern.bus import Bus
from govern.bus.protocol import BusError, Fenced, Message, Partition, UnknownTopic
from govern.bus.topics import topic
from govern.codecs import cloudevents
from govern.errors import GovernError
from govern.record import Feedback
from govern.runtime.flow.learned import Learned, Learner
from govern.telemetry.logging import get_logger

#: How soon a reward counts once it is on the bus.
LOOK_EVERY_S: Final = 0.2
#: Wait while the bus is away or the topic is not there.
_AWAY_S: Final = 2.0

log = get_logger("govern.serve")


@contextlib.asynccontextmanager
async def learning(
    open_bus: Callable[[], Bus], namespace: str, server: str | None, learners: Callable[[], Iterable[Learner]]
) -> AsyncIterator[None]:
    """While the block runs, `follow_feedback`."""
    following = asyncio.create_task(follow_feedback(open_bus, namespace, server, learners))
    try:
        yield
    finally:
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following


async def follow_feedback(
    open_bus: Callable[[], Bus], namespace: str, server: str | None, learners: Callable[[], Iterable[Learner]]
) -> None:
    """Tell the learners each feedback of a namespace, and keep what their routers learn of it, until cancelled.

    Each server reads all of it: which routes a request took is known where it was routed. One that starts under the
    name of another goes on where that one was, however it ended: what it had learned, the routes of its requests and
    its place in the feedback are one transaction. A name's first server begins with the feedback from now on.

    Args:
        open_bus: a new connection, opened once there is somebody to learn; while there is none it is tried again, and
            requests are routed meanwhile.
        server: its name. A newer one of the same name lets this one learn for itself alone, as one without a name does.
        learners: those that there are at the moment.
    """
    follower = _Follower(namespace, server, learners)
    while True:
        try:
            if any(True for _ in learners()):
                async with open_bus() as bus:
                    await follower.run(bus)
        except Fenced:
            follower.keeps = False
            log.error(
                "what routers learn from now on is not kept",
                why=f"another server has the name {server}",
                fix="give each server a name of its own (--name)",
            )
        except BusError as error:
            if not error.retriable and not isinstance(error, UnknownTopic):
                raise
            log.warning("no feedback can be read, trying again", what=error.what, why=error.why)
        await asyncio.sleep(_AWAY_S)


class _Follower:
    def __init__(self, namespace: str, server: str | None, learners: Callable[[], Iterable[Learner]]) -> None:
        self._feedback = topic(namespace, "feedback")
        self._table = Partition(topic(namespace, "routers"), 0)
        self._transactional_id = f"govern-serve.{namespace}.{server}"
        self._server = server
        self._learners = learners
        self._learned: Learned | None = None
        self.keeps = server is not None

    async def run(self, bus: Bus) -> None:
        """Follow until the bus fails. What was learned and not kept by then is kept by the next run."""
        transactor = await bus.transactor(self._transactional_id) if self.keeps else None
        if self._learned is None:
            table = {} if self._server is None else await bus.read_table(self._table)
            self._learned = Learned(self._server or "", table)
        learned = self._learned
        partitions = [Partition(self._feedback, number) for number in range(await bus.partitions(self._feedback))]
        for each in partitions:
            if each.partition not in learned.places:
                learned.move(each, await bus.end_offset(each))
        log.info("routers learn from feedback", topic=self._feedback)
        while True:
            learned.meet(self._learners())
            for each in partitions:
                for message in await bus.read(each, learned.places[each.partition]):
                    _tell(message, self._learners())
                    learned.move(each, message.offset + 1)
            messages = learned.messages()
            if messages and transactor is not None:
                async with transactor.transaction() as transaction:
                    await transaction.publish(self._table.topic, messages)
            learned.written()
            await asyncio.sleep(LOOK_EVERY_S)


def _tell(message: Message, learners: Iterable[Learner]) -> None:
    try:
        feedback = cloudevents.from_message(message)
        if isinstance(feedback, Feedback):
            for one in learners:
                one.learn(feedback)
    except GovernError as error:
        log.warning(
            "feedback teaches nothing", partition=message.partition, offset=message.offset, why=error.why, fix=error.fix
        )
