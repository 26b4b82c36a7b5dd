"""The worker: consume inferences, run the pipelines, publish what they find. Exactly once.

Each assigned partition has a `PartitionTask` and a transactor of its own, whose transactional id names group,
topic and partition: whoever is assigned the partition next fences this worker before it reads the checkpoint.
Any failure of the bus drops all tasks and joins again; what was not committed is computed again from the checkpoint.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from msgspec.structs import replace

from govern import record as records
from govern.bus import Bus, Message, Outgoing, Partition, Subscription, Transactor
from govern.bus.protocol import BusError, Fenced
from govern.bus.topics import Stream, topic
from govern.codecs import cloudevents
from govern.ids import uuid7
from govern.record import ConfigChange
from govern.runtime.limits import to_message
from govern.runtime.loader import LoadedPipeline
from govern.runtime.report import Reporter
from govern.runtime.task import Effects, Judgement, PartitionTask
from govern.telemetry.logging import get_logger

#: A verdict waits at most this long for its transaction. Shorter costs a round trip of transactions per window;
#: longer adds to the age of every verdict.
COMMIT_INTERVAL_S: Final = 0.1
#: Messages taken in one poll: bounds the memory of one round and the work that a crash repeats.
MAX_MESSAGES: Final = 2000
#: How often quiet partitions are looked over for windows whose time is over, and lag is measured.
HOUSEKEEPING_S: Final = 0.5
#: Wait before joining again after a failure of the bus: doubles from the first to the last.
BACKOFF_S: Final = (0.2, 10.0)

log = get_logger("govern.worker")


@dataclass(slots=True)
class Assigned:
    """A partition that this worker holds."""

    task: PartitionTask
    transactor: Transactor
    pending: Effects = field(default_factory=Effects)
    uncommitted_since: float | None = None


class Worker:
    """Runs pipelines over the inferences of one namespace.

    Args:
        bus: entered by the caller.
        pipelines: loaded and checked.
        reporter: emits metrics and spans for what was committed.
        group: consumer group; workers of one group share the partitions and must run the same pipelines.
        clock_ns: Unix time in nanoseconds, against which windows of quiet streams expire.
    """

    def __init__(
        self,
        *,
        bus: Bus,
        namespace: str,
        pipelines: Sequence[LoadedPipeline],
        reporter: Reporter,
        group: str = "govern-worker",
        source: str = "/govern/worker",
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._bus = bus
        self._namespace = namespace
        self._pipelines = tuple(pipelines)
        self._reporter = reporter
        self._group = f"{group}.{namespace}"
        self._source = source
        self._clock_ns = clock_ns
        self._inferences = topic(namespace, "inferences")
        self._checkpoints = topic(namespace, "checkpoints")
        self._held: dict[Partition, Assigned] = {}
        self._subscription: Subscription | None = None
        self._progressed = False
        #: Those that it has put on record as running, and those that are to take the place of the running ones.
        self._announced: tuple[LoadedPipeline, ...] = ()
        self._wanted: tuple[LoadedPipeline, ...] | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; then commit what was judged and leave the group.

        Raises:
            BusError: one that cannot pass, such as a missing topic.
        """
        wait_s = BACKOFF_S[0]
        while not stop.is_set():
            try:
                await self._announce()
                await self._session(stop)
            except BusError as error:
                if not error.retriable and not isinstance(error, Fenced):
                    raise
                log.warning("bus failed, joining again", what=error.what, why=error.why, wait_s=round(wait_s, 1))
            else:
                return
            finally:
                await self._abandon()
            if self._progressed:
                self._progressed, wait_s = False, BACKOFF_S[0]
            await _sleep_or_stop(wait_s * random.uniform(0.5, 1.0), stop)  # noqa: S311 - jitter, no secret
            wait_s = min(BACKOFF_S[1], wait_s * 2)

    def take_over(self, pipelines: Sequence[LoadedPipeline]) -> None:
        """Run these instead, from the next commit of each partition on. Call it on the worker's event loop.

        Windows of steps that stay go on with the rows that they hold, as after a restart with another file.
        """
        self._wanted = tuple(pipelines)

    async def _announce(self) -> None:
        """Put on record which pipelines this worker runs, as far as it has not said so."""
        before = {one.plan.name: one for one in self._announced}
        now = {one.plan.name: one for one in self._pipelines}
        changes = [self._change(before[name], "removed") for name in before if name not in now]
        for name, loaded in now.items():
            if name not in before:
                changes.append(self._change(loaded, "loaded"))
            elif before[name].plan.digest != loaded.plan.digest:
                changes.append(self._change(loaded, "changed"))
        await self._bus.publish(
            topic(self._namespace, "config"), [cloudevents.to_message(one, source=self._source) for one in changes]
        )
        self._announced = self._pipelines

    def _change(self, loaded: LoadedPipeline, action: str) -> ConfigChange:
        return ConfigChange(
            schema_version=records.SCHEMA_VERSION,
            id=uuid7(),
            namespace=self._namespace,
            subject=f"pipeline/{loaded.plan.name}",
            action=action,
            digest=loaded.plan.digest,
            actor=self._source,
            t_change=self._clock_ns(),
            detail=", ".join(f"{step}={one.method}@{one.digest[:12]}" for step, one in loaded.detectors.items()),
        )

    async def _change_over(self) -> None:
        """Commit what the running pipelines have judged, and go on from there with the wanted ones."""
        assert self._wanted is not None
        self._pipelines, self._wanted = self._wanted, None
        held = frozenset(self._held)
        for assigned in self._held.values():
            await self._commit(assigned)
        await self._on_revoked(held)
        await self._announce()
        await self._on_assigned(held)
        log.info("pipelines taken over", pipelines=[one.plan.name for one in self._pipelines])

    async def _session(self, stop: asyncio.Event) -> None:
        subscription = self._subscription = await self._bus.subscribe(
            [self._inferences], self._group, on_assigned=self._on_assigned, on_revoked=self._on_revoked
        )
        next_housekeeping = 0.0
        while not stop.is_set():
            messages = await subscription.poll(max_messages=MAX_MESSAGES, timeout_s=self._patience_s())
            busy = await self._judge(messages)
            if time.monotonic() >= next_housekeeping:
                await self._housekeeping(subscription, busy)
                next_housekeeping = time.monotonic() + HOUSEKEEPING_S
            await self._commit_due()
            if self._wanted is not None:
                await self._change_over()
        for assigned in self._held.values():
            await self._commit(assigned)

    def _patience_s(self) -> float:
        since = [one.uncommitted_since for one in self._held.values() if one.uncommitted_since is not None]
        if not since:
            return COMMIT_INTERVAL_S
        return max(0.001, min(since) + COMMIT_INTERVAL_S - time.monotonic())

    async def _judge(self, messages: Sequence[Message]) -> set[Partition]:
        by_partition: dict[Partition, list[Message]] = defaultdict(list)
        for message in messages:
            by_partition[message.tp].append(message)
        for tp, batch in by_partition.items():
            assigned = self._held.get(tp)
            if assigned is None:
                continue
            fresh = [message for message in batch if message.offset >= assigned.task.position]
            self._note(assigned, await asyncio.to_thread(assigned.task.process, fresh))
        return set(by_partition)

    async def _housekeeping(self, subscription: Subscription, busy: set[Partition]) -> None:
        lag = await subscription.lag()
        self._reporter.lag(self._namespace, sum(lag.values()))
        now_ns = self._clock_ns()
        for tp, assigned in self._held.items():
            if tp not in busy and lag.get(tp) == 0:
                effects = await asyncio.to_thread(assigned.task.expire, now_ns)
                if effects.judgements or effects.dead_letters:
                    self._note(assigned, effects)

    @staticmethod
    def _note(assigned: Assigned, effects: Effects) -> None:
        assigned.pending.extend(effects)
        if assigned.uncommitted_since is None:
            assigned.uncommitted_since = time.monotonic()

    async def _commit_due(self) -> None:
        """Commit what has waited long enough, all partitions at once: a transaction mostly waits for the broker."""
        now = time.monotonic()
        due = [
            assigned
            for assigned in self._held.values()
            if assigned.uncommitted_since is not None and now - assigned.uncommitted_since >= COMMIT_INTERVAL_S
        ]
        # None is left behind unfinished, so that what follows an error finds every transaction ended.
        outcomes = await asyncio.gather(*(self._commit(assigned) for assigned in due), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _commit(self, assigned: Assigned) -> None:
        if assigned.uncommitted_since is None:
            return
        task, effects = assigned.task, assigned.pending
        outputs: dict[Stream, list[Outgoing]] = {
            "verdicts": [self._verdict_message(one) for one in effects.judgements],
            "explain-requests": [to_message(one, source=self._source) for one in effects.explain_requests],
            "dead-letter": [to_message(one, source=self._source) for one in effects.dead_letters],
        }
        state = [Outgoing(key=key, value=value, partition=task.tp.partition) for key, value in task.changed_state()]
        async with assigned.transactor.transaction() as transaction:
            for stream, messages in outputs.items():
                if messages:
                    await transaction.publish(topic(self._namespace, stream), messages)
            await transaction.publish(self._checkpoints, state)
            await transaction.commit_offsets(self._group, {task.tp: task.position})
        assigned.pending = Effects()
        assigned.uncommitted_since = None
        self._progressed = True
        self._reporter.committed(self._namespace, effects, self._clock_ns())

    def _verdict_message(self, judgement: Judgement) -> Outgoing:
        traceparent = self._reporter.judged(judgement.verdict, judgement.traceparents)
        return to_message(replace(judgement.verdict, traceparent=traceparent), source=self._source)

    async def _on_assigned(self, partitions: frozenset[Partition]) -> None:
        assert self._subscription is not None or not partitions
        for tp in sorted(partitions):
            transactor = await self._bus.transactor(f"{self._group}.{tp.topic}.{tp.partition}")
            task = PartitionTask(tp, self._namespace, self._pipelines)
            self._held[tp] = Assigned(task=task, transactor=transactor)
            table = await self._bus.read_table(Partition(self._checkpoints, tp.partition))
            committed = await self._subscription.committed(tp) if self._subscription else None
            start = task.restore(table, committed)
            if self._subscription is not None:
                await self._subscription.seek(tp, start)
            log.info("partition taken", partition=tp.partition, offset=start)

    async def _on_revoked(self, partitions: frozenset[Partition]) -> None:
        for tp in sorted(partitions):
            assigned = self._held.pop(tp, None)
            if assigned is None:
                continue
            try:
                await self._commit(assigned)
            except BusError as error:
                log.warning("uncommitted work left to the next holder", partition=tp.partition, why=error.why)
            finally:
                await assigned.transactor.close()
            log.info("partition given up", partition=tp.partition)
        self._reporter.forget_windows()

    async def _abandon(self) -> None:
        """Drop every task without committing, and leave the group."""
        held, self._held = self._held, {}
        self._reporter.forget_windows()
        for assigned in held.values():
            await assigned.transactor.close()
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await subscription.close()


async def _sleep_or_stop(seconds: float, stop: asyncio.Event) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
