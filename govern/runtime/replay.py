"""A past verdict computed once more from the inferences that it names, and compared with what was recorded. Pure.

A verdict names its window exactly (partition, first and last offset and row), so each is computed on its own: neither
the windows before it nor a checkpoint is needed, whatever closed it. Only of a detector that remembers the windows
before are gone through first (`govern.runtime.recall`).
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import msgspec
import numpy as np

from govern import record as records
from govern.bus.protocol import Message, Partition
from govern.detection import Detector, remembers
from govern.record import DeadLetter, Verdict
from govern.runtime.checkpoint import WindowKey
from govern.runtime.flows import NO_OUTCOMES, Outcomes
from govern.runtime.judge import Stream, judge
from govern.runtime.limits import to_message
from govern.runtime.loader import LoadedPipeline
from govern.runtime.memory import Memory
from govern.runtime.recall import Recall
from govern.runtime.task import PartitionTask
from govern.runtime.watched import asked
from govern.runtime.windows import ClosedWindow, Rows

Outcome = Literal[
    "identical", "values", "answers", "detector", "memory", "pipeline", "rows", "deleted", "failed", "doubled"
]

#: A window that is never full: it takes all rows of the messages that it is given.
_NEVER_FULL: Final = sys.maxsize
#: Rows that cannot be read any more are named one by one up to here.
_LETTERS_NAMED: Final = 3


@dataclass(frozen=True, slots=True)
class Difference:
    """A field of a verdict that came out otherwise; both values as Python writes them, so that every bit shows."""

    field: str
    recorded: str
    computed: str


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of one verdict.

    Attributes:
        outcome: "identical", or the first cause found for a difference.
        why: the cause in words; "" when identical.
        differences: field by field, where a verdict could be computed.
        recorded_plan: digest of the plan that was in force at the window's end; "" when the checkpoint does not say.
        replayed_plan: of the plan that it was computed by; "" when there is none of its name.
    """

    recorded: Verdict
    outcome: Outcome
    why: str = ""
    differences: tuple[Difference, ...] = ()
    recorded_plan: str = ""
    replayed_plan: str = ""

    @property
    def under_another_plan(self) -> bool:
        return bool(self.recorded_plan and self.replayed_plan) and self.recorded_plan != self.replayed_plan


def verdict_digest(verdict: Verdict) -> str:
    """SHA-256, hex, of what a detector said of a window: of the record's deterministic protobuf form without

    - `id` (a digest itself), `t_verdict` (it repeats `window.t_last`) and `traceparent` (of whoever judged);
    - `window.completeness` and `window.closed_by`, which also depend on what came before and after the window.
    """
    return hashlib.sha256(records.encode(_bare(verdict))).hexdigest()


def replay(
    verdict: Verdict,
    messages: Sequence[Message],
    pipelines: Mapping[str, LoadedPipeline],
    *,
    kept_from: int = 0,
    outcomes: Outcomes = NO_OUTCOMES,
    recall: Recall | None = None,
) -> Replayed:
    """Judge a verdict's window once more.

    Args:
        verdict: as recorded.
        messages: what the inferences topic has of the window's partition, at least from its first offset to its last.
        pipelines: by name, with the detectors of today.
        kept_from: the offset at which the partition begins by now.
        outcomes: of the flow for the window's messages, where the verdict's step is fed by one.
        recall: what is known of the windows before it, to which this one is added.
    """
    recall = Recall() if recall is None else recall
    carried = recall.carried(verdict)
    recall.lose(verdict)  # until it was judged
    loaded = pipelines.get(verdict.pipeline)
    detector = None if loaded is None else loaded.detectors.get(verdict.step)
    if loaded is None or detector is None:
        given = f"pipeline {verdict.pipeline!r} has no detector step {verdict.step!r}"
        why = f"the files hold no pipeline {verdict.pipeline!r}" if loaded is None else given
        return Replayed(verdict, "pipeline", why)
    source = loaded.plan.source
    if (source.service, source.model) != (verdict.service, verdict.model):
        why = (
            f"the pipeline watches {source.service}/{source.model} by now, it watched {verdict.service}/{verdict.model}"
        )
        return Replayed(verdict, "pipeline", why)
    where = verdict.window
    there = [one for one in messages if where.first_offset <= one.offset <= where.last_offset]
    if not {where.first_offset, where.last_offset} <= {one.offset for one in there}:
        why = f"the topic has no longer all of the window's records: the partition begins at {kept_from} by now"
        return Replayed(verdict, "deleted", why)
    rows, letters = _rows(verdict, there, loaded, outcomes)
    others = asked(loaded.flow.graph, verdict.step) if loaded.flow is not None else ()
    if rows is None or len(rows) != where.n_instances:
        if others and not letters:
            return Replayed(verdict, "answers", _why_other_answers(others))
        return Replayed(verdict, "rows", _why_other_rows(0 if rows is None else len(rows), verdict, letters))
    if verdict.memory_digest and detector.digest != verdict.detector_digest:
        return Replayed(verdict, "detector", _why_other_detector(verdict, detector))
    before: Memory | None = None
    try:
        if remembers(detector):
            before = recall.before(verdict, detector, carried)
            if before is None and carried is None and verdict.memory_digest:
                return Replayed(verdict, "memory", _why_no_memory(verdict, kept_from))
        computed, after = _computed(verdict, rows, detector, before or carried)
    except Exception as error:  # noqa: BLE001 - any detector, a user's own included; the other verdicts are still to be compared
        if before is None and carried is not None:
            return Replayed(verdict, "memory", _why_other_memory(verdict, carried))
        return Replayed(verdict, "failed", f"the detector raised {type(error).__name__}: {error}")
    if after is not None:
        recall.passed(verdict, before or carried, after)
    if before is None and carried is not None:
        return Replayed(verdict, "memory", _why_other_memory(verdict, carried))
    if verdict_digest(verdict) == verdict_digest(computed):
        return Replayed(verdict, "identical")
    differences = tuple(_differences(verdict, computed))
    if detector.digest != verdict.detector_digest:
        return Replayed(verdict, "detector", _why_other_detector(verdict, detector), differences)
    if others:
        return Replayed(verdict, "answers", _why_other_answers(others), differences)
    why = "the same detector says otherwise of the same rows: the record was altered, or another numeric library counts"
    return Replayed(verdict, "values", why, differences)


def _rows(
    verdict: Verdict, messages: Sequence[Message], loaded: LoadedPipeline, outcomes: Outcomes
) -> tuple[Rows | None, Sequence[DeadLetter]]:
    """The window's instances as a worker reads them, and what it could not read."""
    where = verdict.window
    step = replace(loaded.plan.step(verdict.step), batch_size=_NEVER_FULL, window_ms=0, rolling=False)
    alone = replace(
        loaded,
        plan=replace(loaded.plan, steps=(step,)),
        detectors={step.name: loaded.detectors[step.name]},
        fed=loaded.fed & {step.name},
        flow=loaded.flow if step.name in loaded.fed else None,
    )
    task = PartitionTask(Partition(where.topic, where.partition), verdict.namespace, [alone])
    letters = task.process(messages, outcomes).dead_letters
    rows = task.open_window(WindowKey(verdict.pipeline, verdict.step, verdict.revision, verdict.endpoint))
    if rows is None:
        return None, letters
    before = (rows.offsets == where.first_offset) & (rows.positions < where.first_row)
    after = (rows.offsets == where.last_offset) & (rows.positions > where.last_row)
    start, end = int(np.count_nonzero(before)), len(rows) - int(np.count_nonzero(after))
    return (rows.take(slice(start, end)) if start < end else None), letters


def _computed(verdict: Verdict, rows: Rows, detector: Detector, before: Memory | None) -> tuple[Verdict, Memory | None]:
    """The verdict as it would have been recorded: with what only its own time knew, and cut as the bus cuts it.

    Also what is remembered after it.
    """
    where = verdict.window
    stream = Stream(
        namespace=verdict.namespace,
        service=verdict.service,
        model=verdict.model,
        revision=verdict.revision,
        endpoint=verdict.endpoint,
        pipeline=verdict.pipeline,
        step=verdict.step,
        topic=where.topic,
        partition=where.partition,
    )
    judged = judge(ClosedWindow(rows, lost=0, closed_by="count"), stream, detector, before)
    found = judged.verdict
    window = msgspec.structs.replace(found.window, completeness=where.completeness, closed_by=where.closed_by)
    whole = msgspec.structs.replace(found, window=window, traceparent=verdict.traceparent)
    return records.decode(Verdict, to_message(whole, source="/govern/replay").value or b""), judged.memory


def _why_other_rows(found: int, verdict: Verdict, letters: Sequence[DeadLetter]) -> str:
    why = f"{found:,} of the window's {verdict.window.n_instances:,} rows can be read from the topic by today's schema"
    ours = [one for one in letters if one.pipeline in ("", verdict.pipeline)]
    named = [f"offset {one.source_offset}: {one.what}, {one.why}" for one in ours[:_LETTERS_NAMED]]
    if len(ours) > _LETTERS_NAMED:
        named.append(f"{len(ours) - _LETTERS_NAMED:,} more")
    return "; ".join((why, *named))


def _why_other_detector(verdict: Verdict, detector: Detector) -> str:
    return f"judged by detector {verdict.detector_digest[:12]}, the files hold {detector.digest[:12]}"


def _why_no_memory(verdict: Verdict, kept_from: int) -> str:
    gone = f"their verdicts or records are gone, the partition begins at {kept_from} by now"
    return f"it rests on the windows before, memory {verdict.memory_digest[:12]}: {gone}"


def _why_other_memory(verdict: Verdict, carried: Memory) -> str:
    given = f"it rests on memory {verdict.memory_digest[:12]}, the windows before give {carried.digest[:12]}"
    return f"{given}: a verdict between is gone, a record was altered, or another numeric library counts"


def _why_other_answers(others: Sequence[str]) -> str:
    cause = "the called model answered differently, or the record was altered"
    return f"it judges what {', '.join(others)} said, which was asked again: {cause}"


def _bare(verdict: Verdict) -> Verdict:
    window = msgspec.structs.replace(verdict.window, completeness=0.0, closed_by="")
    return msgspec.structs.replace(verdict, id="", t_verdict=0, traceparent="", window=window)


def _differences(recorded: Verdict, computed: Verdict) -> Iterator[Difference]:
    before, after = (dict(_flat("", msgspec.structs.asdict(_bare(one)))) for one in (recorded, computed))
    for name in dict.fromkeys((*before, *after)):
        if before.get(name) != after.get(name):
            yield Difference(name, before.get(name, "nothing"), after.get(name, "nothing"))


def _flat(path: str, value: object) -> Iterator[tuple[str, str]]:
    """Dotted name and text of each leaf; features and instances go by their own names, not by their place."""
    match value:
        case dict():
            for name, one in value.items():
                yield from _flat(f"{path}.{name}" if path else name, one)
        case msgspec.Struct():
            yield from _flat(path, msgspec.structs.asdict(value))
        case tuple():
            for one in value:
                yield from _flat(f"{path}[{getattr(one, 'feature', '') or getattr(one, 'instance_id', '')}]", one)
        case _:
            yield path, repr(value)
