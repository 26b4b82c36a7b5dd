"""Pipelines of govern that watch what serving graphs serve: one for each model whose inferences are captured.

The serving graph stays where it is. Its detectors become detector steps beside the model that they read, its triggered
explainers explainer steps; what else it does is reported, at its place in the manifest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from govern.pipeline.manifests.graph import DETECTOR_TYPES, Edge, Graph, Node
from govern.pipeline.manifests.labels import free
from govern.pipeline.references import FLAGGED
from govern.pipeline.spec import API_VERSION

_STAYS: Final = "the serving graph does this as before; each model's captured inferences are watched on their own"
_KEEP: Final = "keep it in the manifest that serves"
_WHOLE: Final = f"{_KEEP}, or import the graph whole: --models"


@dataclass(frozen=True, slots=True)
class _Beside:
    """A detector with the inputs that it keeps, or an explainer with the outlier steps that trigger it."""

    node: Node
    edges: tuple[Edge, ...]
    triggers: tuple[str, ...]


def watch(graphs: Sequence[Graph]) -> list[dict[str, Any]]:
    """Documents of kind Pipeline. What the graphs do beyond that is noted as losses of their parts."""
    taken: set[str] = set()
    watched: set[tuple[str, str, str]] = set()
    documents: list[dict[str, Any]] = []
    for graph in graphs:
        for loss in graph.unwatched:
            loss.note()
        models = [node for node in graph.nodes if node.role == "model"]
        beside = _beside(graph, models)
        for node in graph.nodes:
            if node.does:
                what = f"that {node.name!r} {node.does} is not imported"
                node.part.lose(None, what, _STAYS, _WHOLE)
        for model in models:
            for edge in (*model.inputs, *model.triggers):
                if edge in model.triggers or edge.reference.node != graph.name or edge.reference.tensor:
                    what = f"that {model.name!r} waits for {edge.reference.node} is not imported"
                    edge.part.lose(edge.key, what, _STAYS, _WHOLE)
            stream = (graph.namespace, model.service, model.name)
            if stream not in watched:
                watched.add(stream)
                documents.append(_document(graph, model, beside[model.name], len(models) == 1, taken))
    return documents


def _beside(graph: Graph, models: Sequence[Node]) -> dict[str, list[_Beside]]:
    """For each model the detectors and explainers that stand with it."""
    beside: dict[str, list[_Beside]] = {model.name: [] for model in models}
    #: The models that are given what the graph is given: a detector of the graph's inputs stands with the first.
    first = [model.name for model in models if all(edge.reference.node == graph.name for edge in model.inputs)]
    flagging: dict[str, tuple[str, str]] = {}  # outlier step -> its model, the tensor of its flagged rows
    for node in graph.nodes:
        if node.kind is None:
            continue
        direct = next((edge.reference.node for edge in node.inputs if edge.reference.node in beside), "")
        given = not node.inputs or any(edge.reference.node == graph.name for edge in node.inputs)
        near = direct or (first[0] if given and first else "")
        if not near:
            why = "it reads no model's inputs or outputs, and govern watches models"
            node.part.lose("name", f"detector {node.name!r} is not imported", why, "write its step by hand")
            continue
        sources = {near, graph.name} if near in first else {near}
        beside[near].append(_Beside(node, _read(node, near, sources, graph.name), ()))
        for edge in node.triggers:
            edge.part.lose(edge.key, f"{node.name!r} runs untriggered", "a detector judges every inference", _KEEP)
        if node.kind in FLAGGED:
            flagging[node.name] = near, FLAGGED[node.kind]
        why = "a manifest does not say which method a detector uses, and its artifact is of another format"
        fix = f"fit it with `govern fit`, or write the type that you want for {DETECTOR_TYPES[node.kind]}"
        node.part.lose("name", f"detector {node.name!r} is to be fitted again", why, fix)
    for node in (one for one in graph.nodes if one.role == "explainer"):
        near = next((flagging[e.reference.node][0] for e in node.triggers if e.reference.node in flagging), "")
        if not near:
            why = "an explainer runs when an outlier step flags rows, and none triggers it"
            fix = "trigger it: triggers: [<outlier step>.outputs.outliers]"
            node.part.lose("name", f"explainer {node.name!r} is not imported", why, fix)
            continue
        beside[near].append(_Beside(node, (), _triggers(node, near, flagging)))
        for edge in node.inputs:
            if near not in first or edge.reference.node != graph.name or edge.reference.tensor:
                edge.part.lose(edge.key, f"{node.name!r} reads the model's inputs", "it explains the model", _KEEP)
    return beside


def _read(node: Node, near: str, sources: set[str], graph: str) -> tuple[Edge, ...]:
    """The inputs that a detector keeps where it stands."""
    kept: list[Edge] = []
    for edge in node.inputs:
        if edge.reference.node not in sources or (edge.reference.node == graph and edge.reference.side == "outputs"):
            why = f"one pipeline watches one model, and the step stands with {near!r}"
            edge.part.lose(edge.key, f"{node.name!r} reads it no longer", why, "write a second step by hand")
            continue
        kept.append(edge)
        if edge.reference.tensor and edge.reference.side == "inputs":
            why = "a detector reads all features of its schema"
            edge.part.lose(edge.key, f"tensor {edge.reference.tensor!r}", why, "name the features in the schema")
    return tuple(kept)


def _triggers(node: Node, near: str, flagging: Mapping[str, tuple[str, str]]) -> tuple[str, ...]:
    """The outlier steps that trigger an explainer where it stands."""
    kept: list[str] = []
    for edge in node.triggers:
        source, tensor = flagging.get(edge.reference.node, ("", ""))
        if source != near:
            why = "an explainer runs when an outlier step beside it flags rows"
            edge.part.lose(edge.key, f"it triggers {node.name!r} no longer", why, _KEEP)
            continue
        kept.append(edge.reference.node)
        why = "Seldon's tensor is there for every request, this one only for rows that were flagged"
        fix = "nothing, if explanations of flagged rows are what you want"
        edge.part.lose(edge.key, f"it becomes {edge.reference.node}.outputs.{tensor}", why, fix)
    return tuple(dict.fromkeys(kept))


def _document(graph: Graph, model: Node, beside: Sequence[_Beside], alone: bool, taken: set[str]) -> dict[str, Any]:
    names: dict[str, str] = {}
    for node in (model, *(one.node for one in beside)):
        names[node.name] = free(node.name, set(names.values()))
    base = graph.name if alone else f"{graph.name}-{model.name}"
    name = free(base, taken | set(names.values()), suffix="watch")
    taken.add(name)
    kinds = {one.node.name: one.node.kind for one in beside}
    made: list[dict[str, Any]] = [{"name": names[model.name], "model": {"captured": True}}]
    for one in beside:
        step: dict[str, Any] = {"name": names[one.node.name]}
        if one.node.kind is not None:
            artifact = f"artifacts/{name}/{names[one.node.name]}"
            step["detector"] = {"type": DETECTOR_TYPES[one.node.kind], "artifact": artifact}
            inputs = dict.fromkeys(_reference(edge, name, model, names) for edge in one.edges)
            step["inputs"] = [*inputs] or [f"{name}.inputs"]
            flags = one.node.kind in FLAGGED
            window = {key: value for key, value in one.node.batch.items() if key != "rolling" or not flags}
            step |= {"batch": window} if window else {}
        else:
            step["explainer"] = {"name": one.node.name}
            step["inputs"] = [f"{name}.inputs"]
            step["triggers"] = [f"{names[by]}.outputs.{FLAGGED[kind]}" for by in one.triggers if (kind := kinds[by])]
        made.append(step)
    return {
        "apiVersion": API_VERSION,
        "kind": "Pipeline",
        "metadata": {"name": name, "namespace": free(graph.namespace, set())},
        "spec": {
            "source": {"service": model.service, "model": model.name},
            "schema": f"schemas/{name}.yaml",
            "steps": made,
        },
    }


def _reference(edge: Edge, pipeline: str, model: Node, names: dict[str, str]) -> str:
    if edge.reference.node != model.name or edge.reference.side == "inputs":
        return f"{pipeline}.inputs"
    return ".".join(filter(None, (names[model.name], "outputs", edge.reference.tensor)))
