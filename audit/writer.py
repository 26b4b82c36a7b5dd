"""The writer: everything that is published on a namespace's audited topics, appended to its log exactly once.

Where to go on is read from the database, where it was written in the same transaction as the entries: whatever
dies, and whenever, each message becomes one entry. The group's offset on the bus is committed afterwards, and only
tells monitoring how far behind the log is. Any failure of bus or database that may pass drops what is in hand,
waits, and begins again from the database.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final

from opentelemetry.trace import SpanKind, Tracer

from audit.database import StoreUnavailable
from audit.document import text_at
from audit.entry import Draft, draft, gap
from audit.store import Appended, AuditStore
from govern.bus import Bus, Message, Partition, Subscription
from govern.bus.protocol import BusError, Fenced
from govern.bus.topics import AUDITED, topic
from govern.errors import GovernError
from govern.telemetry import spans
from govern.telemetry.logging import get_logger
from govern.telemetry.metrics import Metrics, labels
from govern.telemetry.tracing import context_of, links_of

#: Messages of one append: large enough that its fixed costs (a commit to disk, a signature) do not matter, small
#: enough that the log's lock is held for a fraction of a second.
BATCH_MESSAGES: Final = 500
#: A message waits at most this long for others to be appended with.
BATCH_S: Final = 0.2
#: Wait before beginning again after a failure: doubles from the first to the last.
BACKOFF_S: Final = (0.2, 10.0)
#: How often the lag is measured.
_LAG_S: Final = 1.0

_log = get_logger("govern.audit")


class BusRewound(GovernError):
    """The bus ends before the place up to which the log has read it: it is not the bus that the log was read from."""

    code = "bus-rewound"


class AuditWriter:
    """Writes one namespace's log.

    Args:
        bus: entered by the caller.
        store: opened by the caller.
        tracer: None when traces go nowhere.
        batch_s: how long a message may wait for others.
    """

    def __init__(
        self,
        *,
        bus: Bus,
        store: AuditStore,
        metrics: Metrics,
        tracer: Tracer | None = None,
        group: str = "govern-audit",
        batch_s: float = BATCH_S,
    ) -> None:
        self._bus = bus
        self._store = store
        self._metrics = metrics
        self._tracer = tracer
        self._group = f"{group}.{store.namespace}"
        self._batch_s = batch_s
        self._topics = [topic(store.namespace, stream) for stream in AUDITED]
        self._labels = labels(namespace=store.namespace)
        self._subscription: Subscription | None = None
        self._progressed = False

    async def run(self, stop: asyncio.Event) -> None:
        """Write until `stop` is set; what was polled by then is appended.

        Raises:
            BusError: one that cannot pass, such as a missing topic.
            BusRewound: the bus was replaced or emptied; going on would leave a hole in the log.
            LogDamaged: the stored tree does not fit its checkpoint.
        """
        wait_s = BACKOFF_S[0]
        while not stop.is_set():
            try:
                await self._session(stop)
            except (BusError, StoreUnavailable) as error:
                if isinstance(error, BusError) and not error.retriable and not isinstance(error, Fenced):
                    raise
                _log.warning("audit writer waits", what=error.what, why=error.why, wait_s=round(wait_s, 1))
            else:
                return
            if self._progressed:
                self._progressed, wait_s = False, BACKOFF_S[0]
            if await _stopped_within(wait_s * random.uniform(0.5, 1.0), stop):  # noqa: S311 - jitter, no secret
                return
            wait_s = min(BACKOFF_S[1], wait_s * 2)

    async def _session(self, stop: asyncio.Event) -> None:
        """Read and append until `stop`, or until bus or database fail."""
        subscription = self._subscription = await self._bus.subscribe(
            self._topics, self._group, on_assigned=self._on_assigned
        )
        measured = 0.0
        try:
            while not stop.is_set():
                batch = await self._collect(subscription)
                if batch:
                    await self._append(batch)
                    await self._commit(subscription, batch)
                if time.monotonic() - measured >= _LAG_S:
                    lag = await subscription.lag()
                    self._metrics.consumer_lag.labels(*labels(namespace=self._store.namespace, step="audit")).set(
                        sum(lag.values())
                    )
                    measured = time.monotonic()
        finally:
            self._subscription = None
            await subscription.close()

    async def _collect(self, subscription: Subscription) -> list[Message]:
        """Messages until there are enough, or the first has waited long enough."""
        batch = await subscription.poll(max_messages=BATCH_MESSAGES, timeout_s=self._batch_s)
        deadline = time.monotonic() + self._batch_s
        while batch and len(batch) < BATCH_MESSAGES and (left := deadline - time.monotonic()) > 0:
            batch += await subscription.poll(max_messages=BATCH_MESSAGES - len(batch), timeout_s=left)
        return batch

    async def _append(self, batch: Sequence[Message]) -> None:
        started, began_ns = time.perf_counter(), time.time_ns()
        appended = await asyncio.to_thread(self._record, batch)
        self._progressed = True
        metrics = self._metrics
        metrics.audit_append_duration.labels(*self._labels).observe(time.perf_counter() - started)
        metrics.audit_tree_size.labels(*self._labels).set(appended.size)
        metrics.audit_checkpoint_time.labels(*self._labels).set(time.time())
        for names, count in Counter(self._names(one) for one in appended.recorded).items():
            metrics.audit_entries.labels(*names).inc(count)
        if self._tracer is not None and appended.recorded:
            self._trace(self._tracer, batch, appended, began_ns)

    def _record(self, batch: Sequence[Message]) -> Appended:
        return self._store.append([draft(message) for message in batch])

    def _names(self, one: Draft) -> tuple[str, ...]:
        fields = ("service", "model", "revision", "endpoint", "pipeline", "step")
        return labels(namespace=self._store.namespace, **{name: text_at(one.record, name) for name in fields})

    def _trace(self, tracer: Tracer, batch: Sequence[Message], appended: Appended, began_ns: int) -> None:
        """One span for the append, child of the newest record's span and linked to those of the others."""
        traceparents = [
            value.decode("ascii", "replace") for one in batch for name, value in one.headers if name == "traceparent"
        ]
        tracer.start_span(
            spans.AUDIT,
            context=context_of(traceparents[-1]) if traceparents else None,
            kind=SpanKind.CONSUMER,
            links=links_of(traceparents),
            start_time=began_ns,
            attributes={
                spans.NAMESPACE: self._store.namespace,
                spans.AUDIT_ENTRIES: len(appended.recorded),
                spans.AUDIT_TREE_SIZE: appended.size,
                spans.MESSAGING_BATCH: len(batch),
            },
        ).end()

    async def _commit(self, subscription: Subscription, batch: Sequence[Message]) -> None:
        offsets: dict[Partition, int] = {}
        for message in batch:
            offsets[message.tp] = message.offset + 1
        await subscription.commit(offsets)

    async def _on_assigned(self, partitions: frozenset[Partition]) -> None:
        """Go on where the database says; a partition that it does not know is read from its beginning."""
        if self._subscription is None:
            raise AssertionError("partitions are assigned by poll, after subscribe")
        positions = await asyncio.to_thread(self._store.positions)
        for tp in sorted(partitions):
            position = positions.get(tp, 0)
            end = await self._bus.end_offset(tp)
            if position > end:
                raise BusRewound(
                    f"{tp.topic}, partition {tp.partition}",
                    why=f"the log has it up to offset {position}, the bus ends at {end}: it was replaced or emptied",
                    fix="bring the old bus back, or start a new log: another --namespace, or another --db and --keys",
                )
            start = await self._bus.start_offset(tp)
            if tp in positions and position < start:
                position = start
                await self._append_gap(tp, first=positions[tp], last=start - 1)
            await self._subscription.seek(tp, position)

    async def _append_gap(self, tp: Partition, *, first: int, last: int) -> None:
        """Put on record what can never be recorded: the topic's retention was shorter than the writer's absence."""
        one = gap(tp.topic, tp.partition, first=first, last=last, t_ns=time.time_ns())
        await asyncio.to_thread(self._store.append, [one])
        self._metrics.audit_gaps.labels(*self._labels).inc()
        _log.error(
            "messages were deleted before they were recorded",
            topic=tp.topic,
            partition=tp.partition,
            first_offset=first,
            last_offset=last,
        )


async def _stopped_within(seconds: float, stop: asyncio.Event) -> bool:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return False
    return True
