"""Steps that are placed elsewhere than their pipeline: what cannot be cut so, and names that its parts cannot have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from govern.pipeline.checks.places import place, step_place
from govern.pipeline.checks.steps import Kinds
from govern.pipeline.cut import cut
from govern.pipeline.document import Document
from govern.pipeline.errors import Problem, Where
from govern.pipeline.graph import Graph, graph
from govern.pipeline.groups import Group, Groups, given, grouped, is_placed, output_steps, placement_of
from govern.pipeline.references import detector_kind
from govern.pipeline.spec import Pipeline

#: A Kubernetes DNS label (RFC 1123) has no more characters.
NAME_CHARACTERS_MAX: Final = 63
_WHY: Final = "a part of its own has this name, after its pipeline and its first step"


class Refusal(NamedTuple):
    """Why a pipeline cannot be cut so, where it says so, and what to write instead."""

    where: Where
    what: str
    why: str
    fix: str


def check(document: Document, pipeline: Pipeline, *, kinds: Kinds = detector_kind) -> list[Problem]:
    """What is wrong with the placements of a pipeline that was checked otherwise.

    Args:
        kinds: detector type -> kind.
    """
    if not is_placed(pipeline):
        return []
    if pipeline.spec.source is None and pipeline.spec.input is None:
        position = next(at for at, step in enumerate(pipeline.spec.steps) if step.placement is not None)
        why = f"{pipeline.name} is only ever called, and answers from where it is called"
        where = ("spec", "steps", position, "placement")
        return [document.problem(where, "`placement` has no use", why, "remove `placement`", at_key=True)]
    refused = refusals(pipeline, kinds=kinds)
    if refused:
        return [document.problem(*one) for one in refused]
    return list(_names(document, pipeline, kinds))


def refusals(pipeline: Pipeline, *, kinds: Kinds = detector_kind) -> list[Refusal]:
    """Why a pipeline cannot be cut by its placements; nothing when it can."""
    one = graph(pipeline, kinds=kinds)
    useless = list(_useless(pipeline))
    if useless:
        return useless
    groups = grouped(pipeline, kinds=kinds)
    found = [*_loops(pipeline, one, groups)]
    for group in groups.groups:
        found += [*_reads(pipeline, one, group), *_joins(one, group)]
    return found or [*_explainers(one, groups), *_output(pipeline, one, groups)]


def clashes(found: Sequence[tuple[Document, Pipeline]], *, kinds: Kinds = detector_kind) -> list[Problem]:
    """Parts that have the name of another pipeline of those that run together; each alone was checked."""
    names = {pipeline.name: document for document, pipeline in found}
    problems = []
    for document, pipeline in found:
        for part in cut(pipeline, kinds=kinds):
            other = names.get(part.name)
            if other is not None and part.name != pipeline.name:
                what, why = f"pipeline {part.name!r} comes twice", f"{_WHY}, and a pipeline of {other.file} has it, too"
                problems.append(document.problem(_first(pipeline, part), what, why, "rename one of them"))
    return problems


def _useless(pipeline: Pipeline) -> Iterator[Refusal]:
    for position, step in enumerate(pipeline.spec.steps):
        captured = step.model is not None and step.model.url is None
        if step.placement is not None and (step.explainer is not None or captured):
            why = "a captured model was called already, by whom it was captured"
            if not captured:
                why = "explanations are asked for where the detector runs, and made by `govern explain worker`"
            what = f"`placement` of {step.role} step {step.name!r} has no use"
            yield Refusal(("spec", "steps", position, "placement"), what, why, "remove `placement`")


def _loops(pipeline: Pipeline, one: Graph, groups: Groups) -> Iterator[Refusal]:
    for node in one.steps:
        group, own = groups.of(node.name), placement_of(node, pipeline)
        if node.looped and group is not None and group.placement != own:
            places = " and ".join(f"at {where}" if where else "nowhere" for where in sorted((group.placement, own)))
            why = f"its steps are placed {places}, and what comes back to a step within a request does not leave it"
            where = step_place(one, node)
            yield Refusal(where, f"step {node.name!r} is in a loop that is cut", why, "place all of its steps alike")


def _reads(pipeline: Pipeline, one: Graph, group: Group) -> Iterator[Refusal]:
    """That what a group reads is published."""
    ports = [(node, port) for node in one.steps if node.name in group.first for port in node.ports]
    for node, port in ports:
        if port.topic in group.reads and port.topic.side == "inputs" and port.topic not in given(one):
            why = f"what a step is given does not leave its part of the pipeline, and {node.name} is in another"
            yield Refusal(place(one, node, port), port.text, why, f"read what step {port.topic.node!r} reads")
        if group.joins and port.topic == one.entry and pipeline.spec.source is None:
            why = f"{one.name} reads other pipelines, and what it is given of them does not leave it"
            fix = f"place {node.name} where the steps are that it reads"
            yield Refusal(place(one, node, port), port.text or f"{one.name}.inputs", why, fix)


def _joins(one: Graph, group: Group) -> Iterator[Refusal]:
    """That what a group reads is joined to the same wherever it comes from."""
    if not group.joins:
        return
    node = next(node for node in one.steps if node.name == group.first[0])
    where, fix = step_place(one, node), "place it where the steps are that it reads"
    if node.looped:
        why = "its steps wait for several steps that run elsewhere, and what those say comes to it joined, once"
        yield Refusal(where, f"step {node.name!r} is in a loop", why, fix)
    elif node.inputs_join != "inner" and len(node.inputs) > 1:
        why = "of steps that run elsewhere nobody knows what will still come, nor which comes first"
        yield Refusal((*where, "inputsJoinType"), f"{node.inputs_join} join", why, f"{fix}, or write inner")
    elif node.role == "combiner":
        why = f"{node.name} takes one tensor of each input, and those of several steps come together"
        for port in node.inputs:
            if not port.tensor:
                fix = "name the tensor: <step>.outputs.<tensor>"
                yield Refusal(place(one, node, port), port.text or node.name, why, fix)


def _explainers(one: Graph, groups: Groups) -> Iterator[Refusal]:
    """That each runs where all of its triggers do, and is given the rows that it explains."""
    for node in one.steps:
        for port in node.triggers if node.role == "explainer" else ():
            group = groups.of(port.topic.node)
            if group is None or (group is groups.of(node.name) and group.at_source):
                continue
            why = "its part of the pipeline is not given the model's inputs, which an explainer explains"
            if group.at_source:
                why = f"{node.name} runs where its other triggers do, and this one is placed elsewhere"
            fix = "trigger it by detectors in one place that read the pipeline's inputs"
            yield Refusal(place(one, node, port), port.text, why, fix)
            break


def _output(pipeline: Pipeline, one: Graph, groups: Groups) -> Iterator[Refusal]:
    """That all that the pipeline gives comes of one group; verdicts may come of each."""
    named, nodes = output_steps(pipeline), {node.name: node for node in one.steps}
    judging = {name for name in named if nodes[name].role == "detector"}
    called = [name for name in named if name not in judging]
    for position, name in enumerate(named):
        elsewhere = not groups.main.at_source if name in groups.captured else groups.of(name) is not groups.main
        if name in called and elsewhere:
            why = f"it runs in another part of the pipeline than {called[0]}, and each part gives what is its own"
            here = ("spec", "output", "steps", position)
            yield Refusal(here, f"step {name!r}", why, "name one step that reads them all")
    for group in groups.groups if judging else ():
        judges = [name for name in group.steps if nodes[name].role == "detector"]
        if judges and not judging & set(judges):
            why = "the output names other detectors, and a part of its own publishes what its detectors say"
            where = step_place(one, nodes[judges[0]])
            yield Refusal(where, f"step {judges[0]!r} judges for nobody", why, "name it in the output")


def _names(document: Document, pipeline: Pipeline, kinds: Kinds) -> Iterator[Problem]:
    steps = {step.name for step in pipeline.spec.steps}
    watched = pipeline.spec.source.model if pipeline.spec.source is not None else ""
    for part in cut(pipeline, kinds=kinds):
        if part.name == pipeline.name:
            continue
        where = _first(pipeline, part)
        if len(part.name) > NAME_CHARACTERS_MAX:
            why = f"{_WHY}, and a name is up to {NAME_CHARACTERS_MAX} characters"
            yield document.problem(where, f"name {part.name!r} is {len(part.name)} characters", why, "rename the step")
        if part.name in steps:
            why = f"{_WHY}, and references such as {part.name}.inputs would have two meanings"
            yield document.problem(where, f"step {part.name!r} has a part's name", why, "rename one of the steps")
        if watched == part.name or watched.startswith(f"{part.name}."):
            why = f"{_WHY}, under which what it gives is published in the service that is watched"
            yield document.problem(where, f"{watched} is the watched model", why, "rename the step")


def _first(pipeline: Pipeline, part: Pipeline) -> Where:
    """The name of the step that a part is named after."""
    names = [step.name for step in pipeline.spec.steps]
    return "spec", "steps", names.index(part.name.removeprefix(f"{pipeline.name}-")), "name"
