"""The worker: explain requests in, explanations out. Exactly once.

Each assigned partition has a transactor of its own, whose transactional id names group, topic and partition, so that
whoever is assigned the partition next fences this worker. An explanation and the offset of its request are one
transaction. A partition is paused while one of its requests is being computed, in a thread, and the group goes on
being polled: a slow explanation costs the member neither its place nor the other partitions their turn.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from msgspec.structs import replace
from opentelemetry.trace import NoOpTracer, SpanKind, Tracer

from explainers.answer import Answerer
from govern.bus import Bus, Message, Partition, Subscription, Transactor
from govern.bus.protocol import BusError, Fenced
from govern.bus.topics import topic
from govern.codecs import cloudevents
from govern.errors import BadInput
from govern.record import ExplainRequest, Explanation
from govern.runtime import dead_letters
from govern.runtime.limits import to_message
from govern.telemetry import spans
from govern.telemetry.logging import get_logger
from govern.telemetry.metrics import Metrics, labels
from govern.telemetry.tracing import context_of, exemplar, traceparent_of

GROUP: Final = "govern-explainers"
#: Requests taken in one poll: they are in memory only, and a rebalance drops them.
MAX_MESSAGES: Final = 32
POLL_S: Final = 0.2
LAG_EVERY_S: Final = 1.0
#: Answered requests that are remembered, so that one published twice is answered once.
REMEMBERED: Final = 2048
#: Messages of the explanations topic that are read at a time.
_PAGE: Final = 1000
#: Wait before joining again after a failure of the bus: doubles from the first to the last.
BACKOFF_S: Final = (0.2, 10.0)

_log = get_logger(__name__)


@dataclass(slots=True)
class _Held:
    """A partition that this worker holds, and the work on it, if any."""

    transactor: Transactor
    stopped: threading.Event = field(default_factory=threading.Event)
    job: asyncio.Task[None] | None = None


class ExplainWorker:
    """Answers the explain requests of one namespace.

    Args:
        bus: entered by the caller.
        metrics: of this process.
        tracer: None = no spans.
        group: consumer group; its workers share the partitions and must serve the same explainers.
        clock_ns: Unix time in nanoseconds.
    """

    def __init__(
        self,
        *,
        bus: Bus,
        namespace: str,
        answerer: Answerer,
        metrics: Metrics,
        tracer: Tracer | None = None,
        group: str = GROUP,
        source: str = "/govern/explainer",
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._bus = bus
        self._namespace = namespace
        self._answerer = answerer
        self._metrics = metrics
        self._tracer = tracer or NoOpTracer()
        self._group = f"{group}.{namespace}"
        self._source = source
        self._clock_ns = clock_ns
        self._requests = topic(namespace, "explain-requests")
        self._explanations = topic(namespace, "explanations")
        self._held: dict[Partition, _Held] = {}
        self._answered: OrderedDict[str, None] = OrderedDict()
        self._seen_until: dict[Partition, int] = {}
        self._subscription: Subscription | None = None

    @property
    def partitions(self) -> frozenset[Partition]:
        """The partitions of requests that are this worker's now."""
        return frozenset(self._held)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set. What is not finished then is left, uncommitted, to the next holder.

        Raises:
            BusError: one that cannot pass, such as a missing topic.
        """
        wait_s = BACKOFF_S[0]
        while not stop.is_set():
            began = time.monotonic()
            failure: BusError | None = None
            try:
                await self._session(stop)
            except* BusError as group:
                failure = _first(group)
            if failure is None:
                continue
            if not failure.retriable and not isinstance(failure, Fenced):
                raise failure
            _log.warning("bus failed, joining again", what=failure.what, why=failure.why, wait_s=round(wait_s, 1))
            if time.monotonic() - began > BACKOFF_S[1]:
                wait_s = BACKOFF_S[0]
            await _sleep_or_stop(wait_s * random.uniform(0.5, 1.0), stop)  # noqa: S311 - jitter, no secret
            wait_s = min(BACKOFF_S[1], wait_s * 2)

    async def _session(self, stop: asyncio.Event) -> None:
        try:
            async with asyncio.TaskGroup() as jobs:
                subscription = self._subscription = await self._bus.subscribe(
                    [self._requests], self._group, on_assigned=self._on_assigned, on_revoked=self._on_revoked
                )
                next_look = 0.0
                while not stop.is_set():
                    messages = await subscription.poll(max_messages=MAX_MESSAGES, timeout_s=POLL_S)
                    for tp in dict.fromkeys(message.tp for message in messages):
                        self._begin(jobs, subscription, tp, [message for message in messages if message.tp == tp])
                    if time.monotonic() >= next_look:
                        lag = sum((await subscription.lag()).values())
                        self._metrics.consumer_lag.labels(*labels(namespace=self._namespace, step="explainer")).set(lag)
                        next_look = time.monotonic() + LAG_EVERY_S
                self._let_go()
        finally:
            self._let_go()
            held, self._held = self._held, {}
            for one in held.values():
                await one.transactor.close()
            joined, self._subscription = self._subscription, None
            if joined is not None:
                await joined.close()

    def _begin(
        self, jobs: asyncio.TaskGroup, subscription: Subscription, tp: Partition, messages: list[Message]
    ) -> None:
        held = self._held.get(tp)
        if held is None:
            return
        subscription.pause(frozenset({tp}))
        held.job = jobs.create_task(self._work(subscription, tp, held, messages))

    def _let_go(self) -> None:
        """Let the threads know that nobody waits for them."""
        for one in self._held.values():
            one.stopped.set()

    async def _work(self, subscription: Subscription, tp: Partition, held: _Held, messages: list[Message]) -> None:
        for message in messages:
            await self._one(tp, held, message)
            if held.stopped.is_set():
                return
        subscription.resume(frozenset({tp}))

    async def _one(self, tp: Partition, held: _Held, message: Message) -> None:
        try:
            request = cloudevents.from_message(message)
            if not isinstance(request, ExplainRequest):
                raise BadInput(
                    f"message {tp.topic}[{tp.partition}]@{message.offset} is a {type(request).__name__}",
                    why="this topic carries explain requests",
                    fix="publish it to its own topic",
                )
        except BadInput as error:
            await self._bury(held, message, error)
            return
        if request.id in self._answered:
            async with held.transactor.transaction() as transaction:
                await transaction.commit_offsets(self._group, {tp: message.offset + 1})
            return
        await self._explain(tp, held, message, request)

    async def _explain(self, tp: Partition, held: _Held, message: Message, request: ExplainRequest) -> None:
        began = time.monotonic()
        span = self._tracer.start_span(
            spans.EXPLAIN,
            context=context_of(request.traceparent),
            kind=SpanKind.CONSUMER,
            attributes={
                spans.NAMESPACE: request.namespace,
                spans.MODEL: request.model,
                spans.EXPLAINER: request.explainer,
                spans.EXPLANATION_ID: request.id,
                spans.REQUEST_ID: request.request_id,
            },
        )
        try:
            explanation = await asyncio.to_thread(self._answerer.answer, request, stopped=held.stopped)
            if held.stopped.is_set():
                return  # cut short because the partition is given up: the next holder explains it in full
            explanation = replace(explanation, traceparent=traceparent_of(span) or request.traceparent)
            async with held.transactor.transaction() as transaction:
                outgoing = to_message(explanation, source=self._source)
                await transaction.publish(self._explanations, [outgoing])
                await transaction.commit_offsets(self._group, {tp: message.offset + 1})
        finally:
            span.end()
        self._remember(request.id)
        self._measure(explanation, time.monotonic() - began)

    async def _bury(self, held: _Held, message: Message, error: BadInput) -> None:
        letter = dead_letters.of_message(message, error, namespace=self._namespace, step="explainer")
        async with held.transactor.transaction() as transaction:
            outgoing = to_message(letter, source=self._source)
            await transaction.publish(topic(self._namespace, "dead-letter"), [outgoing])
            await transaction.commit_offsets(self._group, {message.tp: message.offset + 1})
        self._metrics.dead_letters.labels(*labels(namespace=self._namespace, step="explainer")).inc()

    def _measure(self, explanation: Explanation, seconds: float) -> None:
        values = labels(
            namespace=explanation.namespace,
            service=explanation.service,
            model=explanation.model,
            revision=explanation.revision,
            endpoint=explanation.endpoint,
            pipeline=explanation.pipeline,
            step=explanation.step,
        )
        self._metrics.explanations.labels(*values).inc()
        if explanation.status == "failed":
            self._metrics.explanation_failures.labels(*values).inc()
        self._metrics.explanation_duration.labels(*values).observe(seconds, exemplar(explanation.traceparent))

    async def _on_assigned(self, partitions: frozenset[Partition]) -> None:
        for tp in sorted(partitions):
            # First the id: from here on no earlier holder can answer; only then what it answered, and its offset.
            transactor = await self._bus.transactor(f"{self._group}.{tp.topic}.{tp.partition}")
            self._held[tp] = _Held(transactor)
            await self._recall()
            assert self._subscription is not None, "partitions come with a poll"
            await self._subscription.seek(tp, await self._subscription.committed(tp) or 0)
            self._subscription.resume(frozenset({tp}))
            _log.info("partition taken", topic=tp.topic, partition=tp.partition)

    async def _on_revoked(self, partitions: frozenset[Partition]) -> None:
        for tp in sorted(partitions):
            held = self._held.pop(tp, None)
            if held is None:
                continue
            held.stopped.set()
            if held.job is not None:
                await asyncio.wait({held.job})
            await held.transactor.close()
            _log.info("partition given up", topic=tp.topic, partition=tp.partition)

    async def _recall(self) -> None:
        """Learn which requests were answered lately, by whomever."""
        for number in range(await self._bus.partitions(self._explanations)):
            tp = Partition(self._explanations, number)
            end = await self._bus.end_offset(tp)
            position = max(self._seen_until.get(tp, 0), end - REMEMBERED)
            while messages := await self._bus.read(tp, position, max_messages=_PAGE):
                for message in messages:
                    self._remember(dict(message.headers).get("ce_id", b"").decode("utf-8", "replace"))
                position = messages[-1].offset + 1
            self._seen_until[tp] = max(position, end)

    def _remember(self, answered: str) -> None:
        self._answered[answered] = None
        self._answered.move_to_end(answered)
        while len(self._answered) > REMEMBERED:
            self._answered.popitem(last=False)


def _first(group: BaseExceptionGroup[BusError]) -> BusError:
    """The error that most needs telling: one that cannot pass, else the first."""
    flat: list[BusError] = []
    for error in group.exceptions:
        flat.extend([_first(error)] if isinstance(error, BaseExceptionGroup) else [error])
    return next((error for error in flat if not error.retriable and not isinstance(error, Fenced)), flat[0])


async def _sleep_or_stop(seconds: float, stop: asyncio.Event) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
