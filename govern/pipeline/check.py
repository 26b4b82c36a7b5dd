"""The rules that a pipeline must keep beyond the shape of its document. Pure.

The checks read the document as it was written, not the models, so that a wrong field does not hide what else is
wrong. What Seldon's vocabulary allows and this release does not run is refused here, never ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Final, Literal

from govern import plugins
from govern.errors import GovernError
from govern.pipeline.document import Document
from govern.pipeline.errors import Problem, Where, suggest
from govern.pipeline.references import FLAGGED, Reference, parse, tensors
from govern.record import Kind

Kinds = Callable[[str], Kind]
Role = Literal["detector", "explainer", "model"]

_ROLES: Final[tuple[Role, ...]] = ("detector", "explainer", "model")
_LATER: Final = "not supported by this release"


@dataclass(frozen=True, slots=True)
class _Node:
    """A step as far as it can be read. `kind` is None for a step that is no detector, or one of unknown type."""

    name: str
    where: Where
    role: Role | None
    kind: Kind | None
    inputs: tuple[tuple[Where, str], ...]
    triggers: tuple[tuple[Where, str], ...]


def check(document: Document, kinds: Kinds) -> list[Problem]:
    """All problems of the graph in a document.

    Args:
        kinds: detector type -> kind; raises `GovernError` for a type that cannot be used.
    """
    root = _mapping(document.value)
    pipeline = str(_mapping(root.get("metadata")).get("name", ""))
    spec = _mapping(root.get("spec"))
    found: list[Problem] = []
    nodes = list(_nodes(document, spec, kinds, found))
    _names(document, pipeline, nodes, found)
    by_name = {node.name: node for node in nodes}
    cycle = _cycle(nodes)
    if cycle:
        found.append(
            document.problem(
                (*by_name[cycle[0]].where, "inputs"),
                f"cycle {' -> '.join(cycle)}",
                f"each of these steps waits for the one before it; cycles are {_LATER}",
                "remove one of the references",
            )
        )
    for node in nodes:
        for where, text in (*node.inputs, *node.triggers):
            reference = _resolve(document, where, text, pipeline, by_name, found)
            if reference is None or (reference.node in cycle and node.name in cycle):
                continue
            wrong = (
                _input(node, reference, pipeline, by_name)
                if (where, text) in node.inputs
                else _trigger(node, reference, pipeline, by_name)
            )
            if wrong:
                found.append(document.problem(where, text, *wrong))
    _outputs(document, spec, by_name, found)
    return found


def _nodes(document: Document, spec: Mapping[str, object], kinds: Kinds, found: list[Problem]) -> Iterator[_Node]:
    for position, item in enumerate(_items(spec.get("steps"))):
        step = _mapping(item)
        where: Where = ("spec", "steps", position)
        roles = [role for role in _ROLES if step.get(role) is not None]
        if len(roles) != 1:
            found.append(
                document.problem(
                    where,
                    f"step {step.get('name', '')!s} has {' and '.join(roles) or 'no kind'}",
                    "a step is exactly one of detector, explainer and model",
                    "keep one of them" if roles else "add `detector:`, `explainer:` or `model:`",
                )
            )
        role = roles[0] if len(roles) == 1 else None
        node = _Node(
            name=str(step.get("name", "")),
            where=where,
            role=role,
            kind=_kind(document, where, step, kinds, found) if role == "detector" else None,
            inputs=_references(document, where, step, "inputs", found),
            triggers=_references(document, where, step, "triggers", found),
        )
        _role(document, node, step, found)
        if node.name:
            yield node


def _kind(
    document: Document, where: Where, step: Mapping[str, object], kinds: Kinds, found: list[Problem]
) -> Kind | None:
    type_ = _mapping(step["detector"]).get("type")
    if not isinstance(type_, str) or not type_:
        return None
    try:
        return kinds(type_)
    except GovernError as error:
        known = plugins.names(plugins.DETECTORS)
        fix = error.fix if type_ in known else suggest(type_, known, "use one of")
        found.append(document.problem((*where, "detector", "type"), error.what, error.why, fix))
        return None


def _references(
    document: Document, where: Where, step: Mapping[str, object], key: str, found: list[Problem]
) -> tuple[tuple[Where, str], ...]:
    here = (*where, key)
    value = step.get(key)
    if key in step and value in ((), None):
        fix = "name a reference, or leave the key out" + (
            " (the step then reads the pipeline's inputs)" * (key == "inputs")
        )
        found.append(document.problem(here, f"`{key}` is empty", "an empty list says nothing", fix, at_key=True))
    return tuple(((*here, position), item) for position, item in enumerate(_items(value)) if isinstance(item, str))


def _role(document: Document, node: _Node, step: Mapping[str, object], found: list[Problem]) -> None:
    if node.role == "explainer" and "triggers" not in step:
        found.append(
            document.problem(
                node.where,
                f"explainer step {node.name!r} has no triggers",
                f"explaining every inference is {_LATER}",
                "trigger it on flagged rows: triggers: [<outlier step>.outputs.outliers]",
            )
        )
    for key, roles, why in (
        ("triggers", ("explainer",), f"conditions on other steps than explainers are {_LATER}"),
        ("batch", ("detector",), "only detectors work on windows"),
    ):
        if key in step and node.role is not None and node.role not in roles:
            found.append(
                document.problem(
                    (*node.where, key), f"{node.role} step {node.name!r}", why, f"remove `{key}`", at_key=True
                )
            )


def _names(document: Document, pipeline: str, nodes: Sequence[_Node], found: list[Problem]) -> None:
    seen: set[str] = set()
    for node in nodes:
        where = (*node.where, "name")
        if node.name == pipeline:
            why = f"references such as {pipeline}.inputs would have two meanings"
            found.append(document.problem(where, f"step {node.name!r} has the pipeline's name", why, "rename the step"))
        if node.name in seen:
            why = "a step above has the same name"
            found.append(document.problem(where, f"step {node.name!r} comes twice", why, "rename one of them"))
        seen.add(node.name)


def _resolve(
    document: Document,
    where: Where,
    text: str,
    pipeline: str,
    nodes: Mapping[str, _Node],
    found: list[Problem],
) -> Reference | None:
    """The reference when what it names exists; else a problem is noted."""

    def refuse(why: str, fix: str) -> None:
        found.append(document.problem(where, text, why, fix))

    reference = parse(text)
    if reference is None:
        if ".step." in text:
            refuse(f"reading another pipeline's steps is {_LATER}", "read this pipeline's own steps")
        else:
            refuse("it is no reference", f"write {pipeline}.inputs or <step>.outputs.<tensor>")
        return None
    if reference.node == pipeline:
        if reference.side == "outputs":
            refuse("a pipeline's outputs are read from outside only", f"write {pipeline}.inputs or <step>.outputs")
            return None
        return reference
    node = nodes.get(reference.node)
    if node is None:
        refuse(f"there is no step {reference.node!r}", suggest(reference.node, [*nodes, pipeline], "the steps are"))
        return None
    if reference.side == "outputs" and reference.tensor and node.kind is not None:
        known = tensors(node.kind)
        if reference.tensor not in known:
            why = f"{node.kind} step {node.name!r} never emits {reference.tensor!r}"
            refuse(why, suggest(reference.tensor, known, f"{node.name} emits"))
            return None
    return reference


def _input(node: _Node, reference: Reference, pipeline: str, nodes: Mapping[str, _Node]) -> tuple[str, str] | None:
    """Why a step cannot read this, and what to write instead."""
    if reference.node == pipeline:
        if reference.tensor:
            return f"reading some of the features is {_LATER}", f"read all of them: {pipeline}.inputs"
        return None
    if reference.side == "inputs":
        return f"reading another step's inputs is {_LATER}", f"write {pipeline}.inputs"
    source = nodes[reference.node]
    if node.role == "detector" and source.role in ("model", None):
        return None
    if node.role == "explainer" and source.role == "detector" and source.kind in FLAGGED:
        fix = f"write triggers: [{source.name}.outputs.{FLAGGED[source.kind]}] and inputs: [{pipeline}.inputs]"
        return "an explainer reads the model's inputs and is triggered by flagged rows", fix
    fix = f"read {pipeline}.inputs" + (" or a model's outputs" if node.role == "detector" else "")
    return f"{source.role} outputs as input of a {node.role} step are {_LATER}", fix


def _trigger(node: _Node, reference: Reference, pipeline: str, nodes: Mapping[str, _Node]) -> tuple[str, str] | None:
    """Why a step cannot be triggered by this, and what to write instead."""
    if node.role != "explainer":
        return None
    flagging = [f"{one.name}.outputs.{FLAGGED[one.kind]}" for one in nodes.values() if one.kind in FLAGGED]
    example = flagging[0] if flagging else "<outlier step>.outputs.outliers"
    source = nodes.get(reference.node)
    if source is None or reference.side == "inputs":
        return f"it is there for every inference, and explaining all of them is {_LATER}", f"write {example}"
    if source.role is None or (source.role == "detector" and source.kind is None):
        return None
    if source.kind not in FLAGGED:
        return f"step {source.name!r} never flags single rows, so there is nothing to explain", f"write {example}"
    if reference.tensor != FLAGGED[source.kind]:
        why = f"it is emitted for every window, and explaining all rows is {_LATER}"
        return why, f"write {source.name}.outputs.{FLAGGED[source.kind]}, which is there only when rows were flagged"
    return None


def _outputs(document: Document, spec: Mapping[str, object], nodes: Mapping[str, _Node], found: list[Problem]) -> None:
    output = _mapping(spec.get("output"))
    where: Where = ("spec", "output", "steps")
    if "steps" in output and output["steps"] in ((), None):
        found.append(
            document.problem(where, "`steps` is empty", "the output needs a step", "name one, or remove `output`")
        )
    for position, item in enumerate(_items(output.get("steps"))):
        here = (*where, position)
        if not isinstance(item, str):
            continue
        node = nodes.get(item)
        if node is None:
            fix = suggest(item, list(nodes), "the steps are")
            found.append(document.problem(here, f"step {item!r} does not exist", "no step has this name", fix))
        elif node.role in ("model", "explainer"):
            why = f"it is a {node.role} step; the pipeline's output is made of verdicts"
            found.append(document.problem(here, f"step {item!r} gives no verdict", why, "name detector steps"))


def _cycle(nodes: Sequence[_Node]) -> tuple[str, ...]:
    """A cycle as the names on it, in the direction of the data, the first again at the end; () when there is none."""
    names = {node.name for node in nodes}
    graph: dict[str, set[str]] = {name: set() for name in names}
    for node in nodes:
        references = (parse(text) for _, text in (*node.inputs, *node.triggers))
        graph[node.name].update(one.node for one in references if one is not None and one.node in names)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return tuple(found)
    return ()


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _items(value: object) -> tuple[object, ...]:
    return value if isinstance(value, tuple) else ()
