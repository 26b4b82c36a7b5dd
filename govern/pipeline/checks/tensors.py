"""What is declared of tensors, held against each other: names, datatypes and shapes along the graph.

Declared are the `inputs` and `outputs` of models and transformers, and the features of the schema. Where nothing is
declared nothing is said; a shape's -1 goes with any size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from govern.pipeline.checks.places import place, step_place, words
from govern.pipeline.checks.steps import EXPLANATION
from govern.pipeline.document import Document
from govern.pipeline.errors import Problem, suggest
from govern.pipeline.graph import Graph, Node, Port, Topic
from govern.pipeline.references import tensors
from govern.pipeline.spec import TensorSpec, Typed
from govern.schema import FeatureSchema

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Known:
    """A tensor as far as it is declared.

    Attributes:
        origin: reference by which it is read.
        datatype: "" when it is not known.
        shape: None when it is not known.
        sure: whether it is there whenever its step has run.
    """

    origin: str
    datatype: str = ""
    shape: Shape | None = None
    sure: bool = True


@dataclass(frozen=True, slots=True)
class Arrival:
    """What one input brings.

    Attributes:
        tensors: under the names that the step receives.
        complete: whether it brings no others.
    """

    port: Port
    tensors: Mapping[str, Known] = field(default_factory=dict)
    complete: bool = False


def check(document: Document, one: Graph, schema: FeatureSchema | None, *, watching: bool = False) -> list[Problem]:
    """All contradictions between declarations.

    Args:
        schema: None when the pipeline has none, or it cannot be read yet.
        watching: the schema is that of a captured stream; a detector of what called steps return has one of its own.
    """
    found: list[Problem] = []
    for node in one.nodes:
        arrivals = [_arrival(port, one, schema) for port in node.inputs]
        if node.inputs_join == "inner" and node.role != "combiner":
            found += _twice(document, one, node, arrivals)
        # Of any only one input arrives, so that each must do alone.
        groups = [[arrival] for arrival in arrivals] if node.inputs_join == "any" else [arrivals]
        problems: dict[str, Problem] = {}
        for group in groups:
            for problem in _received(document, one, node, group, schema, watching):
                problems.setdefault(problem.field, problem)
        found += problems.values()
    return found


def _received(
    document: Document,
    one: Graph,
    node: Node,
    arrivals: Sequence[Arrival],
    schema: FeatureSchema | None,
    watching: bool,
) -> Iterator[Problem]:
    typed = (node.step.model or node.step.transformer) if node.step is not None else None
    if typed is not None and typed.inputs is not None:
        yield from _declared(document, one, node, typed.inputs, arrivals, schema)
    if node.role == "detector" and schema is not None and not watching:
        yield from _features(document, one, node, arrivals, schema)
    if node.role == "combiner":
        yield from _combined(document, one, node, arrivals)


def _arrival(port: Port, one: Graph, schema: FeatureSchema | None) -> Arrival:
    known, complete = _known(port.topic, one, schema)
    chosen = {
        port.names.get(name, name): Known(f"{_text(port)}{'' if port.tensor else f'.{name}'}", *tensor)
        for name, tensor in known.items()
        if port.tensor in ("", name)
    }
    if port.tensor and not chosen:
        chosen[port.names.get(port.tensor, port.tensor)] = Known(port.text)
    return Arrival(port, chosen, complete or bool(port.tensor))


def _known(
    topic: Topic, one: Graph, schema: FeatureSchema | None
) -> tuple[dict[str, tuple[str, Shape | None, bool]], bool]:
    """Name -> (datatype, shape, sure) of what is declared to be on a topic, and whether there is nothing else."""
    node = one.writer(topic)
    if topic == one.entry:
        # Columns also come as one tensor of all of them, under any name.
        return ({one.name: (one.datatype, None, True) for one in schema.features} if schema is not None else {}), False
    if node is None or node.step is None or topic == node.takes:
        return {}, False
    step = node.step
    typed = step.model or step.transformer
    if typed is not None and typed.outputs is not None:
        return {spec.name: (spec.datatype, spec.shape, _sure(spec, typed)) for spec in typed.outputs}, True
    if step.router is not None:
        return {route.name: ("BOOL", (1,), False) for route in step.router.routes}, True
    if step.combiner is not None:
        return {step.combiner.output: ("", None, True)}, True
    if step.explainer is not None:
        return {EXPLANATION: ("", None, True)}, True
    if node.kind is not None:
        return dict.fromkeys(tensors(node.kind), ("", None, True)), True
    return {}, False


def _sure(spec: TensorSpec, typed: Typed) -> bool:
    return not spec.optional and spec.name not in typed.one_of


def _twice(document: Document, one: Graph, node: Node, arrivals: Sequence[Arrival]) -> Iterator[Problem]:
    seen: dict[str, Known] = {}
    for arrival in arrivals:
        for name, tensor in arrival.tensors.items():
            other = seen.setdefault(name, tensor)
            if other is tensor or not (other.sure and tensor.sure):
                continue
            what = f"tensor {name!r} arrives twice"
            why = f"{other.origin} brings it, and {tensor.origin} does too"
            fix = f"rename one of them: tensorMap: {{{tensor.origin}: <new name>}}"
            yield document.problem(place(one, node, arrival.port), what, why, fix)
            break


def _declared(
    document: Document,
    one: Graph,
    node: Node,
    specs: Sequence[TensorSpec],
    arrivals: Sequence[Arrival],
    schema: FeatureSchema | None,
) -> Iterator[Problem]:
    """The declared inputs of a model or transformer that do not arrive, or arrive as something else."""
    arriving = {name: tensor for arrival in arrivals for name, tensor in arrival.tensors.items()}
    complete = all(arrival.complete for arrival in arrivals)
    for position, spec in enumerate(specs):
        where = (*step_place(one, node), node.role, "inputs", position)
        tensor = arriving.get(spec.name)
        if tensor is not None:
            said = _differs(spec, tensor)
            if said:
                what = f"{words(node)} takes {spec.name!r} as {said[0]}"
                fix = "correct the declaration that is wrong, or convert it in a transformer between them"
                yield document.problem(where, what, f"{tensor.origin} is {said[1]}", fix)
        elif complete and not spec.optional:
            fix = suggest(spec.name, list(arriving), "what arrives is")
            if len(arriving) == 1:
                (only,) = arriving.values()
                fix = f"rename what arrives: tensorMap: {{{only.origin}: {spec.name}}}"
            what = f"{words(node)} never receives {spec.name!r}"
            why = f"its inputs bring {', '.join(arriving) or 'nothing'}"
            yield document.problem(where, what, why, fix)
        elif len(specs) == 1 and schema is not None and [arrival.port.topic for arrival in arrivals] == [one.entry]:
            wide = _wide(spec.shape, schema)
            if wide:
                what = f"{words(node)} takes {spec.name!r} with {wide} columns"
                fix = "correct `shape`, or the schema"
                yield document.problem(where, what, f"the schema has {len(schema.features)} features", fix)


def _features(
    document: Document, one: Graph, node: Node, arrivals: Sequence[Arrival], schema: FeatureSchema
) -> Iterator[Problem]:
    """A detector's features that what it reads lacks, or has as text instead of numbers."""
    if not all(arrival.complete and _called(arrival.port, one) for arrival in arrivals):
        return
    arriving = {name: tensor for arrival in arrivals for name, tensor in arrival.tensors.items()}
    where = place(one, node, arrivals[0].port)
    if len(arriving) == 1 and not arriving.keys() & set(schema.names):
        (tensor,) = arriving.values()
        wide = _wide(tensor.shape, schema)
        if wide:
            what = f"{words(node)} reads {wide} columns of {tensor.origin}"
            fix = "correct the declared `shape`, or the schema"
            yield document.problem(where, what, f"the schema has {len(schema.features)} features", fix)
        if tensor.shape is None or len(tensor.shape) == 2:
            return
    missing = [name for name in schema.names if name not in arriving]
    if missing:
        what = f"{words(node)} never receives feature {', '.join(map(repr, missing))}"
        why = f"its inputs bring {', '.join(arriving) or 'nothing'}"
        yield document.problem(where, what, why, "read a step that returns it, or rename tensors with tensorMap")
    for feature in schema.features:
        given = arriving[feature.name].datatype if feature.name in arriving else ""
        if given and (given == "BYTES") != (feature.datatype == "BYTES"):
            what = f"{words(node)} reads feature {feature.name!r} as {given}"
            why = f"the schema has it as {feature.datatype}"
            yield document.problem(where, what, why, "correct the declaration that is wrong")


def _called(port: Port, one: Graph) -> bool:
    """Whether it is read of a step that is called: beside a captured model a detector has the whole inference."""
    writer = one.writer(port.topic)
    return (
        writer is not None
        and writer.step is not None
        and (
            writer.step.transformer is not None or (writer.step.model is not None and writer.step.model.url is not None)
        )
    )


def _combined(document: Document, one: Graph, node: Node, arrivals: Sequence[Arrival]) -> Iterator[Problem]:
    """Inputs that bring more than one tensor, and tensors that cannot be taken element by element."""
    combiner = node.step.combiner if node.step is not None else None
    assert combiner is not None, "a combiner is a step with that section"
    first = Known("")
    for arrival in arrivals:
        where = place(one, node, arrival.port)
        sure = [name for name, tensor in arrival.tensors.items() if tensor.sure]
        if len(sure) > 1 and arrival.complete:
            what, why = f"{arrival.port.text} brings {', '.join(sure)}", "a combiner takes one tensor of each input"
            yield document.problem(where, what, why, f"name it: {_text(arrival.port)}.<tensor>")
            continue
        for tensor in arrival.tensors.values():
            if combiner.method != "vote" and tensor.datatype == "BYTES":
                what, why = f"{tensor.origin} is BYTES", f"{combiner.method} needs numbers"
                yield document.problem(where, what, why, "write method: vote, or read another tensor")
            elif not _fits(first.shape, tensor.shape):
                what = f"{tensor.origin} has shape {_shown(tensor.shape)}"
                why = f"{first.origin} has shape {_shown(first.shape)}, and they are combined element by element"
                yield document.problem(where, what, why, "read tensors of one shape")
            elif combiner.method == "vote" and first.datatype and tensor.datatype not in ("", first.datatype):
                what, why = f"{tensor.origin} is {tensor.datatype}", f"{first.origin} is {first.datatype}"
                yield document.problem(where, what, why, "let all inputs of a vote have one datatype")
            first = first if first.datatype and first.shape is not None else tensor


def _differs(spec: TensorSpec, tensor: Known) -> tuple[str, str] | None:
    """What a declared input is and what arrives instead."""
    if tensor.datatype and tensor.datatype != spec.datatype:
        return spec.datatype, tensor.datatype
    if not _fits(spec.shape, tensor.shape):
        return _shown(spec.shape), _shown(tensor.shape)
    return None


def _fits(one: Shape | None, other: Shape | None) -> bool:
    if one is None or other is None:
        return True
    if len(one) != len(other):
        return False
    return all(-1 in (left, right) or left == right for left, right in zip(one, other, strict=True))


def _wide(shape: Shape | None, schema: FeatureSchema) -> int:
    """The columns of a table that are not as many as the schema's features; 0 when they are, or are not known."""
    if shape is None or len(shape) != 2 or shape[1] in (-1, len(schema.features)):
        return 0
    return shape[1]


def _shown(shape: Shape | None) -> str:
    return str(list(shape)) if shape is not None else "any"


def _text(port: Port) -> str:
    """The reference with its side, so that a tensor's name can follow."""
    return str(port.topic) if not port.text else port.text if "." in port.text else f"{port.text}.outputs"
