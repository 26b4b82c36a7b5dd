"""Seldon Core v1: the graphs of a `SeldonDeployment` of machinelearning.seldon.io."""

from __future__ import annotations

from typing import Final

from govern.pipeline.manifests.graph import Graph, Node, Role
from govern.pipeline.manifests.logger import read_logger
from govern.pipeline.manifests.manifest import Part

_STAYS: Final = "Seldon runs its graph as before; govern watches each model's captured inferences on their own"
_KEEP: Final = "keep it in Seldon's manifest"
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
    for predictor in predictors:
        called = predictor.text("name")
        if len(predictors) > 1:
            predictor.unmapped("traffic", "Seldon splits the traffic; the endpoint stands in each record", _KEEP)
        else:
            predictor.number("traffic")
        predictor.unmapped("shadow", "Seldon copies the traffic; the endpoint stands in each record", _KEEP)
        explainer = predictor.part("explainer")
        if explainer is not None:
            why = f"{explainer.text('type') or 'it'} explains on demand, which is no step of a pipeline"
            fix = "serve one: `govern explain fit`, `govern explain serve`, or trigger an explainer step"
            predictor.lose("explainer", "`explainer` is not imported", why, fix)
        graph = predictor.part("graph")
        if graph is None:
            raise predictor.error(None, f"predictor {called!r} has no graph", "there is nothing to import", "add it")
        _unit(graph, name, nodes)
        predictor.rest("a predictor", _PREDICTOR)
    spec.rest(
        "a SeldonDeployment",
        frozenset(
            {
                "name",
                "protocol",
                "transport",
                "replicas",
                "serverType",
                "annotations",
            }
        ),
    )
    return Graph(name, namespace, root, tuple(nodes))


def _unit(unit: Part, deployment: str, nodes: list[Node]) -> None:
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
        why = "a node above has this name, and their records differ by endpoint only: one pipeline watches both"
        unit.lose("name", f"node {name!r} comes twice", why, "rename one of them if they are to be told apart")
    read_logger(unit)
    children = unit.parts("children")
    if children and role == "model":
        names = ", ".join(child.text("name") for child in children)
        unit.lose("children", f"that {name!r} feeds {names} is not imported", _STAYS, _KEEP)
    unit.rest("a node of a graph", _PLATFORM)
    for child in children:
        _unit(child, deployment, nodes)
