"""The plan: a pipeline's steps as a worker runs them, in the order in which data passes them, with all defaults.

What a worker runs of the vocabulary, `govern.runtime.vocabulary` says; every pipeline has a `govern.pipeline.graph`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Final, Literal

from govern.errors import NotFound
from govern.pipeline.check import Kinds
from govern.pipeline.references import Reference, detector_kind, parse
from govern.pipeline.spec import DetectorSpec, ExplainerSpec, Pipeline, Source, Step
from govern.record import Kind

StepKind = Kind | Literal["explainer", "model", "transformer", "router", "combiner"]

#: A drift test compares distributions: a thousand rows see a shift of a tenth of a standard deviation.
DRIFT_SIZE: Final = 1000
#: A quiet model still gets a drift verdict each minute.
DRIFT_WINDOW_MS: Final = 60_000
#: Rows are judged one by one, so a window is only there to spread the cost of a call and of a commit.
INSTANCE_SIZE: Final = 100
#: How late the verdict on a single row may be.
INSTANCE_WINDOW_MS: Final = 1000


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A step that is ready to run.

    Attributes:
        kind: the detector's kind, else the step's role.
        needs_outputs: output tensors of the model that its inputs name.
        batch_size: instances that close a window (detectors; 0 for others).
        window_ms: age that closes a window (detectors; 0 for others).
        after: steps whose results it reads.
        triggers: (step, tensor), any of which starts an explainer.
        rolling: whether its window slides with each request.
    """

    name: str
    kind: StepKind
    detector: DetectorSpec | None
    explainer: ExplainerSpec | None
    needs_outputs: tuple[str, ...]
    batch_size: int
    window_ms: int
    after: tuple[str, ...]
    triggers: tuple[tuple[str, str], ...]
    rolling: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What a worker runs.

    Attributes:
        source: whose inferences are the pipeline's requests; of one that reads other pipelines, as long as it is not
            linked to them (`govern.runtime.chained.linked`), its own name and no service.
        schema_path: relative to the pipeline file, as are the artifacts.
        steps: each after all that it reads from; in the file's order where a loop leaves no such order.
        outputs: names of the detector steps whose verdicts are published: those that the output names, all of them
            when it names none.
        digest: SHA-256, hex, over the pipeline's content and the artifact digests that were supplied.
    """

    name: str
    namespace: str
    source: Source
    schema_path: str
    steps: tuple[PlannedStep, ...]
    outputs: tuple[str, ...]
    digest: str

    def step(self, name: str) -> PlannedStep:
        for step in self.steps:
            if step.name == name:
                return step
        raise NotFound(
            f"pipeline {self.name!r} has no step {name!r}",
            why=f"it has {', '.join(step.name for step in self.steps)}",
            fix="correct the name",
        )


def plan(
    pipeline: Pipeline, *, artifact_digests: Mapping[str, str] | None = None, kinds: Kinds = detector_kind
) -> Plan:
    """Order and complete the steps of a pipeline that `load_pipelines` has checked and a worker runs.

    Args:
        artifact_digests: step name -> digest of its fitted artifact, to be part of the plan's digest.

    Raises:
        GovernError: what `kinds` raises for a detector type that cannot be used.
    """
    source, schema_path = pipeline.spec.source, pipeline.spec.schema_path
    assert source is not None or pipeline.spec.input is not None, "a worker refuses a pipeline that reads nothing"
    assert schema_path is not None, "what a worker runs was checked to have a schema"
    steps = {step.name: _planned(step, pipeline.name, kinds) for step in pipeline.spec.steps}
    try:
        order = tuple(TopologicalSorter({name: step.after for name, step in steps.items()}).static_order())
    except CycleError:
        order = tuple(steps)
    ordered = tuple(steps[name] for name in order)
    judging = tuple(one.name for one in ordered if one.detector is not None)
    output = pipeline.spec.output
    named = tuple(one.node for one in _resolved(output.steps, pipeline.name)) if output is not None else ()
    return Plan(
        name=pipeline.name,
        namespace=pipeline.namespace,
        source=source or Source.model_construct(service="", model=pipeline.name),
        schema_path=schema_path,
        steps=ordered,
        outputs=tuple(name for name in named if name in judging) or judging,
        digest=digest(pipeline, artifact_digests),
    )


def _planned(step: Step, pipeline: str, kinds: Kinds) -> PlannedStep:
    inputs = _resolved(step.inputs, pipeline)
    triggers = _resolved(step.triggers, pipeline)
    kind = kinds(step.detector.type) if step.detector is not None else None
    size, window_ms = window(step, kind)
    return PlannedStep(
        name=step.name,
        kind=kind or _role(step),
        detector=step.detector,
        explainer=step.explainer,
        needs_outputs=tuple(one.tensor for one in inputs if one.tensor),
        batch_size=size,
        window_ms=window_ms,
        after=tuple(dict.fromkeys(one.node for one in (*inputs, *triggers))),
        triggers=tuple((one.node, one.tensor) for one in triggers),
        rolling=step.detector is not None and step.batch.rolling,
    )


def _role(step: Step) -> StepKind:
    role = step.role
    assert role != "detector", "a detector has a kind"
    return role


def _resolved(texts: tuple[str, ...], pipeline: str) -> list[Reference]:
    references = (parse(text) for text in texts)
    return [one for one in references if one is not None and one.node != pipeline]


def window(step: Step, kind: Kind | None) -> tuple[int, int]:
    """Instances and age (ms) that close a window of a detector of this kind; 0 for a step that is none."""
    if kind is None:
        return 0, 0
    size, window_ms = (DRIFT_SIZE, DRIFT_WINDOW_MS) if kind == "drift" else (INSTANCE_SIZE, INSTANCE_WINDOW_MS)
    return step.batch.size or size, step.batch.window_ms or window_ms


def digest(pipeline: Pipeline, artifact_digests: Mapping[str, str] | None = None) -> str:
    """SHA-256, hex, over the content of any pipeline and the digests of its artifacts."""
    content = {"pipeline": pipeline.canonical(), "artifacts": dict(artifact_digests or {})}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
