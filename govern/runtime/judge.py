"""From a closed window to a verdict. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from msgspec.structs import replace

from govern import record as records
from govern.detection import Detector, InstanceScores, WindowScores, remembers
from govern.errors import DecodeError
from govern.frame import Frame
from govern.ids import derived_id
from govern.record import FeatureShare, InstanceResult, Verdict
from govern.runtime.memory import Kept, Memory, known
from govern.runtime.windows import ClosedWindow
from govern.schema import FeatureSchema

#: Features named with a flagged instance: a person reads no more of them, and the bus carries every one.
STRONGEST: Final = 5


@dataclass(frozen=True, slots=True)
class Stream:
    """What a verdict is about: one revision and endpoint of a model, watched by a step, on one partition."""

    namespace: str
    service: str
    model: str
    revision: str
    endpoint: str
    pipeline: str
    step: str
    topic: str
    partition: int


def window_record(window: ClosedWindow, stream: Stream) -> records.Window:
    rows = window.rows
    return records.Window(
        topic=stream.topic,
        partition=stream.partition,
        first_offset=int(rows.offsets[0]),
        last_offset=int(rows.offsets[-1]),
        first_row=int(rows.positions[0]),
        last_row=int(rows.positions[-1]),
        n_instances=len(rows),
        completeness=window.completeness,
        t_first=int(rows.times.min()),
        t_last=int(rows.times.max()),
        closed_by=window.closed_by,
    )


def verdict_id(where: records.Window, stream: Stream, detector_digest: str) -> str:
    """The same for the same rows judged by the same detector, whoever judges them and how often."""
    return derived_id(
        "verdict",
        stream.namespace,
        stream.pipeline,
        stream.step,
        stream.revision,
        stream.endpoint,
        where.topic,
        where.partition,
        where.first_offset,
        where.first_row,
        where.last_offset,
        where.last_row,
        detector_digest,
    )


def missing_outputs(detector: Detector, frame: Frame) -> DecodeError | None:
    """Why the detector cannot judge these rows: the model gave no output that it compares; None when it can."""
    absent = [name for name in detector.needs_outputs if name not in frame.outputs]
    if not absent:
        return None
    return DecodeError(
        f"response has no output tensor {', '.join(map(repr, absent))}",
        why=f"{detector.method} compares it; the response gave {', '.join(sorted(frame.outputs)) or 'none'}",
        fix="have the model return it, or fit the step on an output that it returns",
    )


@dataclass(frozen=True, slots=True)
class Judged:
    """
    Attributes:
        memory: what the detector remembers from now on; None of one that remembers nothing.
    """

    verdict: Verdict
    memory: Memory | None


def judge(window: ClosedWindow, stream: Stream, detector: Detector, kept: Kept = None) -> Judged:
    """Score the window and say what was found.

    Whatever the detector raises, this raises.

    Args:
        kept: what a detector that remembers knows of the windows before; None = this is the first.
    """
    rows = window.rows
    where = window_record(window, stream)
    memory, digest = None, ""
    if remembers(detector):
        before = known(kept, detector)
        scores, value = detector.advance(before.value, rows.frame, rows.times)
        memory, digest = Memory.of(detector, value), before.digest
    else:
        scores = detector.score(rows.frame)
    verdict = Verdict(
        schema_version=records.SCHEMA_VERSION,
        id=verdict_id(where, stream, detector.digest),
        namespace=stream.namespace,
        service=stream.service,
        model=stream.model,
        revision=stream.revision,
        endpoint=stream.endpoint,
        pipeline=stream.pipeline,
        step=stream.step,
        kind=detector.kind,
        method=detector.method,
        window=where,
        detector_digest=detector.digest,
        reference_digest=detector.reference_digest,
        seed=detector.seed,
        t_verdict=where.t_last,
        traceparent=rows.traceparents[-1],
        memory_digest=digest,
    )
    return Judged(_with_scores(verdict, scores, window), memory)


def _with_scores(verdict: Verdict, scores: WindowScores | InstanceScores, window: ClosedWindow) -> Verdict:
    if isinstance(scores, WindowScores):
        return replace(
            verdict,
            alarm=scores.alarm,
            statistic=scores.statistic,
            p_value=scores.p_value,
            threshold=scores.threshold,
            correction=scores.correction,
            features=scores.features,
            alarm_row=scores.alarm_row,
        )
    rows = window.rows
    return replace(
        verdict,
        alarm=bool(np.any(scores.flagged)),
        statistic=float(np.max(scores.scores)),
        p_value=float("nan"),
        threshold=scores.threshold,
        correction="none",
        instances=tuple(
            InstanceResult(
                instance_id=instance_id, request_id=request_id, score=score, flagged=flagged, features=features
            )
            for instance_id, request_id, score, flagged, features in zip(
                rows.frame.instance_ids,
                rows.request_ids,
                scores.scores.tolist(),
                scores.flagged.tolist(),
                _strongest(scores, rows.frame.schema),
                strict=True,
            )
        ),
    )


def _strongest(scores: InstanceScores, schema: FeatureSchema) -> list[tuple[FeatureShare, ...]]:
    """Of each row the features that its score comes from; none where it is not flagged or the method cannot tell."""
    found: list[tuple[FeatureShare, ...]] = [()] * len(scores.scores)
    if scores.shares is None:
        return found
    for row in np.flatnonzero(scores.flagged).tolist():
        shares = scores.shares[row]
        first = np.argsort(-shares, kind="stable")[:STRONGEST].tolist()
        found[row] = tuple(
            FeatureShare(feature=schema.features[position].name, share=float(shares[position]))
            for position in first
            if shares[position] > 0.0
        )
    return found
