"""The joiner: parts of one request from several streams in, requests of chained pipelines out. Exactly once.

It reads the inferences as a group of its own beside the worker's: what joins wait for is not held up by a worker's slow
models, nor a worker by joins. Parts go over the joins topic, where those of one request meet on one partition, and
what they make goes to the inferences topic, where the worker reads it like what was captured. Each partition has a
transactor of its own; what a poll brought is published with state and offset in one transaction before the next poll.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from govern.bus import Bus, Message, Outgoing, Partition, Subscription, Transactor
from govern.bus.protocol import BusError, Fenced
from govern.bus.topics import Stream, topic
from govern.codecs import cloudevents
from govern.runtime.chained.tasks import JoinedPipeline, JoinTask, Made, SortTask, Task
from govern.runtime.limits import to_message
from govern.runtime.report import Reporter
from govern.telemetry.logging import get_logger

#: Messages taken in one poll: bounds the memory of one round and the work that a crash repeats.
MAX_MESSAGES: Final = 1000
#: How long a poll waits for messages, and how soon a change of pipelines is seen.
POLL_S: Final = 0.1
#: How often quiet partitions are looked over for requests that have waited long enough, and lag is measured.
HOUSEKEEPING_S: Final = 0.5
#: Wait before joining the group again after a failure of the bus: doubles from the first to the last.
BACKOFF_S: Final = (0.2, 10.0)

log = get_logger("govern.joiner")


@dataclass(frozen=True, slots=True)
class Held:
    """A partition that this joiner holds."""

    task: Task
    transactor: Transactor


class Joiner:
    """Joins for the chained pipelines of one namespace; without any it does nothing.

    Args:
        bus: entered by the caller.
        group: of the worker beside it, whose name it extends.
        clock_ns: Unix time in nanoseconds, by which silent streams are given up.
    """

    def __init__(
        self,
        *,
        bus: Bus,
        namespace: str,
        pipelines: Sequence[JoinedPipeline],
        reporter: Reporter,
        group: str = "govern-worker",
        source: str = "/govern/joiner",
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._bus = bus
        self._namespace = namespace
        self._pipelines = tuple(pipelines)
        self._reporter = reporter
        self._group = f"{group}-joins.{namespace}"
        self._source = source
        self._clock_ns = clock_ns
        self._inferences = topic(namespace, "inferences")
        self._parts = topic(namespace, "joins")
        self._state = topic(namespace, "join-checkpoints")
        self._held: dict[Partition, Held] = {}
        self._subscription: Subscription | None = None
        self._changed = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set.

        Raises:
            BusError: one that cannot pass, such as a missing topic.
        """
        wait_s = BACKOFF_S[0]
        while not stop.is_set():
            self._changed.clear()
            if not self._pipelines:
                await _first_of(stop, self._changed)
                continue
            began = time.monotonic()
            try:
                await self._session(stop)
            except BusError as error:
                if not error.retriable and not isinstance(error, Fenced):
                    raise
                log.warning("bus failed, joining again", what=error.what, why=error.why, wait_s=round(wait_s, 1))
                if time.monotonic() - began > BACKOFF_S[1]:
                    wait_s = BACKOFF_S[0]
                await _first_of(stop, timeout_s=wait_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret
                wait_s = min(BACKOFF_S[1], wait_s * 2)
            finally:
                await self._leave()

    def take_over(self, pipelines: Sequence[JoinedPipeline]) -> None:
        """Join for these instead. What waits for those that stay goes on waiting. Call it on the event loop."""
        if tuple(pipelines) != self._pipelines:
            self._pipelines = tuple(pipelines)
            self._changed.set()

    async def _session(self, stop: asyncio.Event) -> None:
        """Until `stop` is set, or other pipelines are to be joined for."""
        subscription = self._subscription = await self._bus.subscribe(
            [self._inferences, self._parts], self._group, on_assigned=self._on_assigned, on_revoked=self._on_revoked
        )
        next_look = 0.0
        while not (stop.is_set() or self._changed.is_set()):
            messages = await subscription.poll(max_messages=MAX_MESSAGES, timeout_s=POLL_S)
            batches: dict[Partition, list[Message]] = {}
            for message in messages:
                batches.setdefault(message.tp, []).append(message)
            await self._work(batches)
            if time.monotonic() >= next_look:
                await self._look(subscription, batches)
                next_look = time.monotonic() + HOUSEKEEPING_S

    async def _work(self, batches: Mapping[Partition, Sequence[Message]]) -> None:
        """Take in what came and commit it, all partitions at once: a transaction mostly waits for the broker."""

        async def one(held: Held, batch: Sequence[Message]) -> None:
            fresh = [message for message in batch if message.offset >= held.task.position]
            await self._commit(held, await asyncio.to_thread(held.task.process, fresh))

        mine = [(self._held[tp], batch) for tp, batch in batches.items() if tp in self._held]
        # None is left behind unfinished, so that what follows an error finds every transaction ended.
        outcomes = await asyncio.gather(*(one(held, batch) for held, batch in mine), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _look(self, subscription: Subscription, busy: Mapping[Partition, Sequence[Message]]) -> None:
        lag = await subscription.lag()
        self._reporter.lag(self._namespace, sum(lag.values()), step="joiner")
        if any(lag.values()):
            return  # what is missing may be among it
        for tp, held in self._held.items():
            if tp not in busy:
                made = held.task.expire(self._clock_ns())
                if made.requests or made.dropped or made.dead_letters:
                    await self._commit(held, made)

    async def _commit(self, held: Held, made: Made) -> None:
        task = held.task
        outputs: dict[Stream, list[Outgoing]] = {
            "joins": made.parts,
            "inferences": [
                cloudevents.to_message(request, source=self._source, lane=lane) for request, lane in made.requests
            ],
            "dead-letter": [to_message(letter, source=self._source) for letter in made.dead_letters],
            "join-checkpoints": [
                Outgoing(key=key, value=value, partition=task.tp.partition) for key, value in task.changed_state()
            ],
        }
        async with held.transactor.transaction() as transaction:
            for stream, messages in outputs.items():
                if messages:
                    await transaction.publish(topic(self._namespace, stream), messages)
            await transaction.commit_offsets(self._group, {task.tp: task.position})
        self._reporter.joined(self._namespace, made)

    async def _on_assigned(self, partitions: frozenset[Partition]) -> None:
        subscription = self._subscription
        for tp in sorted(partitions):
            transactor = await self._bus.transactor(f"{self._group}.{tp.topic}.{tp.partition}")
            kind = SortTask if tp.topic == self._inferences else JoinTask
            task: Task = kind(tp, self._namespace, self._pipelines)
            self._held[tp] = Held(task, transactor)
            joining = isinstance(task, JoinTask)
            table = await self._bus.read_table(Partition(self._state, tp.partition)) if joining else {}
            committed = await subscription.committed(tp) if subscription is not None else None
            start = task.restore(table, committed, self._clock_ns())
            if subscription is not None:
                await subscription.seek(tp, start)
            log.info("partition taken", topic=tp.topic, partition=tp.partition, offset=start)

    async def _on_revoked(self, partitions: frozenset[Partition]) -> None:
        for tp in sorted(partitions):
            held = self._held.pop(tp, None)
            if held is not None:
                await held.transactor.close()

    async def _leave(self) -> None:
        await self._on_revoked(frozenset(self._held))
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await subscription.close()


async def _first_of(*events: asyncio.Event, timeout_s: float | None = None) -> None:
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waiting:
            one.cancel()
