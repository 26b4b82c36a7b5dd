"""The worker: consume inferences, run the pipelines, publish what they find. Exactly once.

Each assigned partition has a `Holding` and a transactor of its own, whose transactional id names group, topic and
partition: whoever is assigned the partition next fences this worker before it reads the checkpoint. The partitions are
judged in turns, so that none waits for another's work to be done, and one that has more than it can do is paused.
Any failure of the bus drops all tasks and joins again; what was not committed is computed again from the checkpoint.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Final

from msgspec.structs import replace

from govern import record as records
from govern.bus import Bus, Outgoing, Partition, Subscription
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
from govern.runtime.holding import Holding, standing
from govern.runtime.limits import to_message
from govern.runtime.loader import LoadedPipeline
from govern.runtime.report import Reporter
from govern.runtime.rota import LATE_S, Rota
from govern.runtime.task import Effects, Judgement
from govern.runtime.track import Track
from govern.runtime.watched import WatchedFlow
from govern.telemetry.logging import get_logger

#: A verdict waits at most this long for its transaction. Shorter costs a round trip of transactions per window;
#: longer adds to the age of every verdict.
COMMIT_INTERVAL_S: Final = 0.1
#: Messages taken in one poll: bounds the memory of one round and the work that a crash repeats.
MAX_MESSAGES: Final = 2000
#: Whoever loses a partition waits so long for the turn in hand; past it, the next holder does that work again.
HANDOVER_S: Final = 5.0
#: How long a poll waits for messages while flows run: it is not woken when they are at rest.
FLOW_LOOK_S: Final = 0.01
#: How often quiet partitions are looked over for windows whose time is over, and lag is measured.
HOUSEKEEPING_S: Final = 0.5
#: Wait before joining again after a failure of the bus: doubles from the first to the last.
BACKOFF_S: Final = (0.2, 10.0)

log = get_logger("govern.worker")


class Worker:
    """Runs pipelines over the inferences of one namespace.

    Args:
        bus: entered by the caller.
        pipelines: loaded and checked.
        reporter: emits metrics and spans for what was committed.
        group: consumer group; workers of one group share the partitions and must run the same pipelines.
        clock_ns: Unix time in nanoseconds, against which windows of quiet streams expire.
        placement: it runs the pipelines that are placed there (`govern.pipeline.groups.PLACEMENT`), as a group of its
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
        reporter.stated(namespace, self._pipelines)
        self._group = f"{group}-{placement}.{namespace}" if placement else f"{group}.{namespace}"
        self._source = source
        self._clock_ns = clock_ns
        self._model_patience_s = patience_s
        self._flows = Flows(self._pipelines, patience_s=patience_s)
        self._inferences = topic(namespace, "inferences")
        self._checkpoints = topic(namespace, "checkpoints")
        self._held: dict[Partition, Holding] = {}
        self._subscription: Subscription | None = None
        self._progressed = False
        self._rota = Rota(bus)
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
        for tp, holding in self._held.items():
            # A detector that does not return has the windows in hand, flows have run for what waits, and a track of its
            # own is for a pipeline as it was: these are taken up anew, as they were committed.
            if not await holding.take_over(self._pipelines, HANDOVER_S) or before or self._flows:
                anew.add(tp)
        if anew:
            await self._on_revoked(frozenset(anew))
        self._reporter.forget_windows(_ended(self._announced, self._pipelines))
        self._reporter.stated(self._namespace, self._pipelines)
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
            for message in messages:
                if (holding := self._held.get(message.tp)) is not None:
                    holding.take(message)
            await self._rota.round(self._held.values())
            self._rota.own_turn(self._held.values())
            await self._rearrange(subscription)
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
        if any(holding.shared.ready for holding in self._held.values()):
            return 0.0
        tracks = [track for holding in self._held.values() for track in holding.tracks]
        if any(track.flowing for track in tracks):
            return FLOW_LOOK_S
        since = [track.uncommitted_since for track in tracks if track.at_rest and track.uncommitted_since is not None]
        if not since:
            return COMMIT_INTERVAL_S
        return max(0.001, min(since) + COMMIT_INTERVAL_S - time.monotonic())

    async def _rearrange(self, subscription: Subscription) -> None:
        """Let pipelines that the others of their partition should not wait for go on alone, and take back who may."""
        now_s = time.monotonic()
        for holding in list(self._held.values()):
            shared = holding.shared
            for name in list(holding.own):
                if holding.may_return(name, now_s):
                    await holding.reunite(name)
                    await self._commit(holding)
                    log.info("pipeline shares a track again", pipeline=name, partition=holding.tp.partition)
            heavy = holding.heavy()
            if heavy is None:
                continue
            if not shared.at_rest:
                # What it has in hand cannot be interrupted: as after a crash, others go on from the last commit.
                await self._restart(holding, subscription)
            await holding.part(heavy)
            await self._commit(holding)
            log.warning("pipeline has a track of its own", pipeline=heavy, partition=holding.tp.partition)

    async def _restart(self, holding: Holding, subscription: Subscription) -> None:
        # A new holder of the id sees all that the old one has committed.
        before = holding.transactor
        holding.transactor = await self._bus.transactor(self._transactional_id(holding.tp))
        await before.close()
        table = await self._table(holding.tp)
        start = await holding.restart(table, await subscription.committed(holding.tp))
        await subscription.seek(holding.tp, start)

    def _press_back(self, subscription: Subscription) -> None:
        """Pause the partitions that have more than they can judge for now, so that memory is bounded."""
        full = frozenset(tp for tp, one in self._held.items() if one.shared.full and not one.paused)
        free = frozenset(tp for tp, one in self._held.items() if one.paused and not one.shared.full)
        if full:
            subscription.pause(full)
        if free:
            subscription.resume(free)
        for tp in full | free:
            self._held[tp].paused = tp in full
        self._reporter.paused(self._namespace, sum(one.paused for one in self._held.values()))

    async def _housekeeping(self, subscription: Subscription) -> None:
        behind = await subscription.lag()
        held = {tp: holding for tp, holding in self._held.items() if tp in behind}
        self._reporter.lag(self._namespace, sum(behind[tp] + len(holding.shared) for tp, holding in held.items()))
        names = [one.plan.name for one in self._pipelines]
        self._reporter.standing(self._namespace, standing(names, self._held, behind))
        now_ns = self._clock_ns()
        for tp, holding in held.items():
            for track in holding.tracks:
                if behind[tp] == 0 and track.at_rest and not len(track) and track.next >= holding.shared.next:
                    track.begin_expiry(now_ns)
                    await track.rest(LATE_S)

    async def _finish(self) -> None:
        """Commit what has been judged, the turns in hand included."""
        for holding in self._held.values():
            await holding.rest(HANDOVER_S)
            await self._commit(holding)

    async def _commit_due(self) -> None:
        """Commit what has waited long enough, all partitions at once: a transaction mostly waits for the broker."""
        now_s = time.monotonic()
        due = [holding for holding in self._held.values() if any(_due(track, now_s) for track in holding.tracks)]
        # None is left behind unfinished, so that what follows an error finds every transaction ended.
        outcomes = await asyncio.gather(*(self._commit(holding) for holding in due), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _commit(self, holding: Holding) -> None:
        """Commit what every track at rest has judged."""
        tracks = [track for track in holding.tracks if track.at_rest and track.uncommitted_since is not None]
        if not tracks:
            return
        effects = Effects()
        for track in tracks:
            effects.extend(track.pending)
        outputs: dict[Stream, list[Outgoing]] = {
            "verdicts": [self._verdict_message(one) for one in effects.judgements],
            "explain-requests": [to_message(one, source=self._source) for one in effects.explain_requests],
            "dead-letter": [to_message(one, source=self._source) for one in effects.dead_letters],
            "inferences": [
                cloudevents.to_message(one.record, source=self._source, lane=one.lane) for one in effects.outputs
            ],
        }
        entries = [*(entry for track in tracks for entry in holding.state(track)), *holding.plans.changed()]
        state = [
            Outgoing(key=placed(key, self._placement), value=value, partition=holding.tp.partition)
            for key, value in entries
        ]
        async with holding.transactor.transaction() as transaction:
            for stream, messages in outputs.items():
                if messages:
                    await transaction.publish(topic(self._namespace, stream), messages)
            await transaction.publish(self._checkpoints, state)
            if holding.shared in tracks:
                await transaction.commit_offsets(self._group, {holding.tp: holding.shared.task.position})
        for track in tracks:
            track.committed()
        self._progressed = True
        self._reporter.committed(self._namespace, effects, self._clock_ns())

    def _verdict_message(self, judgement: Judgement) -> Outgoing:
        traceparent = self._reporter.judged(judgement.verdict, judgement.traceparents)
        return to_message(replace(judgement.verdict, traceparent=traceparent), source=self._source)

    async def _on_assigned(self, partitions: frozenset[Partition]) -> None:
        assert self._subscription is not None or not partitions
        for tp in sorted(partitions):
            transactor = await self._bus.transactor(self._transactional_id(tp))
            holding = self._held[tp] = Holding(tp, self._namespace, self._pipelines, self._flows, transactor)
            table = await self._table(tp)
            committed = await self._subscription.committed(tp) if self._subscription else None
            start = holding.restore(table, committed)
            if self._subscription is not None:
                await self._subscription.seek(tp, start)
            log.info("partition taken", partition=tp.partition, offset=start)

    async def _on_revoked(self, partitions: frozenset[Partition]) -> None:
        for tp in sorted(partitions):
            holding = self._held.pop(tp, None)
            if holding is None:
                continue
            try:
                if not await holding.rest(HANDOVER_S):
                    log.warning("work in hand left to the next holder", partition=tp.partition)
                await self._commit(holding)
            except BusError as error:
                log.warning("uncommitted work left to the next holder", partition=tp.partition, why=error.why)
            finally:
                await holding.close()
            log.info("partition given up", partition=tp.partition)
        self._reporter.forget_windows()

    async def _table(self, tp: Partition) -> dict[bytes, bytes]:
        """The partition's checkpoint, as far as it is of workers of this placement."""
        return of_placement(await self._bus.read_table(Partition(self._checkpoints, tp.partition)), self._placement)

    def _transactional_id(self, tp: Partition) -> str:
        return f"{self._group}.{tp.topic}.{tp.partition}"

    async def _abandon(self) -> None:
        """Drop every task without committing, and leave the group."""
        held, self._held = self._held, {}
        self._reporter.forget_windows()
        for holding in held.values():
            await holding.close()
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


def _due(track: Track, now_s: float) -> bool:
    since = track.uncommitted_since
    return track.at_rest and since is not None and (now_s - since >= COMMIT_INTERVAL_S or track.laden)


async def _sleep_or_stop(seconds: float, stop: asyncio.Event) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
