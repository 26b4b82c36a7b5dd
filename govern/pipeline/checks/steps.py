"""Steps as far as they can be read: what each is, what it reads, and what it can emit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from govern import plugins
from govern.errors import GovernError
from govern.pipeline.checks.sections import Sections
from govern.pipeline.document import Document, items, mapping
from govern.pipeline.errors import Problem, Where, suggest
from govern.pipeline.references import tensors
from govern.pipeline.spec import ROLES, StepRole
from govern.record import Kind

Kinds = Callable[[str], Kind]

#: What an explainer step emits.
EXPLANATION: Final = "explanation"


@dataclass(frozen=True, slots=True)
class Node:
    """A step as far as it can be read.

    Attributes:
        kind: None for a step that is no detector, or one of unknown type.
        emits: names of all tensors that it can emit; None where they are not known.
        tensor_map: as it was written.
        captured: whether it stands for the watched model.
    """

    name: str
    where: Where
    role: StepRole | None
    kind: Kind | None
    emits: tuple[str, ...] | None
    inputs: tuple[tuple[Where, str], ...]
    triggers: tuple[tuple[Where, str], ...]
    tensor_map: object
    captured: bool


def nodes(document: Document, kinds: Kinds, found: list[Problem]) -> Iterator[Node]:
    """The steps of a document; what is wrong with each of them alone is appended to `found`."""
    for position, item in enumerate(items(mapping(mapping(document.value).get("spec")).get("steps"))):
        step = mapping(item)
        where: Where = ("spec", "steps", position)
        roles = [role for role in ROLES if step.get(role) is not None]
        if len(roles) != 1:
            found.append(
                document.problem(
                    where,
                    f"step {step.get('name', '')!s} has {' and '.join(roles) or 'no kind'}",
                    f"a step is exactly one of {', '.join(ROLES[:-1])} and {ROLES[-1]}",
                    "keep one of them" if roles else f"add one of {', '.join(f'`{one}:`' for one in ROLES)}",
                )
            )
        role = roles[0] if len(roles) == 1 else None
        kind = _kind(document, where, step, kinds, found) if role == "detector" else None
        node = Node(
            name=str(step.get("name", "")),
            where=where,
            role=role,
            kind=kind,
            emits=_emits(role, kind, step),
            inputs=references(document, where, step, "inputs", found),
            triggers=references(document, where, step, "triggers", found),
            tensor_map=step.get("tensorMap"),
            captured=role == "model" and mapping(step["model"]).get("captured") is True,
        )
        if role is not None:
            Sections(document, (*where, role), found).check(mapping(step[role]), max(1, len(node.inputs)))
            batch = mapping(step.get("batch"))
            if role != "detector" and batch.get("rolling") is True and not batch.keys() & {"size", "windowMs"}:
                why = "nothing says how long the window is; only detectors have one by default"
                here = (*where, "batch", "rolling")
                found.append(
                    document.problem(here, "`rolling` has no effect", why, "write size or windowMs", at_key=True)
                )
        if node.name:
            yield node


def references(
    document: Document, where: Where, section: Mapping[str, object], key: str, found: list[Problem]
) -> tuple[tuple[Where, str], ...]:
    """A list of references with the place of each; that it is empty, or names one twice, is appended to `found`."""
    here = (*where, key)
    value = section.get(key)
    if key in section and value in ((), None):
        fix = "name a reference, or leave the key out" + (
            " (the step then reads the pipeline's inputs)" * (key == "inputs")
        )
        found.append(document.problem(here, f"`{key}` is empty", "an empty list says nothing", fix, at_key=True))
    texts = [((*here, position), item) for position, item in enumerate(items(value)) if isinstance(item, str)]
    for position, (place, text) in enumerate(texts):
        if text in [other for _, other in texts[:position]]:
            why = "the same reference stands before it"
            found.append(document.problem(place, f"{text} comes twice", why, "remove one of them"))
    return tuple(texts)


def _kind(
    document: Document, where: Where, step: Mapping[str, object], kinds: Kinds, found: list[Problem]
) -> Kind | None:
    type_ = mapping(step["detector"]).get("type")
    if not isinstance(type_, str) or not type_:
        return None
    try:
        return kinds(type_)
    except GovernError as error:
        known = plugins.names(plugins.DETECTORS)
        fix = error.fix if type_ in known else suggest(type_, known, "use one of")
        found.append(document.problem((*where, "detector", "type"), error.what, error.why, fix))
        return None


def _emits(role: StepRole | None, kind: Kind | None, step: Mapping[str, object]) -> tuple[str, ...] | None:
    content = mapping(step.get(role)) if role is not None else {}
    match role:
        case "detector":
            return None if kind is None else tensors(kind)
        case "explainer":
            return (EXPLANATION,)
        case "router":
            return tuple(str(mapping(one).get("name")) for one in items(content.get("routes")))
        case "combiner":
            return (str(content.get("output", "output")),)
        case "model" | "transformer" if content.get("outputs") is not None:
            return tuple(str(mapping(one).get("name")) for one in items(content["outputs"]))
    return None
