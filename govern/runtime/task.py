"""One partition's work: messages in, verdicts and requests out. Pure and synchronous; the worker does the I/O.

A task is a deterministic function of its pipelines, the checkpoint it was restored from, the messages it is given and
what flows made of them, so that a crash between two commits changes nothing: the next holder of the partition computes
the same, unless a model that a flow calls answers it otherwise.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, NamedTuple, TypeVar

from govern import record as records
from govern.bus.protocol import Message, Partition
from govern.codecs import cloudevents
from govern.codecs.together import decode_together
from govern.errors import BadInput
from govern.frame import Frame
from govern.ids import derived_id
from govern.pipeline import PlannedStep
from govern.record import DeadLetter, ExplainRequest, Inference, Verdict
from govern.runtime import checkpoint, dead_letters, retry
from govern.runtime.checkpoint import MEMORY, WindowKey
from govern.runtime.chunks import Buffer, Chunks
from govern.runtime.flows import NO_OUTCOMES, Outcomes, answered, runs_for
from govern.runtime.judge import Stream, judge, missing_outputs, window_record
from govern.runtime.loader import LoadedPipeline
from govern.runtime.memory import Memories
from govern.runtime.outputs import lane_of, lineage, output_record
from govern.runtime.passage import Passage
from govern.runtime.plans import fingerprint, is_plan
from govern.runtime.rolling import RollingBuffer
from govern.runtime.watched import Failed, Ran, rows_of
from govern.runtime.windows import ClosedWindow, Rows, WindowBuffer

#: Capture agents whose drop counts a partition remembers. An agent is one run of a capturing process; the ones
#: heard of least recently are forgotten first, and a forgotten agent's next drops count from its new total.
MAX_AGENTS: Final = 1024


#: Messages that are read before the first of them is judged: what they have in common is paid once.
READ_AHEAD: Final = 128


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict and the traces of the instances that it is about, newest last.

    Attributes:
        new: how many of them no verdict before was about: all, but of a window that slides.
    """

    verdict: Verdict
    traceparents: tuple[str, ...]
    new: int


class Output(NamedTuple):
    """What a pipeline gave for an inference, and the lane of that one, on which it stays."""

    record: Inference
    lane: int


#: Pipeline and offset -> the rows of the message, or why there are none.
Frames = dict[tuple[str, int], Frame | BadInput]


@dataclass(slots=True)
class Effects:
    """What processing gave rise to, in order; published in one transaction with the checkpoint and offsets.

    Attributes:
        spent_s: pipeline -> seconds that reading and judging for it took.
        lost: pipeline -> messages that the topic had deleted before it came to them.
    """

    judgements: list[Judgement] = field(default_factory=list)
    explain_requests: list[ExplainRequest] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    observed: list[tuple[str, Inference]] = field(default_factory=list)
    spent_s: dict[str, float] = field(default_factory=dict)
    outputs: list[Output] = field(default_factory=list)
    lost: dict[str, int] = field(default_factory=dict)

    def extend(self, other: Effects) -> None:
        self.judgements.extend(other.judgements)
        self.explain_requests.extend(other.explain_requests)
        self.dead_letters.extend(other.dead_letters)
        self.observed.extend(other.observed)
        for pipeline, spent_s in other.spent_s.items():
            self.spend(pipeline, spent_s)
        self.outputs.extend(other.outputs)
        for pipeline, lost in other.lost.items():
            self.lost[pipeline] = self.lost.get(pipeline, 0) + lost

    def spend(self, pipeline: str, seconds: float) -> None:
        self.spent_s[pipeline] = self.spent_s.get(pipeline, 0.0) + seconds


class PartitionTask:
    """The open windows of pipelines on one partition of the inferences topic, and what their detectors remember.

    Args:
        alone: another task reads the same messages and answers for those that nobody can read.
    """

    def __init__(
        self, tp: Partition, namespace: str, pipelines: Sequence[LoadedPipeline], *, alone: bool = False
    ) -> None:
        self.tp = tp
        self.position = 0
        self._namespace = namespace
        self._alone = alone
        self._pipelines = {one.plan.name: one for one in pipelines}
        self._watching = _by_source(pipelines)
        self._buffers: dict[WindowKey, Buffer] = {}
        #: Of windows that have a buffer.
        self._memories = Memories()
        self._chunks = Chunks()
        self._dropped: dict[str, int] = {}
        self._changed: set[WindowKey] = set()
        #: Keys of the checkpoint that belong to no step of these pipelines: deleted with the next commit.
        self._gone: list[bytes] = []
        #: Pipeline and step -> `fingerprint`, once it is known.
        self._fingerprints: dict[tuple[str, str], str] = {}
        #: The pipeline whose code runs right now, for whoever waits for it.
        self.at_work = ""

    @property
    def pipelines(self) -> Collection[str]:
        return self._pipelines.keys()

    def part(self, pipeline: str) -> PartitionTask:
        """A task of its own for one of the pipelines, which goes on where this one, which goes on without it, is."""
        task = PartitionTask(self.tp, self._namespace, [self._pipelines.pop(pipeline)], alone=True)
        self._watching = _by_source(self._pipelines.values())
        task.position = self.position
        task._dropped = dict(self._dropped)
        for key in [key for key in self._buffers if key.pipeline == pipeline]:
            _move(key, self, task)
        return task

    def join(self, task: PartitionTask) -> None:
        """Take the pipelines of a parted task back. It must have come to the same place."""
        assert task.position == self.position, "what either has read the other has, too"
        self._pipelines.update(task._pipelines)
        self._watching = _by_source(self._pipelines.values())
        for key in list(task._buffers):
            _move(key, task, self)
        self._gone.extend(task._gone)

    def skip(self, position: int, lost: int) -> Effects:
        """Go on at `position`: the topic has deleted `lost` messages before it.

        Each counts as an instance lost in every window: what they held nobody can know any more.
        """
        self._note_lost(self._buffers, lost)
        self.position = position
        return Effects(lost=dict.fromkeys(self._pipelines, lost))

    def restore(self, table: Mapping[bytes, bytes], committed: int | None) -> int:
        """Take up the checkpoint; return the offset to read from.

        Args:
            table: newest value of each key in the partition's checkpoints.
            committed: the group's committed offset, used when there is no checkpoint yet.

        Raises:
            BadInput: the checkpoint is of another format version.
        """
        self.position = committed or 0
        lost: Counter[WindowKey] = Counter()
        chunks: dict[WindowKey, dict[int, dict[int, bytes]]] = {}
        for raw_key, value in table.items():
            if raw_key == checkpoint.POSITION_KEY:
                state = checkpoint.decode_partition(value)
                self.position = state.offset
                self._dropped = dict(state.dropped)
                lost.update({checkpoint.parse_window_text(text): count for text, count in state.lost.items()})
            elif not is_plan(raw_key):
                key, number, piece = checkpoint.parse_chunk_key(raw_key)
                chunks.setdefault(key, {}).setdefault(number, {})[piece] = value
        for key in chunks.keys() | lost.keys():
            loaded = self._pipelines.get(key.pipeline)
            found = chunks.get(key, {})
            if loaded is None or key.step not in loaded.detectors:
                # Left there, the window would go on when the pipeline comes back, over a gap that it does not know of.
                self._gone.extend(key.chunk(number, piece) for number, pieces in found.items() for piece in pieces)
                continue
            collected_for = self._fingerprint(key)
            memory = {number: found.pop(number) for number in tuple(found) if number <= MEMORY}
            if memory and not self._memories.restore(key, memory, collected_for=collected_for):
                self._gone.extend(key.chunk(number, piece) for number, pieces in memory.items() for piece in pieces)
            buffer = self._buffer(key)
            schema = loaded.schema_of(key.step)
            self._chunks.restore(key, found, buffer, schema, lost=lost[key], collected_for=collected_for)
        return self.position

    def process(
        self,
        messages: Iterable[Message],
        outcomes: Outcomes = NO_OUTCOMES,
        *,
        enough: Callable[[Effects], bool] | None = None,
    ) -> Effects:
        """Judge messages of this partition in offset order. What cannot be read becomes a dead letter.

        Args:
            outcomes: of the flows that run for them (`govern.runtime.flows`).
            enough: asked after each message whether to leave the rest for later; `position` says how far it came.
        """
        effects = Effects()
        for batch in _batched(messages, READ_AHEAD):
            read = [_read(message) for message in batch]
            frames = self._frames(batch, read, effects)
            for message, found in zip(batch, read, strict=True):
                self._one(message, found, frames, outcomes, effects)
                self.position = message.offset + 1
                if enough is not None and enough(effects):
                    return effects
        return effects

    def expire(self, now_ns: int) -> Effects:
        """Close the windows whose time is over; for a stream that has gone quiet."""
        effects = Effects()
        for key in sorted(
            self._buffers
        ):  # in one order, whoever holds the partition and however it came to its windows
            if closed := self._buffers[key].expire(now_ns):
                with self._on(key.pipeline, effects):
                    self._judge(key, closed, effects)
        return effects

    def take_over(self, pipelines: Sequence[LoadedPipeline]) -> Effects:
        """Go on with these from here on.

        Windows of steps that stay as they are go on with the rows that they hold. What a step had collected that judges
        otherwise from now on is judged by what it was; or counts as lost, when it is too little to be judged; and what
        its detector remembered is forgotten. Windows of pipelines and steps that are no more are given up.
        """
        effects = Effects()
        after = {one.plan.name: one for one in pipelines}
        lost: dict[WindowKey, int] = {}
        for key in sorted(self._buffers):
            before, now = self._pipelines[key.pipeline], after.get(key.pipeline)
            if now is before:
                continue
            if now is None or key.step not in now.detectors:
                self._give_up(key)
            elif fingerprint(now, key.step) != self._fingerprint(key):
                with self._on(key.pipeline, effects):
                    lost[key] = self._close(key, effects)
        self._pipelines = after
        self._fingerprints.clear()
        self._watching = _by_source(pipelines)
        for key, instances in lost.items():
            self._note_lost([key], instances)
        return effects

    def _fingerprint(self, key: WindowKey) -> str:
        step = key.pipeline, key.step
        if step not in self._fingerprints:
            self._fingerprints[step] = fingerprint(self._pipelines[key.pipeline], key.step)
        return self._fingerprints[step]

    def _close(self, key: WindowKey, effects: Effects) -> int:
        """Judge and drop an open window; return how many instances are lost by that."""
        buffer = self._buffers[key]
        self._judge(key, buffer.drain("change"), effects)
        del self._buffers[key]
        self._gone.extend(self._memories.give_up(key))
        self._chunks.replace(key)
        return buffer.unjudged + buffer.lost

    def _give_up(self, key: WindowKey) -> None:
        del self._buffers[key]
        self._gone.extend(self._memories.give_up(key))
        self._changed.discard(key)
        self._gone.extend(self._chunks.give_up(key))

    def open_window(self, key: WindowKey) -> Rows | None:
        """The instances that wait in a window to be judged, None when there are none."""
        buffer = self._buffers.get(key)
        return None if buffer is None else buffer.contents()

    def changed_state(self) -> list[tuple[bytes, bytes | None]]:
        """Checkpoint entries that differ from what was last taken: key and value, None = there is none now."""
        entries: list[tuple[bytes, bytes | None]] = [(key, None) for key in sorted(self._gone)]
        self._gone.clear()
        for key in sorted(self._changed):
            collected_for = self._fingerprint(key)
            entries.extend(self._chunks.take_changed(key, self._buffers[key], collected_for=collected_for))
            entries.extend(self._memories.take_changed(key, collected_for=collected_for))
        self._changed.clear()
        lost = {key.text: buffer.lost for key, buffer in self._buffers.items() if buffer.lost}
        entries.append((checkpoint.POSITION_KEY, checkpoint.encode_partition(self.position, lost, self._dropped)))
        return entries

    @contextmanager
    def _on(self, pipeline: str, effects: Effects) -> Iterator[None]:
        """Within the block the pipeline is at work, and the time is its own."""
        began_s = time.perf_counter()
        self.at_work = pipeline
        try:
            yield
        finally:
            self.at_work = ""
            effects.spend(pipeline, time.perf_counter() - began_s)

    def _buffer(self, key: WindowKey) -> Buffer:
        buffer = self._buffers.get(key)
        if buffer is None:
            loaded = self._pipelines[key.pipeline]
            step = loaded.plan.step(key.step)
            buffer = self._buffers[key] = (RollingBuffer if step.rolling else WindowBuffer)(
                size=step.batch_size,
                span_ns=step.window_ms * 1_000_000,
                minimum=loaded.detectors[key.step].min_instances,
            )
        return buffer

    def _frames(self, messages: Sequence[Message], read: Sequence[Inference | BadInput], effects: Effects) -> Frames:
        """What each pipeline can judge of the messages, decoded together, which costs a fraction of one by one."""
        by_source: dict[tuple[str, str], list[tuple[int, Inference]]] = {}
        for message, found in zip(messages, read, strict=True):
            if isinstance(found, Inference) and answered(found) and not found.synthetic:
                by_source.setdefault((found.service, found.model), []).append((message.offset, found))
        frames: Frames = {}
        for source, mine in by_source.items():
            for loaded in self._watching.get(source, ()):
                if not loaded.takes_rows:
                    continue
                name = loaded.plan.name
                with self._on(name, effects):
                    given, unreadable = _given(loaded, mine)
                    decoded = decode_together([inference for _, inference in given], loaded.schema)
                frames.update(((name, offset), frame) for (offset, _), frame in zip(given, decoded, strict=True))
                frames.update(((name, offset), error) for offset, error in unreadable)
        return frames

    def _one(
        self,
        message: Message,
        inference: Inference | BadInput,
        frames: Frames,
        outcomes: Outcomes,
        effects: Effects,
    ) -> None:
        if isinstance(inference, BadInput):
            if not self._alone:
                effects.dead_letters.append(dead_letters.of_message(message, inference, namespace=self._namespace))
            return
        if inference.synthetic:
            return
        wanted = retry.target(message)
        # What a retried inference counts was counted when it came first.
        lost = self._newly_dropped(inference) if wanted is None else 0
        through = lineage(inference)
        for loaded in self._watching.get((inference.service, inference.model), ()):
            name = loaded.plan.name
            if name in through or not (wanted is None or wanted.names(name)):
                continue
            if wanted is None:
                effects.observed.append((name, inference))
            flows = loaded.flow is not None and runs_for(loaded, inference, wanted)
            outcome = outcomes[name, message.offset] if flows else None
            passage = Passage(loaded, inference, message, wanted, lost)
            with self._on(name, effects):
                self._feed(passage, frames.get((name, message.offset)), outcome, effects)

    def _newly_dropped(self, inference: Inference) -> int:
        agent, total = inference.capture.agent, inference.capture.dropped_before
        before = self._dropped.pop(agent, None)
        if before is None and len(self._dropped) >= MAX_AGENTS:
            del self._dropped[next(iter(self._dropped))]
        self._dropped[agent] = total
        return max(0, total - (before or 0))

    def _feed(
        self, passage: Passage, frame: Frame | BadInput | None, outcome: Ran | Failed | None, effects: Effects
    ) -> None:
        loaded = passage.loaded
        keys = passage.keys()
        if passage.lost:
            self._note_lost(keys.values(), passage.lost)
        if isinstance(frame, BadInput):
            self._note_lost(keys.values(), 1)
            effects.dead_letters.append(passage.letter(frame))
            return
        if frame is not None:
            rows = passage.rows(frame)
            for step, key in keys.items():
                if step not in loaded.fed:
                    self._add(passage, key, rows, effects)
        if outcome is not None:
            own = [key for step, key in keys.items() if step in loaded.fed]
            self._flowed(passage, own, outcome, effects)

    def _flowed(self, passage: Passage, keys: Sequence[WindowKey], outcome: Ran | Failed, effects: Effects) -> None:
        """Take what a flow made of an inference: rows for windows, and what the pipeline gives."""
        made: list[Inference] = []
        if isinstance(outcome, Ran) and passage.takes_outputs:
            try:
                made = _made(passage, outcome)
            except BadInput as error:
                outcome = Failed.of(error)
        if isinstance(outcome, Failed):
            self._note_lost(keys, 1)
            effects.dead_letters.append(passage.letter(outcome.error, outcome.step or passage.unread))
            return
        for key in keys:
            received = outcome.received.get(key.step)
            if received is None:
                continue  # of another branch
            try:
                frame = rows_of(received, passage.loaded.detectors[key.step], passage.inference.id)
            except BadInput as error:
                self._note_lost([key], 1)
                effects.dead_letters.append(passage.letter(error, key.step))
            else:
                self._add(passage, key, passage.rows(frame), effects)
        effects.outputs += [Output(one, lane_of(passage.message.key)) for one in made]

    def _add(self, passage: Passage, key: WindowKey, rows: Rows, effects: Effects) -> None:
        missing = missing_outputs(passage.loaded.detectors[key.step], rows.frame)
        if missing is not None:
            self._note_lost([key], len(rows))
            effects.dead_letters.append(passage.letter(missing, key.step))
            return
        closed = self._buffer(key).add(rows)
        self._changed.add(key)
        if closed:
            self._judge(key, closed, effects)

    def _note_lost(self, keys: Iterable[WindowKey], instances: int) -> None:
        for key in keys:
            self._buffer(key).add_lost(instances)
            self._changed.add(key)

    def _judge(self, key: WindowKey, windows: Sequence[ClosedWindow], effects: Effects) -> None:
        loaded = self._pipelines[key.pipeline]
        source = loaded.plan.source
        stream = Stream(
            namespace=self._namespace,
            service=source.service,
            model=source.model,
            revision=key.revision,
            endpoint=key.endpoint,
            pipeline=key.pipeline,
            step=key.step,
            topic=self.tp.topic,
            partition=self.tp.partition,
        )
        for window in windows:
            self._changed.add(key)
            try:
                judged = judge(window, stream, loaded.detectors[key.step], self._memories.of(key))
            except Exception as error:  # noqa: BLE001 - any detector, a user's own included; one window must not stop the stream
                effects.dead_letters.append(dead_letters.of_window(window_record(window, stream), error, stream))
                continue
            if judged.memory is not None:
                self._memories.keep(key, judged.memory, t_ns=judged.verdict.window.t_last)
            verdict = judged.verdict
            if key.step in loaded.plan.outputs:
                effects.judgements.append(Judgement(verdict, window.rows.traceparents, window.new))
            for step in loaded.plan.steps:
                if step.kind == "explainer":
                    effects.explain_requests.extend(_explain_requests(step, verdict, window))


def _by_source(pipelines: Iterable[LoadedPipeline]) -> dict[tuple[str, str], list[LoadedPipeline]]:
    """Service and model -> the pipelines that watch them: a worker may have a thousand, of which a message has one."""
    found: dict[tuple[str, str], list[LoadedPipeline]] = {}
    for one in pipelines:
        found.setdefault((one.plan.source.service, one.plan.source.model), []).append(one)
    return found


def _move(key: WindowKey, source: PartitionTask, target: PartitionTask) -> None:
    """Hand a window over, with what is remembered of those before and what the checkpoint has of it."""
    target._buffers[key] = source._buffers.pop(key)
    source._memories.move(key, target._memories)
    source._chunks.move(key, target._chunks)
    if key in source._changed:
        source._changed.discard(key)
        target._changed.add(key)


T = TypeVar("T")


def _batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def _read(message: Message) -> Inference | BadInput:
    """The inference that a message carries, or why it carries none."""
    try:
        found = cloudevents.from_message(message)
    except BadInput as error:
        return error
    if isinstance(found, Inference):
        return found
    return BadInput(
        f"message {message.topic}[{message.partition}]@{message.offset} is a {type(found).__name__}",
        why="this topic carries inferences",
        fix="publish it to its own topic",
    )


def _made(passage: Passage, ran: Ran) -> list[Inference]:
    """What the pipeline gives, and what those of its steps returned that others read.

    Raises:
        BadInput: a tensor that V2 cannot carry.
    """
    name, read = passage.loaded.plan.name, sorted(passage.loaded.published & ran.returned.keys())
    given = [("", ran.inputs, ran.outputs), *((step, ran.received[step], ran.returned[step]) for step in read)]
    return [
        output_record(passage.inference, inputs, outputs, pipeline=name, step=step)
        for step, inputs, outputs in given
        if outputs
    ]


def _given(
    loaded: LoadedPipeline, inferences: Iterable[tuple[int, Inference]]
) -> tuple[list[tuple[int, Inference]], list[tuple[int, BadInput]]]:
    """Inferences as a pipeline is given them, and those of which it cannot be read what it is given."""
    if loaded.view is None:
        return list(inferences), []
    found: list[tuple[int, Inference]] = []
    unreadable: list[tuple[int, BadInput]] = []
    for offset, inference in inferences:
        try:
            given = loaded.given(inference)
        except BadInput as error:
            unreadable.append((offset, error))
        else:
            found += [] if given is None else [(offset, given)]
    return found, unreadable


def _explain_requests(step: PlannedStep, verdict: Verdict, window: ClosedWindow) -> list[ExplainRequest]:
    """A request for each instance that the verdict's step hands to the explainer, the strangest first."""
    if step.explainer is None or not any(source == verdict.step for source, _ in step.triggers):
        return []
    flagged = [i for i, instance in enumerate(verdict.instances) if instance.flagged]
    flagged.sort(key=lambda i: (-verdict.instances[i].score, i))
    requests = []
    for i in flagged[: step.explainer.max_per_window]:
        instance = verdict.instances[i]
        requests.append(
            ExplainRequest(
                schema_version=records.SCHEMA_VERSION,
                id=derived_id(
                    "explain", verdict.namespace, step.explainer.name, instance.instance_id, verdict.pipeline
                ),
                namespace=verdict.namespace,
                service=verdict.service,
                model=verdict.model,
                revision=verdict.revision,
                endpoint=verdict.endpoint,
                explainer=step.explainer.name,
                instance_id=instance.instance_id,
                request_id=instance.request_id,
                pipeline=verdict.pipeline,
                step=step.name,
                inputs_json=json.dumps(window.rows.frame.row(i)),
                deadline_s=step.explainer.deadline_s,
                actor=f"pipeline/{verdict.pipeline}",
                t_created=verdict.t_verdict,
                traceparent=window.rows.traceparents[i],
            )
        )
    return requests
