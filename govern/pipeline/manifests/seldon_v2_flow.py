"""A Pipeline of Seldon Core v2 as a pipeline that calls its models: the same graph in the same words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from govern.pipeline.manifests.flow import Call, Flow
from govern.pipeline.manifests.graph import DETECTOR_TYPES, JOINS, Edge, Joins, Node
from govern.pipeline.manifests.manifest import Loss, Part
from govern.pipeline.references import Reference, parse, parse_external, tensors


def write(pipeline: str, spec: Part, nodes: Sequence[Node], outer: Part | None, output: Part | None) -> Flow:
    """The steps of a Pipeline, and what stands beside them."""
    flow = Flow(pipeline)
    writer = _Writer(flow, pipeline, nodes)
    for node in nodes:
        flow.steps.append(writer.step(node))
    if any(node.kind is not None for node in nodes):
        flow.spec["schema"] = f"schemas/{flow.pipeline}.yaml"
    cycles, revisits = spec.flag("allowCycles"), spec.number("maxStepRevisits")
    if cycles:
        flow.spec["allowCycles"] = True
        flow.spec |= {"maxStepRevisits": revisits} if revisits is not None else {}
    elif revisits:
        why = "no step is visited twice in a graph without cycles"
        flow.losses.append(Loss(spec, "maxStepRevisits", "`maxStepRevisits` is not imported", why, "remove it"))
    dataflow = spec.part("dataflow")
    if dataflow is not None and dataflow.flag("cleanTopicsOnDelete"):
        flow.spec["dataflow"] = {"cleanTopicsOnDelete": True}
    if outer is not None:
        flow.spec |= {"input": given} if (given := _input(outer)) else {}
    if output is not None:
        flow.spec |= {"output": given} if (given := writer.output(output)) else {}
    return flow


class _Writer:
    def __init__(self, flow: Flow, pipeline: str, nodes: Sequence[Node]) -> None:
        self._flow = flow
        self._nodes = {node.name: node for node in nodes}
        self._names = {pipeline: flow.pipeline}
        for node in nodes:
            self._names[node.name] = node.name if node.name not in self._names.values() else flow.name(node.name)
            flow.steps.append({"name": self._names[node.name]})
        flow.steps.clear()

    def step(self, node: Node) -> dict[str, Any]:
        name = self._names[node.name]
        step: dict[str, Any] = {"name": name, **self._section(node, name)}
        joins = node.joins or Joins()
        inputs = list(self._kept(node.inputs))
        triggers = list(self._kept(node.triggers))
        step |= _said(
            inputs=list(dict.fromkeys(self._text(edge.reference) for edge in inputs)),
            inputsJoinType=joins.inputs,
            joinWindowMs=joins.window_ms,
            tensorMap=self._renamed(node.part, joins.tensor_map, [edge.reference for edge in inputs]),
            triggers=list(dict.fromkeys(self._text(edge.reference) for edge in triggers)),
            triggersJoinType=joins.triggers,
            batch=dict(node.batch),
        )
        return step

    def output(self, output: Part) -> dict[str, Any]:
        kept: list[Reference] = []
        for position, text in enumerate(output.texts("steps")):
            reference = parse(text)
            if reference is None or reference.node not in self._nodes:
                why = "there is no such step" if reference is not None else "it is no reference to a step"
                raise output.error(f"steps.{position}", text, why, f"the steps are: {', '.join(self._nodes)}")
            kept += [edge.reference for edge in self._kept([Edge(output, f"steps.{position}", reference)])]
        return _said(
            steps=list(dict.fromkeys(self._text(one) for one in kept)),
            stepsJoin=output.one_of("stepsJoin", JOINS),
            joinWindowMs=output.number("joinWindowMs"),
            tensorMap=self._renamed(output, output.texts_by_name("tensorMap"), kept),
        )

    def _section(self, node: Node, name: str) -> dict[str, Any]:
        if node.kind is not None:
            why = "a manifest does not say which method a detector uses, and its artifact is of another format"
            fix = f"fit it with `govern fit`, or write the type that you want for {DETECTOR_TYPES[node.kind]}"
            self._lose(node.part, "name", f"detector {node.name!r} is to be fitted again", why, fix)
            artifact = f"artifacts/{self._flow.pipeline}/{name}"
            return {"detector": {"type": DETECTOR_TYPES[node.kind], "artifact": artifact}}
        if node.role == "explainer":
            why = "its artifact is of another format"
            fix = "fit and serve it under this name: `govern explain fit`, `govern explain serve`"
            self._lose(node.part, "name", f"explainer {node.name!r} is to be fitted again", why, fix)
            return {"explainer": {"name": node.name}}
        return {"model": Call(node.service, node.name)}

    def _kept(self, edges: Sequence[Edge]) -> Iterator[Edge]:
        """Those that read what is there: Seldon's detectors give more than these do."""
        for edge in edges:
            node = self._nodes.get(edge.reference.node)
            known = tensors(node.kind) if node is not None and node.kind is not None else ()
            tensor = edge.reference.tensor if edge.reference.side == "outputs" else ""
            if tensor and known and tensor not in known:
                why = f"a detector here emits {', '.join(known)}"
                self._lose(edge.part, edge.key, f"tensor {tensor!r} is read no longer", why, "read one of these")
                continue
            yield edge

    def _text(self, reference: Reference) -> str:
        return str(replace(reference, node=self._names[reference.node]))

    def _renamed(self, part: Part, tensor_map: Mapping[str, str], inputs: Sequence[Reference]) -> dict[str, str]:
        found: dict[str, str] = {}
        for text, name in tensor_map.items():
            reference = parse(text)
            if reference is None or not any(
                reference.tensor and reference.same_side(one) and one.tensor in ("", reference.tensor) for one in inputs
            ):
                why = "it is no tensor of the inputs, so it would rename nothing"
                self._lose(part, "tensorMap", f"{text} is not renamed", why, "write <step>.outputs.<tensor>")
                continue
            found[self._text(reference)] = name
        return found

    def _lose(self, part: Part, key: str | int, what: str, why: str, fix: str) -> None:
        self._flow.losses.append(Loss(part, key, what, why, fix))


def _input(outer: Part) -> dict[str, Any]:
    for key in ("externalInputs", "externalTriggers"):
        for position, text in enumerate(outer.texts(key)):
            if parse_external(text) is None:
                fix = "write <pipeline>.outputs or <pipeline>.step.<step>.outputs.<tensor>"
                raise outer.error(f"{key}.{position}", text, "it is no reference to another pipeline", fix)
    return _said(
        externalInputs=list(dict.fromkeys(outer.texts("externalInputs"))),
        joinType=outer.one_of("joinType", JOINS),
        joinWindowMs=outer.number("joinWindowMs"),
        externalTriggers=list(dict.fromkeys(outer.texts("externalTriggers"))),
        triggersJoinType=outer.one_of("triggersJoinType", JOINS),
        tensorMap=outer.texts_by_name("tensorMap"),
    )


def _said(**keys: object) -> dict[str, Any]:
    """Those keys that say something."""
    return {key: value for key, value in keys.items() if value not in (None, "", [], {})}
