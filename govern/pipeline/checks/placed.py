"""Steps that are placed elsewhere than their pipeline: what cannot be cut so, and names that its parts cannot have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from govern.pipeline.checks.steps import Kinds
from govern.pipeline.cut import cut
from govern.pipeline.document import Document
from govern.pipeline.errors import Problem, Where
from govern.pipeline.groups import grouped, is_placed
from govern.pipeline.references import detector_kind
from govern.pipeline.spec import Pipeline

#: A Kubernetes DNS label (RFC 1123) has no more characters.
NAME_CHARACTERS_MAX: Final = 63
_WHY: Final = "a part of its own has this name, after its pipeline and its first step"


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
    refused = grouped(pipeline, kinds=kinds).refused
    if refused:
        return [document.problem(*one) for one in refused]
    return list(_names(document, pipeline, kinds))


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
