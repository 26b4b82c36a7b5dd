"""Seldon Core v1: the graphs of a `SeldonDeployment` of machinelearning.seldon.io."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from govern.pipeline.manifests.flow import Flow, Given, Unsayable, first_of
from govern.pipeline.manifests.graph import Graph, Node, Role
from govern.pipeline.manifests.logger import read_logger
from govern.pipeline.manifests.manifest import Loss, Part
from govern.pipeline.manifests.seldon_v1_unit import Unit

_STAYS: Final = "Seldon runs its graph as before; govern watches each model's captured inferences on their own"
_KEEP: Final = "keep it in Seldon's manifest"
_WHOLE: Final = "keep it in Seldon's manifest, or import the graph whole: --models"
_ROLES: Final[dict[str, tuple[Role, str]]] = {
    "MODEL": ("model", ""),
    "ROUTER": ("router", "chooses one of its children"),
    "COMBINER": ("combiner", "joins the answers of its children"),
    "TRANSFORMER": ("transformer", "changes the request"),
    "OUTPUT_TRANSFORMER": ("transformer", "changes the answer"),
}
#: Implementations that Seldon brings itself, and what they do where a node gives no type.
_TYPE_OF: Final = {"RANDOM_ABTEST": "ROUTER", "SIMPLE_ROUTER": "ROUTER", "AVERAGE_COMBINER": "COMBINER"}
#: How Seldon deploys a component, and nothing of what the component is in a graph.
_PLATFORM: Final = frozenset(
    {
        "endpoint",
        "modelUri",
        "serviceAccountName",
        "envSecretRefName",
        "storageInitializerImage",
        "parameters",
        "methods",
    }
)
#: Names of the protocol that a pipeline calls models over.
_V2: Final = ("v2", "kfserving", "oip")
_DEPLOYMENT: Final = frozenset(
    {
        "name",
        "transport",
        "replicas",
        "serverType",
        "annotations",
    }
)
_PREDICTOR: Final = frozenset(
    {
        "componentSpecs",
        "replicas",
        "annotations",
        "engineResources",
        "labels",
        "svcOrchSpec",
        "ssl",
    }
)


def read_deployment(root: Part, name: str, namespace: str) -> Graph:
    spec = root.part("spec")
    predictors = spec.parts("predictors") if spec is not None else ()
    if spec is None or not predictors:
        why = "there is nothing to import"
        raise root.error("spec", f"SeldonDeployment {name!r} has no predictors", why, "add `predictors:`")
    nodes: list[Node] = []
    unwatched: list[Loss] = []
    flow = Flow(name)
    protocol = spec.text("protocol", "seldon")
    if protocol not in _V2:
        why = f"its components speak protocol {protocol!r}, and a pipeline calls models over V2"
        fix = "write protocol: v2, if the components can speak it"
        flow.losses.append(Loss(spec, "protocol" if spec.has("protocol") else None, "calls will fail", why, fix))
    units: list[Unit] = []
    weights: list[int] = []
    for predictor in predictors:
        called = predictor.text("name")
        if len(predictors) > 1:
            why = "Seldon splits the traffic; the endpoint stands in each record"
            unwatched += predictor.unsaid("traffic", why, _WHOLE)
        weights.append(predictor.number("traffic") or 0)
        unwatched += predictor.unsaid("shadow", "Seldon copies the traffic; the endpoint stands in each record", _WHOLE)
        shadow = predictor.flag("shadow")
        explainer = predictor.part("explainer")
        if explainer is not None:
            why = f"{explainer.text('type') or 'it'} explains on demand, which is no step of a pipeline"
            fix = "serve one: `govern explain fit`, `govern explain serve`, or trigger an explainer step"
            predictor.lose("explainer", "`explainer` is not imported", why, fix)
        graph = predictor.part("graph")
        if graph is None:
            raise predictor.error(None, f"predictor {called!r} has no graph", "there is nothing to import", "add it")
        units.append(_unit(graph, name, nodes, unwatched, called or f"predictor-{len(units)}", shadow=shadow))
        predictor.rest("a predictor", _PREDICTOR)
    spec.rest("a SeldonDeployment", _DEPLOYMENT)
    return Graph(name, namespace, root, tuple(nodes), _written(flow, units, weights), tuple(unwatched))


def _written(flow: Flow, units: Sequence[Unit], weights: Sequence[int]) -> Flow | Loss:
    try:
        _write(flow, units, weights)
    except Unsayable as error:
        return error.loss
    return flow


def _write(flow: Flow, units: Sequence[Unit], weights: Sequence[int]) -> None:
    """All predictors: one of those that answer, by their traffic, and those in the shadow besides."""
    answering = [(one, weight) for one, weight in zip(units, weights, strict=True) if not one.shadow]
    given = [Given()] * len(answering)
    if len(answering) > 1:
        even = not any(weight for _, weight in answering)
        router = {"strategy": "weighted", "weights": [1 if even else weight for _, weight in answering]}
        given = flow.route("predictors", router, [one.predictor for one, _ in answering], Given())
    flow.end(first_of([one.write(flow, its) for (one, _), its in zip(answering, given, strict=True)]))
    for one in units:
        if one.shadow:
            one.write(flow, Given())
    if not answering:
        del flow.spec["output"]


def _unit(
    unit: Part, deployment: str, nodes: list[Node], unwatched: list[Loss], predictor: str, *, shadow: bool
) -> Unit:
    name = unit.name()
    implementation = unit.text("implementation")
    type_ = unit.text("type") or _TYPE_OF.get(implementation, "MODEL")
    if type_ not in _ROLES:
        fix = f"write one of {', '.join(_ROLES)}"
        raise unit.error("type", f"node {name!r} is of type {type_!r}", "govern knows no such type", fix)
    role, does = _ROLES[type_]
    same = next((node for node in nodes if node.name == name), None)
    if same is None:
        nodes.append(Node(name, unit, role, service=deployment, does=does))
    else:
        what = f"node {name!r} comes twice"
        why = "a node above has this name, and their records differ by endpoint only: one pipeline watches both"
        unwatched.append(Loss(unit, "name", what, why, "rename one of them if they are to be told apart"))
    read_logger(unit)
    parameters = {one.text("name"): one.text("value") for one in unit.parts("parameters")} if role == "router" else {}
    children = unit.parts("children")
    if children and role == "model":
        names = ", ".join(child.text("name") for child in children)
        unwatched.append(Loss(unit, "children", f"that {name!r} feeds {names} is not imported", _STAYS, _WHOLE))
    unit.rest("a node of a graph", _PLATFORM)
    below = tuple(_unit(child, deployment, nodes, unwatched, predictor, shadow=shadow) for child in children)
    return Unit(unit, name, type_, implementation, parameters, below, deployment, predictor, shadow)
