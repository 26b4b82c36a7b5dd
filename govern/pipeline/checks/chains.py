"""Pipelines that read pipelines: rings of them, what is not published, and joins of what never comes together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from govern.pipeline.chain import ENTRY, Reading, read_of, reading, ring
from govern.pipeline.checks.deadlocks import exclusive
from govern.pipeline.checks.places import place
from govern.pipeline.checks.steps import Kinds
from govern.pipeline.document import Document
from govern.pipeline.errors import Problem, Where
from govern.pipeline.graph import INPUT, Graph, Node, graph
from govern.pipeline.references import detector_kind, parse_external
from govern.pipeline.spec import Pipeline

#: A pipeline and the document that it was read from.
Found = tuple[Document, Pipeline]


def check(found: Sequence[Found], *, kinds: Kinds = detector_kind) -> list[Problem]:
    """What is wrong between pipelines that run together; each alone was checked.

    Those that read one which is not there (`absent`) are passed over.

    Args:
        kinds: detector type -> kind.
    """
    pipelines = {pipeline.name: pipeline for _, pipeline in found}
    circle = ring(pipelines)
    if circle:
        document, pipeline = next(one for one in found if one[1].name == circle[0])
        texts = [text for name, text in read_of(pipeline).items() if name in circle]
        why = "what each gives would come back to it, again and again"
        return [document.problem(_written(pipeline, texts[0]), " -> ".join(circle) + " is a ring", why, "open it")]
    problems: list[Problem] = []
    for document, pipeline in found:
        if pipeline.spec.input is not None and not absent(pipeline, pipelines):
            problems += _chained(document, graph(pipeline, kinds=kinds), pipelines, kinds)
    return problems


def absent(pipeline: Pipeline, pipelines: Mapping[str, Pipeline]) -> dict[str, Where]:
    """The pipelines that one reads and that are not there, each with the place that names it."""
    return {name: _written(pipeline, text) for name, text in read_of(pipeline).items() if name not in pipelines}


def _written(pipeline: Pipeline, text: str) -> Where:
    given = pipeline.spec.input
    assert given is not None, "it reads other pipelines"
    key, texts = ("externalInputs", given.external_inputs)
    if text not in texts:
        key, texts = ("externalTriggers", given.external_triggers)
    return "spec", "input", key, texts.index(text)


def _chained(document: Document, one: Graph, pipelines: Mapping[str, Pipeline], kinds: Kinds) -> Iterator[Problem]:
    entry = next(node for node in one.nodes if node.name == INPUT)
    readings: dict[str, Reading] = {}
    for port in entry.ports:
        read = reading(port, pipelines)
        if isinstance(read, Reading):
            readings[port.text] = read
        else:
            yield document.problem(place(one, entry, port), read.what, read.why, read.fix)
    names = [node.name for node in one.steps]
    if len(entry.ports) > 1 and ENTRY in names:
        why = f"under {one.name}.{ENTRY} lies what the pipeline is given, joined"
        yield document.problem(("spec", "steps", names.index(ENTRY), "name"), f"step {ENTRY!r}", why, "rename it")
    waits = [port for port in entry.inputs if entry.inputs_join == "inner"]
    waits += [port for port in entry.triggers if entry.triggers_join == "inner"]
    both = [port for port in waits if port.text in readings]
    for first, second in combinations(both, 2):
        writer = _writer(readings[second.text], pipelines, kinds)
        mine, other = readings[first.text], readings[second.text]
        if writer is None or (mine.model, mine.side, other.side) != (other.model, "outputs", "outputs"):
            continue
        choices = exclusive(writer)
        if first.tensor != second.tensor and first.tensor in choices and second.tensor in choices:
            why = f"step {writer.name!r} of {mine.pipeline} returns one of them for each request"
            fix = "write joinType: any"
            yield document.problem(
                place(one, entry, second), f"{first.text} and {second.text} never come together", why, fix
            )


def _writer(read: Reading, pipelines: Mapping[str, Pipeline], kinds: Kinds) -> Node | None:
    """The step of another pipeline that a reading names."""
    reference = parse_external(read.port.text)
    assert reference is not None, "checked before"
    return next(
        (node for node in graph(pipelines[reference.pipeline], kinds=kinds).steps if node.name == reference.node), None
    )
