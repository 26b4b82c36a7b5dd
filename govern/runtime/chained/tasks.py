"""One partition's work for joins: of inferences, their parts; of parts, joined requests. Pure and synchronous.

Both are deterministic functions of what they were restored from and the messages that they are given, so that a crash
between two commits changes nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from msgspec.structs import replace

from govern import record as records
from govern.bus.protocol import Message, Outgoing, Partition
from govern.codecs import cloudevents
from govern.errors import BadInput, GovernError
from govern.ids import derived_id
from govern.pipeline.chain import Chain, Reading
from govern.record import DeadLetter, Inference
from govern.runtime import dead_letters, retry
from govern.runtime.chained import parts
from govern.runtime.chained.given import came_from, joined, read
from govern.runtime.chained.joins import Dropped, Joined, JoinKey, JoinRule, Joins, Outcome
from govern.runtime.chained.parts import FORMAT_VERSION, PartState
from govern.runtime.outputs import given_record, lane_of, lineage
from govern.schema import FeatureSchema


@dataclass(frozen=True, slots=True)
class JoinedPipeline:
    """A chained pipeline that reads several streams.

    Attributes:
        schemas: for each port, of the requests of the pipeline that is read over it.
    """

    chain: Chain
    schemas: tuple[FeatureSchema, ...]

    @property
    def rule(self) -> JoinRule:
        chain = self.chain
        return JoinRule(
            inputs=len(chain.inputs),
            inputs_join=chain.inputs_join,
            triggers=len(chain.triggers),
            triggers_join=chain.triggers_join,
            window_ns=chain.window_ms * 1_000_000,
        )


@dataclass(slots=True)
class Made:
    """What came of some messages, to be published in one transaction with state and offset.

    Attributes:
        parts: messages of the joins topic.
        requests: joined ones, each with its lane.
        dropped, late: pipeline -> how many requests were given up, and how many parts came too late.
    """

    parts: list[Outgoing] = field(default_factory=list)
    requests: list[tuple[Inference, int]] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    late: dict[str, int] = field(default_factory=lambda: defaultdict(int))


class Task(Protocol):
    """The work of one partition.

    Attributes:
        position: the next offset to read.
    """

    tp: Partition
    position: int

    def restore(self, table: Mapping[bytes, bytes], committed: int | None, now_ns: int) -> int: ...

    def process(self, messages: Iterable[Message]) -> Made: ...

    def expire(self, now_ns: int) -> Made: ...

    def changed_state(self) -> list[tuple[bytes, bytes | None]]: ...


class SortTask:
    """Sends what inferences bring to joined pipelines to the partition where the other parts of their request are."""

    def __init__(self, tp: Partition, namespace: str, pipelines: Sequence[JoinedPipeline]) -> None:
        self.tp = tp
        self.position = 0
        self._namespace = namespace
        self._readers: dict[tuple[str, str], list[tuple[JoinedPipeline, int, Reading]]] = defaultdict(list)
        for one in pipelines:
            for port, reading in enumerate(one.chain.readings):
                self._readers[reading.service, reading.model].append((one, port, reading))
        #: Names as they stand in a record's bytes: what does not hold them is read by no joined pipeline.
        self._marks = [(service.encode(), model.encode()) for service, model in self._readers]

    def restore(self, table: Mapping[bytes, bytes], committed: int | None, now_ns: int) -> int:
        self.position = committed or 0
        return self.position

    def process(self, messages: Iterable[Message]) -> Made:
        made = Made()
        for message in messages:
            self.position = message.offset + 1
            value = message.value or b""
            if any(service in value and model in value for service, model in self._marks):
                self._sort(message, made)
        return made

    def expire(self, now_ns: int) -> Made:
        return Made()

    def changed_state(self) -> list[tuple[bytes, bytes | None]]:
        return []

    def _sort(self, message: Message, made: Made) -> None:
        try:
            inference = cloudevents.from_message(message)
        except BadInput:
            return  # whoever judges the inferences says so
        if not isinstance(inference, Inference) or inference.synthetic or not _answered(inference):
            return
        wanted = retry.target(message)
        unreadable: dict[str, GovernError] = {}
        for one, port, reading in self._readers.get((inference.service, inference.model), ()):
            name = one.chain.pipeline
            if name in lineage(inference) or not (wanted is None or wanted.names(name)):
                continue
            try:
                part = _part(one, port, reading, inference, lane_of(message.key))
            except BadInput as error:
                unreadable.setdefault(name, error)
            else:
                made.parts += [] if part is None else [parts.to_message(part)]
        made.dead_letters += [
            dead_letters.of_message(message, error, namespace=self._namespace, pipeline=name)
            for name, error in unreadable.items()
        ]


def _part(one: JoinedPipeline, port: int, reading: Reading, inference: Inference, lane: int) -> PartState | None:
    if not came_from(reading, inference):
        return None
    tensors = read(reading, inference, one.schemas[port])
    if not tensors:
        return None
    is_trigger = port >= len(one.chain.inputs)
    return PartState(
        format_version=FORMAT_VERSION,
        pipeline=one.chain.pipeline,
        request_id=inference.request_id or inference.id,
        port=port,
        time_ns=inference.t_response,
        lane=lane,
        record=b"" if is_trigger else records.encode(given_record(inference, tensors)),
    )


def _answered(inference: Inference) -> bool:
    return not inference.error and 200 <= inference.status_code < 300


class JoinTask:
    """Puts the parts of requests together, and keeps those that wait."""

    def __init__(self, tp: Partition, namespace: str, pipelines: Sequence[JoinedPipeline]) -> None:
        self.tp = tp
        self.position = 0
        self._namespace = namespace
        self._pipelines = {one.chain.pipeline: one for one in pipelines}
        self._joins = Joins({name: one.rule for name, one in self._pipelines.items()})
        #: Request -> the ports of whose parts the topic has a copy.
        self._written: dict[JoinKey, tuple[int, ...]] = {}
        self._gone: list[JoinKey] = []
        self._watched_since_ns = 0

    def restore(self, table: Mapping[bytes, bytes], committed: int | None, now_ns: int) -> int:
        """Take up what waits; return the offset to read from.

        Raises:
            BadInput: the table is of another format version.
        """
        waiting, state = parts.decode_table(table)
        self._written = {key: tuple(one.bodies) for key, one in waiting.items()}
        self._joins.restore(waiting, state.progress if state is not None else {})
        self._gone = [key for key in waiting if key not in self._joins.waiting]
        self._watched_since_ns = now_ns
        self.position = state.offset if state is not None else committed or 0
        return self.position

    def process(self, messages: Iterable[Message]) -> Made:
        made = Made()
        for message in messages:
            self.position = message.offset + 1
            try:
                part = parts.of_message(message)
            except BadInput as error:
                made.dead_letters.append(dead_letters.of_message(message, error, namespace=self._namespace))
                continue
            one = self._pipelines.get(part.key.pipeline)
            if one is None or part.port not in one.rule.ports:
                continue  # of a pipeline that was taken out or changed
            for outcome in self._joins.add(part):
                self._take(outcome, made, message)
        return made

    def expire(self, now_ns: int) -> Made:
        made = Made()
        for outcome in self._joins.expire(now_ns, watched_since_ns=self._watched_since_ns):
            self._take(outcome, made, None)
        return made

    def changed_state(self) -> list[tuple[bytes, bytes | None]]:
        entries: list[tuple[bytes, bytes | None]] = []
        for key in sorted({*self._joins.changed, *self._gone}):
            one = self._joins.waiting.get(key)
            before = self._written.pop(key, None)
            if one is not None:
                entries += [
                    (parts.part_key(key, port), one.bodies[port]) for port in one.bodies if port not in (before or ())
                ]
                entries.append((parts.request_key(key), parts.encode_waiting(one)))
                self._written[key] = tuple(one.bodies)
            elif before is not None:
                entries.append((parts.request_key(key), None))
            kept = one.bodies if one is not None else ()
            entries += [(parts.part_key(key, port), None) for port in before or () if port not in kept]
        self._joins.changed.clear()
        self._gone.clear()
        entries.append((parts.POSITION_KEY, parts.encode_position(self.position, self._joins.progress)))
        return entries

    def _take(self, outcome: Outcome, made: Made, message: Message | None) -> None:
        """
        Args:
            message: that brought the outcome about; None when time did.
        """
        name = outcome.key.pipeline
        match outcome:
            case Dropped():
                (made.late if outcome.late else made.dropped)[name] += 1
            case Joined():
                one = self._pipelines[name]
                states = [parts.decode_part(body) for body in outcome.bodies]
                brought = [(state.port, state.inference) for state in states]
                try:
                    request = joined(one.chain, brought, one.schemas)
                except GovernError as error:
                    made.dead_letters.append(self._letter(outcome, error, message))
                else:
                    made.requests.append((request, states[0].lane))

    def _letter(self, outcome: Joined, error: GovernError, message: Message | None) -> DeadLetter:
        message = message or Message(
            topic=self.tp.topic,
            partition=self.tp.partition,
            offset=self.position,
            timestamp_ms=0,
            key=parts.request_key(outcome.key),
            value=outcome.bodies[0],
        )
        letter = dead_letters.of_message(message, error, namespace=self._namespace, pipeline=outcome.key.pipeline)
        # One message, or a moment without one, may bring about the end of many requests.
        return replace(letter, id=derived_id(letter.id, outcome.key.request_id))
