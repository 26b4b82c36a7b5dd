"""Seldon Core v2: `Model`, `Pipeline` and `Experiment` of mlops.seldon.io/v1alpha1."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from govern.pipeline.manifests.flow import Call, Flow, Given
from govern.pipeline.manifests.graph import JOINS, Edge, Graph, Joins, Node, Role
from govern.pipeline.manifests.manifest import Loss, Part
from govern.pipeline.manifests.seldon_v2_flow import write
from govern.pipeline.references import FLAGGED, parse
from govern.record import Kind

#: How Seldon serves a model, and nothing of what the model is in a graph.
_SERVING: Final = frozenset(
    {
        "storageUri",
        "memory",
        "server",
        "replicas",
        "minReplicas",
        "maxReplicas",
        "dedicated",
        "preloaded",
        "parameters",
        "modelType",
        "artifactVersion",
        "schemaUri",
        "secretName",
        "dataflow",
    }
)
_STAYS: Final = "Seldon runs its graph as before; govern watches each model's captured inferences on their own"
_KEEP: Final = "keep it in Seldon's manifest"
_WHOLE: Final = "keep it in Seldon's manifest, or import the graph whole: --models"
#: Tensors by which Seldon's detectors tell what they are, in the order of what is the surer sign.
_TENSORS: Final[Mapping[str, Kind]] = {"is_drift": "drift", "is_outlier": "outlier"}
_WORDS: Final[Mapping[str, Kind]] = {"drift": "drift", "outlier": "outlier", "adversarial": "adversarial"}


@dataclass(frozen=True, slots=True)
class Model:
    name: str
    namespace: str
    part: Part
    spec: Part
    role: Role
    kind: Kind | None
    explains: str


def read_model(root: Part, name: str, namespace: str) -> Model:
    spec = root.part("spec")
    if spec is None:
        raise root.error(None, f"Model {name!r} has no spec", "there is nothing to import", "add `spec:`")
    requirements = spec.texts("requirements")
    explainer = spec.part("explainer")
    explains = ""
    role: Role = "model"
    kind: Kind | None = None
    if explainer is not None:
        role, explains = "explainer", explainer.text("modelRef") or explainer.text("pipelineRef")
        explainer.text("type")
        explainer.text("modelRef")
        explainer.text("pipelineRef")
        explainer.rest("an explainer of Seldon")
        if not explains:
            why = "it names neither a modelRef nor a pipelineRef"
            raise spec.error("explainer", "it explains nothing", why, "add `modelRef:` or `pipelineRef:`")
    elif "alibi-detect" in requirements:
        role = "detector"
        words = re.findall(r"[a-z]+", f"{name} {spec.text('storageUri')}".lower())
        kind = next((_WORDS[word] for word in words if word in _WORDS), None)
    logger = spec.part("logger")
    if logger is not None:
        logger.unmapped("percent", "sampling belongs to capture", "set `sampling.rate` of `govern mirror`")
        logger.rest("a logger of Seldon")
    spec.unmapped("llm", "prompts are no part of a pipeline", _KEEP)
    spec.rest("a Model", _SERVING)
    return Model(name, namespace, root, spec, role, kind, explains)


def read_pipeline(root: Part, name: str, namespace: str, models: Mapping[str, Model]) -> Graph:
    spec = root.part("spec")
    steps = spec.parts("steps") if spec is not None else ()
    if spec is None or not steps:
        raise root.error("spec", f"Pipeline {name!r} has no steps", "there is nothing to import", "add `steps:`")
    unwatched: list[Loss] = []
    outer, output = spec.part("input"), spec.part("output")
    emitted = _emitted(steps)
    nodes = tuple(_step(step, name, models, emitted, unwatched) for step in steps)
    names = [node.name for node in nodes]
    for node in nodes:
        if node.name == name or names.count(node.name) > 1:
            why = "a step has the pipeline's name" if node.name == name else "another step has the same name"
            raise node.part.error("name", f"step {node.name!r}", why, "rename it")
        for edge in (*node.inputs, *node.triggers):
            if edge.reference.node not in (name, *names):
                why = f"there is no step {edge.reference.node!r}"
                raise edge.part.error(edge.key, f"step {node.name!r}", why, "correct the reference")
    flow = write(name, spec, nodes, outer, output)
    for key in ("allowCycles", "maxStepRevisits"):
        unwatched += spec.unsaid(key, _STAYS, _WHOLE)
    if outer is not None:
        for key in ("externalInputs", "externalTriggers", "joinType", "triggersJoinType", "joinWindowMs", "tensorMap"):
            unwatched += outer.unsaid(key, f"chains of pipelines are not imported; {_STAYS}", _WHOLE)
        outer.rest("the input of a Pipeline")
    if output is not None:
        for key in ("steps", "stepsJoin", "joinWindowMs", "tensorMap"):
            why = "it makes Seldon's answer; a pipeline of govern gives the verdicts of its detectors"
            unwatched += output.unsaid(key, why, _WHOLE)
        output.rest("the output of a Pipeline")
    spec.rest("a Pipeline", {"dataflow"})
    return Graph(name, namespace, root, nodes, flow, tuple(unwatched))


def standalone(models: Mapping[str, Model], graphs: Sequence[Graph]) -> list[Graph]:
    """A graph for each model that no pipeline names; detectors and explainers among them have nothing to watch."""
    used = {node.name for graph in graphs for node in graph.nodes}
    found: list[Graph] = []
    for model in models.values():
        if model.name in used:
            continue
        if model.role == "model":
            node = Node(model.name, model.part, "model", service=model.name)
            flow = Flow(model.name)
            flow.end(flow.step(model.name, {"model": Call(model.name, model.name)}, Given()))
            found.append(Graph(model.name, model.namespace, model.part, (node,), flow))
        elif model.role == "detector":
            why = "no pipeline of these files has it as a step, so nothing says what it reads"
            model.part.lose(None, f"detector {model.name!r} is not imported", why, "import it with its Pipeline")
        else:
            why = f"it explains {model.explains} on demand, which is no step of a pipeline"
            fix = "serve it: `govern explain fit`, `govern explain serve`, or trigger an explainer step"
            model.spec.lose("explainer", f"explainer {model.name!r} is not imported", why, fix)
    return found


def read_experiment(root: Part, name: str) -> None:
    spec = root.part("spec")
    if spec is None or not spec.parts("candidates"):
        raise root.error("spec", f"Experiment {name!r} has no candidates", "there is nothing to import", "add them")
    for candidate in spec.parts("candidates"):
        candidate.name()
        candidate.unmapped("weight", "Seldon splits the traffic; each candidate's inferences are watched", _KEEP)
        candidate.rest("a candidate of an Experiment")
    mirror = spec.part("mirror")
    if mirror is not None:
        mirror.name()
        mirror.unmapped("percent", "Seldon copies the traffic; a mirror's inferences are watched as any", _KEEP)
        mirror.rest("the mirror of an Experiment")
    spec.text("default")
    spec.rest("an Experiment", {"resourceType"})


def _step(
    step: Part, pipeline: str, models: Mapping[str, Model], emitted: Mapping[str, Kind], unwatched: list[Loss]
) -> Node:
    name = step.name()
    model = models.get(name)
    role: Role = model.role if model is not None else "model"
    kind = emitted.get(name) or (model.kind if model is not None else None)
    if model is None:
        if name in emitted:
            role = "detector"
    elif role == "detector" and kind is None:
        role = "model"
        why = "nothing tells whether it finds drift or outliers: no step reads its tensors, and its name says neither"
        step.lose("name", f"detector {name!r} is imported as a model", why, "write its detector step by hand")
    batch = step.part("batch")
    window: dict[str, int | bool] = {}
    if batch is not None:
        window = {key: value for key in ("size", "windowMs") if (value := batch.number(key))}
        if batch.flag("rolling"):
            window["rolling"] = True
        if role == "detector":
            if "rolling" in window and kind in FLAGGED:
                why = "each row is judged once, by itself"
                fix = "nothing: it would change no row's verdict"
                unwatched.append(Loss(batch, "rolling", "`rolling` is not imported", why, fix))
        else:
            for key in ("size", "windowMs", "rolling"):
                unwatched += batch.unsaid(key, _STAYS, _WHOLE)
        batch.rest("a batch")
    joins = Joins(
        inputs=step.one_of("inputsJoinType", JOINS),
        triggers=step.one_of("triggersJoinType", JOINS),
        window_ms=step.number("joinWindowMs"),
        tensor_map=step.texts_by_name("tensorMap"),
    )
    why = "a detector reads whole inferences, which need no join" if role == "detector" else _STAYS
    for key in ("inputsJoinType", "triggersJoinType", "joinWindowMs", "tensorMap"):
        unwatched += step.unsaid(key, why, _WHOLE)
    node = Node(
        name,
        step,
        role,
        service=pipeline,
        kind=kind if role == "detector" else None,
        inputs=_edges(step, "inputs"),
        triggers=_edges(step, "triggers"),
        batch=window,
        joins=joins,
    )
    step.rest("a step of a Pipeline")
    return node


def _edges(step: Part, key: str) -> tuple[Edge, ...]:
    found: list[Edge] = []
    for at, text in enumerate(step.texts(key)):
        reference = parse(text)
        if reference is None:
            fix = "write <step>.outputs.<tensor>"
            raise step.error(f"{key}.{at}", text, "it is no reference to this pipeline or its steps", fix)
        found.append(Edge(step, f"{key}.{at}", reference))
    return tuple(found)


def _emitted(steps: Sequence[Part]) -> dict[str, Kind]:
    """What steps are, by the tensors that others read of them."""
    references = (parse(text) for step in steps for key in ("inputs", "triggers") for text in step.texts(key))
    return {one.node: _TENSORS[one.tensor] for one in references if one is not None and one.tensor in _TENSORS}
