"""KServe: `InferenceService` (serving.kserve.io/v1beta1) and `InferenceGraph` (v1alpha1)."""

from __future__ import annotations

from typing import Final

from govern.pipeline.manifests.flow import Call, Flow, Given
from govern.pipeline.manifests.graph import Graph, Node, Role
from govern.pipeline.manifests.kserve_router import Router, Target, write
from govern.pipeline.manifests.logger import read_logger
from govern.pipeline.manifests.manifest import Loss, Part

_STAYS: Final = "KServe routes as before; govern watches each service's captured inferences on their own"
_KEEP: Final = "keep it in KServe's manifest"
_WHOLE: Final = "keep it in KServe's manifest, or import the graph whole: --models"
ROOT: Final = "root"
_ROUTERS: Final[dict[str, tuple[Role, str]]] = {
    "Sequence": ("transformer", "calls its steps one after the other"),
    "Splitter": ("router", "chooses one of its steps by weight"),
    "Ensemble": ("combiner", "joins the answers of its steps"),
    "Switch": ("router", "chooses one of its steps by condition"),
}
#: Predictors as older manifests write them: the format is the key.
_FORMATS: Final = frozenset(
    {
        "model",
        "sklearn",
        "xgboost",
        "lightgbm",
        "tensorflow",
        "pytorch",
        "onnx",
        "triton",
        "pmml",
        "paddle",
        "huggingface",
        "containers",
    }
)


def read_service(root: Part, name: str, namespace: str) -> Graph:
    spec = root.part("spec")
    predictor = spec.part("predictor") if spec is not None else None
    if spec is None or predictor is None:
        why = "there is no model to watch"
        raise root.error("spec", f"InferenceService {name!r} has no predictor", why, "add `predictor:`")
    read_logger(predictor)
    predictor.unmapped("canaryTrafficPercent", "KServe splits the traffic; records tell the endpoint", _KEEP)
    if not any(predictor.has(key) for key in _FORMATS):
        why = f"it has none of {', '.join(sorted(_FORMATS))}"
        raise spec.error("predictor", "it serves no model", why, "add `model:`")
    spec.unmapped(
        "transformer",
        "it is a container of KServe's; the logger of the predictor records what the model gets",
        "keep it in KServe's manifest, and the logger at the predictor",
    )
    spec.unmapped(
        "explainer",
        "KServe's explainer explains on demand, which is no step of a pipeline",
        "serve one: `govern explain fit`, `govern explain serve`, or trigger an explainer step",
    )
    spec.rest("an InferenceService")
    flow = Flow(name)
    flow.end(flow.step(name, {"model": Call(name, name)}, Given()))
    return Graph(name, namespace, root, (Node(name, predictor, "model", service=name),), flow)


def read_graph(root: Part, name: str, namespace: str) -> Graph:
    spec = root.part("spec")
    routers = dict(spec.named_parts("nodes")) if spec is not None else {}
    if spec is None or ROOT not in routers:
        why = f"a graph begins at the node {ROOT!r}"
        raise root.error("spec", f"InferenceGraph {name!r} has no {ROOT}", why, f"add `nodes.{ROOT}:`")
    nodes: list[Node] = []
    unwatched: list[Loss] = []
    read: dict[str, Router] = {}
    for called, router in routers.items():
        type_ = router.name("routerType")
        if type_ not in _ROUTERS:
            fix = f"write one of {', '.join(_ROUTERS)}"
            raise router.error("routerType", f"it is {type_!r}", "KServe has no such router", fix)
        role, does = _ROUTERS[type_]
        nodes.append(Node(called, router, role, service=name, does=does))
        targets = tuple(_target(step, routers, nodes, unwatched) for step in router.parts("steps"))
        read[called] = Router(router, called, type_, targets)
        router.rest("a node of an InferenceGraph")
    spec.rest(
        "an InferenceGraph",
        frozenset(
            {
                "resources",
                "affinity",
                "timeout",
                "minReplicas",
                "maxReplicas",
                "scaleTarget",
                "scaleMetric",
                "routerTimeouts",
                "nodeSelector",
                "nodeName",
                "tolerations",
            }
        ),
    )
    return Graph(name, namespace, root, tuple(nodes), write(name, ROOT, read), tuple(unwatched))


def _target(step: Part, routers: dict[str, Part], nodes: list[Node], unwatched: list[Loss]) -> Target:
    target, service, url = step.text("nodeName"), step.text("serviceName"), step.text("serviceUrl")
    if target and target not in routers:
        why = f"there is no node {target!r}"
        raise step.error("nodeName", "it leads nowhere", why, f"the nodes are: {', '.join(routers)}")
    if service and not any(node.role == "model" and node.service == service for node in nodes):
        nodes.append(Node(service, step, "model", service=service))
    elif url and not service:
        why = "an address does not tell the service's name, which the records carry"
        fix = "write serviceName, or a pipeline for it by hand"
        unwatched.append(Loss(step, "serviceUrl", f"{url} is not watched", why, fix))
    elif not (target or service or url):
        raise step.error(None, "the step leads nowhere", "it names no service and no node", "add `serviceName:`")
    found = Target(
        step,
        name=step.text("name") or target or service,
        node=target,
        service=service,
        url=url,
        response=step.text("data") == "$response",
        weight=step.number("weight"),
        condition=step.text("condition"),
        dependency=step.text("dependency"),
    )
    for key in ("data", "weight", "condition", "dependency"):
        unwatched += step.unsaid(key, _STAYS, _WHOLE)
    step.rest("a step of an InferenceGraph")
    return found
