"""The flows of the inferences that a worker has read: run before their messages are judged.

They run side by side within bounds. A model that cannot be reached is asked again, at growing intervals, for as long as
the worker has patience with it; meanwhile its pipeline waits, after five seconds in a track of its own
(`govern.runtime.holding`), and nothing is lost. When patience is over its inferences become dead letters, one attempt
each, until it answers again.
"""

from __future__ import annotations

import asyncio
import copy
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import dropwhile
from typing import Final

from govern.bus.protocol import Message
from govern.codecs import cloudevents
from govern.errors import BadInput, GovernError, Unavailable
from govern.record import Inference
from govern.runtime import retry
from govern.runtime.flow import Message as Tensors
from govern.runtime.flow.errors import Unreachable
from govern.runtime.flow.message import NOTHING
from govern.runtime.loader import LoadedPipeline
from govern.runtime.outputs import lineage
from govern.runtime.retry import Target
from govern.runtime.watched import Failed, Ran, WatchedFlow
from govern.telemetry.logging import get_logger

#: Flows of one pipeline under way at once: enough to hide what a model takes, few enough not to be its heaviest caller.
#: What a call costs the worker grows with them, for httpx looks through all connections: at 64 twice as much as at 16.
#: Each pipeline has room of its own, so that one whose model hangs does not take it from the others.
AT_ONCE: Final = 16
#: Messages of one partition whose flows are held in memory together, and how many bytes they may have in all.
PORTION_MESSAGES: Final = 128
PORTION_BYTES: Final = 16 * 1024 * 1024
#: How long a model may be away before its inferences become dead letters, seconds: longer than it takes to deploy it.
PATIENCE_S: Final = 300.0
#: Wait before a model is asked again, seconds: doubles from the first to the last.
BACKOFF_S: Final = (0.1, 5.0)
#: How often in all a model is asked that is there and does not answer as it should: a timeout or HTTP 500 may pass.
TRIES: Final = 3

log = get_logger("govern.worker")

#: Pipeline and offset -> what its flow made of the message, for each that `runs_for` names.
Outcomes = Mapping[tuple[str, int], Ran | Failed]
NO_OUTCOMES: Final[Outcomes] = {}


def runs_for(loaded: LoadedPipeline, inference: Inference, wanted: Target | None) -> bool:
    """Whether the pipeline's flow runs for an inference of its source.

    Args:
        wanted: who is to read the message, when it is a retried one.
    """
    if loaded.flow is None or inference.synthetic or not answered(inference):
        return False
    if loaded.plan.name in lineage(inference):
        return False
    if wanted is None:
        return True
    return wanted.names(loaded.plan.name) and (wanted.step in loaded.fed or wanted.step not in loaded.detectors)


def answered(inference: Inference) -> bool:
    return not inference.error and 200 <= inference.status_code < 300


@dataclass(frozen=True, slots=True)
class _Work:
    """A flow that is to run, or the outcome of one that cannot."""

    pipeline: str
    offset: int
    flow: WatchedFlow
    inference: Inference
    inputs: Tensors | Failed


class Flows:
    """
    Args:
        patience_s: `PATIENCE_S`.
        clock: seconds, of a monotonic clock.
    """

    def __init__(
        self,
        pipelines: Sequence[LoadedPipeline],
        *,
        patience_s: float = PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._watching: dict[tuple[str, str], list[LoadedPipeline]] = defaultdict(list)
        self._patience_s = patience_s
        self._clock = clock
        #: Pipeline -> how many of its flows run or wait for a model, over all tracks.
        self._under_way: Counter[str] = Counter()
        #: Pipeline -> since when a model of it has been away.
        self._away: dict[str, float] = {}
        #: By the names of their pipelines.
        self._flows = {one.plan.name: one.flow for one in pipelines if one.flow is not None}
        for one in pipelines:
            if one.flow is not None:
                self._watching[one.plan.source.service, one.plan.source.model].append(one)
        self._room = {name: asyncio.Semaphore(AT_ONCE) for name in self._flows}
        #: Names as they stand in a record's bytes: what holds them in no place is of no pipeline with a flow.
        self._marks = [(service.encode(), model.encode()) for service, model in self._watching]

    def of(self, pipelines: Collection[str]) -> Flows:
        """Those of some of the pipelines only, in the same room."""
        found = copy.copy(self)
        found._flows = {name: flow for name, flow in self._flows.items() if name in pipelines}
        found._watching = defaultdict(list)
        for source, watching in self._watching.items():
            if mine := [one for one in watching if one.plan.name in pipelines]:
                found._watching[source] = mine
        found._marks = [(service.encode(), model.encode()) for service, model in found._watching]
        return found

    def same(self, other: Flows) -> bool:
        return self._flows.keys() == other._flows.keys()

    def slowest(self, pipelines: Collection[str]) -> str | None:
        """The pipeline that has most flows under way, None where none has any."""
        found = {name: count for name, count in self._under_way.items() if count and name in pipelines}
        return max(found, key=lambda name: (found[name], name), default=None)

    def learners(self) -> Iterator[WatchedFlow]:
        """Those that feedback teaches."""
        return (flow for flow in self._flows.values() if flow.routers)

    def __bool__(self) -> bool:
        return bool(self._flows)

    def concern(self, message: Message) -> bool:
        """Whether a message may have a flow to run; cheap, and wrong at times."""
        value = message.value or b""
        return any(service in value and model in value for service, model in self._marks)

    async def run(self, messages: Sequence[Message]) -> Outcomes:
        """Every outcome that `PartitionTask.process` needs for these messages.

        Cancelled, it cancels the flows that run and waits for them.
        """
        work = await asyncio.to_thread(self._work, messages)
        async with asyncio.TaskGroup() as group:
            running = {(one.pipeline, one.offset): group.create_task(self._outcome(one)) for one in work}
        return {key: task.result() for key, task in running.items()}

    async def close(self, *, but: Flows | None = None) -> None:
        """Close the connections to models; not those of flows that are among the others, too."""
        kept = set(but._flows.values()) if but is not None else set()
        for flow in set(self._flows.values()) - kept:
            await flow.close()

    def _work(self, messages: Sequence[Message]) -> list[_Work]:
        found = []
        for message in messages:
            inference = _inference(message) if self.concern(message) else None
            if inference is None:
                continue
            wanted = retry.target(message)
            for loaded in self._watching.get((inference.service, inference.model), ()):
                if loaded.flow is not None and runs_for(loaded, inference, wanted):
                    inputs = _inputs(loaded, loaded.flow, inference)
                    found.append(_Work(loaded.plan.name, message.offset, loaded.flow, inference, inputs))
        return found

    async def _outcome(self, work: _Work) -> Ran | Failed:
        if isinstance(work.inputs, Failed):
            return work.inputs
        if not work.inputs:
            return Ran(NOTHING, NOTHING, {}, {})
        self._under_way[work.pipeline] += 1
        try:
            return await self._asked(work, work.inputs)
        finally:
            self._under_way[work.pipeline] -= 1

    async def _asked(self, work: _Work, inputs: Tensors) -> Ran | Failed:
        began, tries = self._clock(), 0
        while True:
            tries += 1
            try:
                async with self._room[work.pipeline]:
                    ran = await work.flow.run(work.inference, inputs)
            except GovernError as error:
                if not self._ask_again(work.pipeline, error, tries, began):
                    return Failed.of(error)
            else:
                if self._away.pop(work.pipeline, None) is not None:
                    log.info("models answer again", pipeline=work.pipeline)
                return ran
            wait_s = min(BACKOFF_S[1], BACKOFF_S[0] * 2.0 ** (tries - 1))
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret

    def _ask_again(self, pipeline: str, error: GovernError, tries: int, began: float) -> bool:
        cause = error.__cause__
        if not isinstance(cause, Unreachable):
            return isinstance(cause, Unavailable) and tries < TRIES
        now = self._clock()
        if pipeline not in self._away:
            self._away[pipeline] = now
            log.warning("a model is away, asking again", pipeline=pipeline, what=error.what, why=error.why)
        # Its own bound, too: what only this inference brings about ends, though others are answered meanwhile.
        return now - min(self._away[pipeline], began) < self._patience_s


class Ahead:
    """How far the messages of a partition may be judged: the flows of those before have come to rest.

    Attributes:
        outcomes: of the flows, for messages that were not judged yet.
    """

    def __init__(self, flows: Flows) -> None:
        self._flows = flows
        self._until = 0
        self._portion: list[Message] = []
        self._running: asyncio.Task[Outcomes] | None = None
        self._began_s = 0.0
        self.outcomes: dict[tuple[str, int], Ran | Failed] = {}

    @property
    def under_way(self) -> bool:
        return self._running is not None

    @property
    def age_s(self) -> float:
        """How long the flows that run have been running, seconds."""
        return 0.0 if self._running is None else time.monotonic() - self._began_s

    def runs(self, flows: Flows) -> bool:
        return self._flows.same(flows)

    def reached(self, message: Message) -> bool:
        """Whether all outcomes are there that judging it needs."""
        return not self._flows or message.offset < self._until

    def look(self, waiting: Iterable[Message], position: int) -> None:
        """Note which flows are at rest, forget what was judged, and let the next ones run.

        Args:
            waiting: the messages that are to be judged, in their order.
            position: the next offset to judge.
        """
        if not self._flows:
            return
        if self._running is not None and self._running.done():
            self.outcomes.update(self._running.result())
            self._running, self._until = None, self._portion[-1].offset + 1
        if self.outcomes:
            self.outcomes = {key: one for key, one in self.outcomes.items() if key[1] >= position}
        if self._running is None and len(self.outcomes) <= PORTION_MESSAGES:
            self._next(dropwhile(lambda message: message.offset < self._until, waiting))

    async def stop(self) -> None:
        """Let go of the flows that run."""
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            await asyncio.wait([running])

    def _next(self, waiting: Iterable[Message]) -> None:
        self._portion, size = [], 0
        for message in waiting:
            if not self._portion and not self._flows.concern(message):
                self._until = message.offset + 1
                continue
            size += len(message.value or b"")
            if self._portion and (size > PORTION_BYTES or len(self._portion) == PORTION_MESSAGES):
                break
            self._portion.append(message)
        if self._portion:
            self._running, self._began_s = asyncio.create_task(self._flows.run(self._portion)), time.monotonic()


def _inference(message: Message) -> Inference | None:
    try:
        found = cloudevents.from_message(message)
    except BadInput:
        return None  # a dead letter, when its turn comes
    return found if isinstance(found, Inference) else None


def _inputs(loaded: LoadedPipeline, flow: WatchedFlow, inference: Inference) -> Tensors | Failed:
    """What the pipeline is given; nothing where it reads another one, whose record brings nothing that it reads."""
    try:
        given = loaded.given(inference)
        return NOTHING if given is None else flow.inputs(given)
    except BadInput as error:
        return Failed(error, "")
