"""The worker: consume inferences, run the pipelines, publish what they find. Exactly once.

Each assigned partition has a `Lane` and a transactor of its own, whose transactional id names group, topic and
partition: whoever is assigned the partition next fences this worker before it reads the checkpoint. The partitions are
judged in turns, so that none waits for another's work to be done, and one that has more than it can do is paused.
Any failure of the bus drops all tasks and joins again; what was not committed is computed again from the checkpoint.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from govern import record as records
from govern.bus import Bus, Message, Outgoing, Partition, Subscription, Transactor
from govern.bus.protocol import BusError, Fenced
from govern.bus.topics import Stream, topic
from govern.codecs import cloudevents
from govern.ids import uuid7
from govern.record import ConfigChange
from govern.runtime.chained.joiner import Joiner
from govern.runtime.chained.linked import link
from govern.runtime.chained.tasks import JoinedPipeline
from govern.runtime.checkpoint import of_placement, placed
from govern.runtime.flows import PATIENCE_S, Flows
from govern.runtime.lane import Lane
from govern.runtime.limits import to_message
from govern.runtime.loader import LoadedPipeline
from govern.runtime.plans import Plans
from govern.runtime.report import Reporter, Standing
from govern.runtime.task import Judgement, PartitionTask
from govern.runtime.watched import WatchedFlow
from govern.telemetry.logging import get_logger

#: A verdict waits at most this long for its transaction. Shorter costs a round trip of transactions per window;
#: longer adds to the age of every verdict.
COMMIT_INTERVAL_S: Final = 0.1
#: Messages taken in one poll: bounds the memory of one round and the work that a crash repeats.
MAX_MESSAGES: Final = 2000
#: Within this time each partition that has work gets a turn, and what was judged is committed. Shorter costs a round
#: trip of transactions for less; longer adds to the age of the verdicts of all partitions when one of them lags.
ROUND_S: Final = 0.5
#: The shortest turn: below it, reading ahead costs more than judging.
TURN_S: Final = 0.05
#: A turn ends between two messages. One that is so much longer than it should be goes on beside those of others.
LATE_S: Final = 0.25
#: Whoever loses a partition waits so long for the turn in hand; past it, the next holder does that work again.
HANDOVER_S: Final = 5.0
#: How long a poll waits for messages while flows run: it is not woken when they are at rest.
FLOW_LOOK_S: Final = 0.01
#: How often quiet partitions are looked over for windows whose time is over, and lag is measured.
HOUSEKEEPING_S: Final = 0.5
#: Wait before joining again after a failure of the bus: doubles from the first to the last.
BACKOFF_S: Final = (0.2, 10.0)

log = get_logger("govern.worker")


@dataclass(slots=True)
class Assigned:
    """A partition that this worker holds."""

    lane: Lane
    transactor: Transactor
    plans: Plans
    paused: bool = False


class Worker:
    """Runs pipelines over the inferences of one namespace.

    Args:
        bus: entered by the caller.
        pipelines: loaded and checked.
        reporter: emits metrics and spans for what was committed.
        group: consumer group; workers of one group share the partitions and must run the same pipelines.
        clock_ns: Unix time in nanoseconds, against which windows of quiet streams expire.
        placement: it runs the pipelines that are placed there (`govern.runtime.loader.PLACEMENT`), as a group of its
            own; "" those that are placed nowhere. Joins are made by the workers of no placement, for all.
        patience_s: how long a model that a pipeline calls may be away before its inferences become dead letters.
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
        placement: str = "",
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._bus = bus
        self._namespace = namespace
        self._placement = placement
        self._pipelines, joined = self._own(pipelines)
        self._joiner = Joiner(
            bus=bus, namespace=namespace, pipelines=joined, reporter=reporter, group=group, clock_ns=clock_ns
        )
        self._reporter = reporter
        self._group = f"{group}-{placement}.{namespace}" if placement else f"{group}.{namespace}"
        self._source = source
        self._clock_ns = clock_ns
        self._model_patience_s = patience_s
        self._flows = Flows(self._pipelines, patience_s=patience_s)
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
        try:
            await _side_by_side(self._work(stop), self._joiner.run(stop))
        finally:
            await self._flows.close()

    def learners(self) -> Iterator[WatchedFlow]:
        """The flows that feedback teaches."""
        return self._flows.learners()

    async def _work(self, stop: asyncio.Event) -> None:
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

        Windows of steps that stay as they are go on with the rows that they hold, as after a restart with another file.
        """
        self._wanted, joined = self._own(pipelines)
        self._joiner.take_over(joined)

    def _own(
        self, pipelines: Sequence[LoadedPipeline]
    ) -> tuple[tuple[LoadedPipeline, ...], tuple[JoinedPipeline, ...]]:
        """Those of some pipelines that run here, and those that are joined for here, each linked to all others."""
        linked = link(pipelines)
        for name, error in linked.refused.items():
            log.error("pipeline refused", pipeline=name, why=error.why, fix=error.fix)
        here = tuple(one for one in linked.pipelines if one.placement == self._placement)
        return here, () if self._placement else linked.joined

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
        """Go on with the wanted pipelines from where each partition is."""
        assert self._wanted is not None
        self._pipelines, self._wanted = self._wanted, None
        assert self._subscription is not None, "it changes over within a session"
        before, self._flows = self._flows, Flows(self._pipelines, patience_s=self._model_patience_s)
        anew = set()
        for tp, assigned in self._held.items():
            at_rest = await assigned.lane.rest(HANDOVER_S)
            if at_rest:
                assigned.lane.begin_take_over(self._pipelines)
                assigned.plans.note(self._pipelines, assigned.lane.task.position)
                at_rest = await assigned.lane.rest(HANDOVER_S)
            # A detector that does not return has the windows in hand, and flows have run for what waits: these are
            # taken up anew, as they were committed.
            if not at_rest or before or self._flows:
                anew.add(tp)
        if anew:
            await self._on_revoked(frozenset(anew))
        self._reporter.forget_windows(_ended(self._announced, self._pipelines))
        await self._announce()
        await before.close(but=self._flows)
        await self._on_assigned(frozenset(anew))
        self._subscription.resume(frozenset(anew))
        log.info("pipelines taken over", pipelines=len(self._pipelines))

    async def _session(self, stop: asyncio.Event) -> None:
        subscription = self._subscription = await self._bus.subscribe(
            [self._inferences], self._group, on_assigned=self._on_assigned, on_revoked=self._on_revoked
        )
        next_housekeeping = 0.0
        while not stop.is_set():
            messages = await subscription.poll(max_messages=MAX_MESSAGES, timeout_s=self._patience_s())
            self._take(messages)
            await self._round()
            self._press_back(subscription)
            if time.monotonic() >= next_housekeeping:
                await self._housekeeping(subscription)
                next_housekeeping = time.monotonic() + HOUSEKEEPING_S
            await self._commit_due()
            if self._wanted is not None:
                await self._change_over()
        await self._finish()

    def _patience_s(self) -> float:
        """How long there is nothing to do but to wait for messages."""
        lanes = [one.lane for one in self._held.values()]
        if any(lane.ready for lane in lanes):
            return 0.0
        if any(lane.flowing for lane in lanes):
            return FLOW_LOOK_S
        since = [lane.uncommitted_since for lane in lanes if lane.at_rest and lane.uncommitted_since is not None]
        if not since:
            return COMMIT_INTERVAL_S
        return max(0.001, min(since) + COMMIT_INTERVAL_S - time.monotonic())

    def _take(self, messages: Sequence[Message]) -> None:
        for message in messages:
            assigned = self._held.get(message.tp)
            if assigned is not None:
                assigned.lane.take(message)

    async def _round(self) -> None:
        """A turn for each partition that has work, one after the other: they share one interpreter anyway."""
        for assigned in self._held.values():
            await assigned.lane.rest(0.0)  # one that was late may have ended
            assigned.lane.look_ahead()
        ready = [assigned.lane for assigned in self._held.values() if assigned.lane.ready]
        budget_s = max(TURN_S, ROUND_S / max(1, len(ready)))
        for lane in ready:
            lane.begin(budget_s)
            await lane.rest(budget_s + LATE_S)

    def _press_back(self, subscription: Subscription) -> None:
        """Pause the partitions that have more than they can judge for now, so that memory is bounded."""
        full = frozenset(tp for tp, one in self._held.items() if one.lane.full and not one.paused)
        free = frozenset(tp for tp, one in self._held.items() if one.paused and not one.lane.full)
        if full:
            subscription.pause(full)
        if free:
            subscription.resume(free)
        for tp in full | free:
            self._held[tp].paused = tp in full
        self._reporter.paused(self._namespace, sum(one.paused for one in self._held.values()))

    async def _housekeeping(self, subscription: Subscription) -> None:
        behind = await subscription.lag()
        lag = {tp: behind[tp] + len(one.lane) for tp, one in self._held.items() if tp in behind}
        self._reporter.lag(self._namespace, sum(lag.values()))
        self._reporter.standing(self._namespace, self._standing(lag))
        now_ns = self._clock_ns()
        for tp, assigned in self._held.items():
            if lag.get(tp) == 0 and assigned.lane.at_rest:
                assigned.lane.begin_expiry(now_ns)
                await assigned.lane.rest(LATE_S)

    def _standing(self, lag: Mapping[Partition, int]) -> list[Standing]:
        at_work: dict[str, float] = {}
        for assigned in self._held.values():
            name = assigned.lane.task.at_work
            at_work[name] = max(at_work.get(name, 0.0), assigned.lane.turn_s)
        names = [one.plan.name for one in self._pipelines]
        return [Standing(name, sum(lag.values()), at_work.get(name, 0.0)) for name in names]

    async def _finish(self) -> None:
        """Commit what has been judged, the turns in hand included."""
        for assigned in self._held.values():
            await assigned.lane.rest(HANDOVER_S)
            await self._commit(assigned)

    async def _commit_due(self) -> None:
        """Commit what has waited long enough, all partitions at once: a transaction mostly waits for the broker."""
        now = time.monotonic()
        due = [
            assigned
            for assigned in self._held.values()
            if assigned.lane.uncommitted_since is not None
            and (now - assigned.lane.uncommitted_since >= COMMIT_INTERVAL_S or assigned.lane.laden)
        ]
        # None is left behind unfinished, so that what follows an error finds every transaction ended.
        outcomes = await asyncio.gather(*(self._commit(assigned) for assigned in due), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _commit(self, assigned: Assigned) -> None:
        lane = assigned.lane
        if lane.uncommitted_since is None or not lane.at_rest:
            return
        task, effects = lane.task, lane.pending
        outputs: dict[Stream, list[Outgoing]] = {
            "verdicts": [self._verdict_message(one) for one in effects.judgements],
            "explain-requests": [to_message(one, source=self._source) for one in effects.explain_requests],
            "dead-letter": [to_message(one, source=self._source) for one in effects.dead_letters],
            "inferences": [
                cloudevents.to_message(one.record, source=self._source, lane=one.lane) for one in effects.outputs
            ],
        }
        state = [
            Outgoing(key=placed(key, self._placement), value=value, partition=task.tp.partition)
            for key, value in (*task.changed_state(), *assigned.plans.changed())
        ]
        async with assigned.transactor.transaction() as transaction:
            for stream, messages in outputs.items():
                if messages:
                    await transaction.publish(topic(self._namespace, stream), messages)
            await transaction.publish(self._checkpoints, state)
            await transaction.commit_offsets(self._group, {task.tp: task.position})
        lane.committed()
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
            plans = Plans()
            self._held[tp] = Assigned(lane=Lane(task, self._flows), transactor=transactor, plans=plans)
            whole = await self._bus.read_table(Partition(self._checkpoints, tp.partition))
            table = of_placement(whole, self._placement)
            committed = await self._subscription.committed(tp) if self._subscription else None
            start = task.restore(table, committed)
            plans.restore(table)
            plans.note(self._pipelines, start)
            if self._subscription is not None:
                await self._subscription.seek(tp, start)
            log.info("partition taken", partition=tp.partition, offset=start)

    async def _on_revoked(self, partitions: frozenset[Partition]) -> None:
        for tp in sorted(partitions):
            assigned = self._held.pop(tp, None)
            if assigned is None:
                continue
            await assigned.lane.stop()
            try:
                if not await assigned.lane.rest(HANDOVER_S):
                    why = f"it has been judging for {assigned.lane.turn_s:.1f} s"
                    log.warning("uncommitted work left to the next holder", partition=tp.partition, why=why)
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
            await assigned.lane.stop()
            await assigned.transactor.close()
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await subscription.close()


def _ended(before: Sequence[LoadedPipeline], after: Sequence[LoadedPipeline]) -> frozenset[str]:
    """Names of those whose plan is in force no more."""
    now = {one.plan.digest for one in after}
    return frozenset(one.plan.name for one in before if one.plan.digest not in now)


async def _side_by_side(*works: Coroutine[object, object, None]) -> None:
    """Until all have ended. The first failure ends the others, and is raised."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        failed = [task for task in tasks if task.done() and task.exception() is not None]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in failed:
        task.result()


async def _sleep_or_stop(seconds: float, stop: asyncio.Event) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
