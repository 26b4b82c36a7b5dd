"""Pipelines chained to pipelines: where the records lie that one reads of another. Pure.

What a pipeline gives, and what those of its steps return that others read, is published as inferences of its service,
under the model `<pipeline>` or `<pipeline>.<step>`: the request is what was given to it, the response what it returned.
So every external reference names one side of the inferences of one model:

| reference | model | side |
| --- | --- | --- |
| `<pipeline>.outputs` | `<pipeline>` | response |
| `<pipeline>.step.<step>.inputs`, `.outputs` | `<pipeline>.<step>` | request, response |
| the same of a captured model | the watched one | request, response |
| `<pipeline>.inputs` of a pipeline with a `source` | the watched one | request |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from itertools import chain as flattened
from typing import Final, NamedTuple

from govern.pipeline.check import Kinds
from govern.pipeline.cut import part_at_source, part_with
from govern.pipeline.graph import INPUT, Node, Port, graph
from govern.pipeline.references import Reference, Side, detector_kind, parse, parse_external
from govern.pipeline.spec import JoinType, Pipeline, Source, Step

#: Under this name, behind the pipeline's, what a pipeline is given lies where it is made of several streams.
ENTRY: Final = "inputs"


class Unreadable(NamedTuple):
    """Why a pipeline cannot be read so, and what to write instead."""

    what: str
    why: str
    fix: str


@dataclass(frozen=True, slots=True)
class Reading:
    """One port of a chained pipeline.

    Attributes:
        service, model: whose inferences it reads.
        side: "inputs" for their requests, "outputs" for their responses.
        pipeline: who publishes them; "" for captured ones.
        read: the pipeline that is named.
    """

    service: str
    model: str
    side: Side
    pipeline: str
    read: str
    port: Port

    @property
    def whole(self) -> bool:
        """Whether it reads the inference's own inputs, as they are."""
        return self.side == "inputs" and not self.port.tensor and not self.port.names


@dataclass(frozen=True, slots=True)
class Chain:
    """How a pipeline that reads others comes by its requests."""

    pipeline: str
    inputs: tuple[Reading, ...]
    inputs_join: JoinType
    triggers: tuple[Reading, ...]
    triggers_join: JoinType
    window_ms: int

    @property
    def readings(self) -> tuple[Reading, ...]:
        return self.inputs + self.triggers

    @property
    def joins(self) -> bool:
        """Whether a request is made of several records, which lie on several partitions."""
        return len(self.readings) > 1

    @property
    def source(self) -> Source:
        """Whose inferences bring the requests: those of the only stream that it reads, else the joined ones."""
        first = self.inputs[0]
        return Source(service=first.service, model=f"{self.pipeline}.{ENTRY}" if self.joins else first.model)


def chain(pipeline: Pipeline, pipelines: Mapping[str, Pipeline], *, kinds: Kinds = detector_kind) -> Chain:
    """The chain of a pipeline with an `input`, all of whose references were found to be readable.

    Raises:
        GovernError: what `kinds` raises for a detector type that cannot be used.
    """
    node = entry(pipeline, kinds=kinds)
    return Chain(
        pipeline=pipeline.name,
        inputs=_readings(node.inputs, pipelines),
        inputs_join=node.inputs_join,
        triggers=_readings(node.triggers, pipelines),
        triggers_join=node.triggers_join,
        window_ms=node.window_ms,
    )


def entry(pipeline: Pipeline, *, kinds: Kinds = detector_kind) -> Node:
    """Where a pipeline with an `input` joins what it reads of others."""
    return next(node for node in graph(pipeline, kinds=kinds).nodes if node.name == INPUT)


def reading(port: Port, pipelines: Mapping[str, Pipeline]) -> Reading | Unreadable:
    """What a port reads. The pipelines have no ring."""
    reference = parse_external(port.text)
    assert reference is not None, "checked before"
    if not reference.node:
        return _of_pipeline(reference, pipelines[reference.pipeline], port, pipelines)
    other = part_with(reference.pipeline, reference.node, pipelines)
    step = next((one for one in other.spec.steps if one.name == reference.node), None)
    if step is None:
        names = ", ".join(one.name for one in other.spec.steps)
        return Unreadable(f"{other.name} has no step {reference.node!r}", f"its steps are {names}", "correct the name")
    if step.model is not None and step.model.captured:
        assert other.spec.source is not None, "a captured model was checked to have a stream"
        return Reading(other.spec.source.service, other.spec.source.model, reference.side, "", other.name, port)
    if step.role in ("detector", "explainer"):
        published = "verdicts" if step.role == "detector" else "explanations"
        why = f"it is a {step.role}: what it says is published as {published}, not for each request"
        return Unreadable(f"{reference.node} gives no tensors to other pipelines", why, "read a step that is called")
    return Reading(service(other, pipelines), f"{other.name}.{step.name}", reference.side, other.name, other.name, port)


def _of_pipeline(
    reference: Reference, other: Pipeline, port: Port, pipelines: Mapping[str, Pipeline]
) -> Reading | Unreadable:
    spec = other.spec
    if reference.side == "inputs":
        other = part_at_source(other.name, pipelines)
        spec = other.spec
        if spec.source is None:
            why = f"{other.name} watches no captured stream" + ("" if spec.input is None else "; it reads others, too")
            return Unreadable(f"{reference} is not published", why, "read what it reads")
        return Reading(spec.source.service, spec.source.model, "inputs", "", other.name, port)
    if spec.source is None and spec.input is None:
        why = f"{other.name} is only ever called, and answers who calls it"
        return Unreadable(f"{reference} is not published", why, "give it a `source` or an `input`")
    steps = {step.name: step for step in spec.steps}
    named = [parse(text) for text in (spec.output.steps if spec.output is not None else ())]
    given = [steps[one.node] for one in named if one is not None and one.node in steps]
    if not any(_returns(step) for step in given):
        why = f"{other.name} gives verdicts only" if given else f"{other.name} has no `output`"
        return Unreadable(f"{reference} is not published", why, f"name steps that are called in {other.name}'s output")
    return Reading(service(other, pipelines), other.name, "outputs", other.name, other.name, port)


def _returns(step: Step) -> bool:
    return step.role not in ("detector", "explainer")


def service(pipeline: Pipeline, pipelines: Mapping[str, Pipeline]) -> str:
    """The service that a pipeline's records belong to: the watched one, or that of the first that it reads."""
    while pipeline.spec.source is None:
        if pipeline.spec.input is None:
            return ""
        first = parse_external(pipeline.spec.input.external_inputs[0])
        assert first is not None, "checked before"
        pipeline = pipelines[first.pipeline]
    return pipeline.spec.source.service


def read_of(pipeline: Pipeline) -> dict[str, str]:
    """Name of each pipeline that one reads -> the reference that names it first."""
    given = pipeline.spec.input
    texts = (*given.external_inputs, *given.external_triggers) if given is not None else ()
    found: dict[str, str] = {}
    for text in texts:
        reference = parse_external(text)
        assert reference is not None, "checked before"
        found.setdefault(reference.pipeline, text)
    return found


def ring(pipelines: Mapping[str, Pipeline]) -> tuple[str, ...]:
    """Pipelines that read each other in a ring, the first again at the end; () when there is none."""
    reads = {name: [one for one in read_of(pipeline) if one in pipelines] for name, pipeline in pipelines.items()}
    try:
        TopologicalSorter(reads).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return tuple(found)
    return ()


def published_steps(chains: Iterable[Chain]) -> dict[str, frozenset[str]]:
    """Pipeline -> the steps of it that others read."""
    found: dict[str, frozenset[str]] = {}
    for one in flattened.from_iterable(each.readings for each in chains):
        pipeline, _, step = one.model.partition(".")
        if one.pipeline == pipeline and step:
            found[pipeline] = found.get(pipeline, frozenset()) | {step}
    return found


def _readings(ports: tuple[Port, ...], pipelines: Mapping[str, Pipeline]) -> tuple[Reading, ...]:
    found = []
    for port in ports:
        one = reading(port, pipelines)
        assert isinstance(one, Reading), "checked before"
        found.append(one)
    return tuple(found)
