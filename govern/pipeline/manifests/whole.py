"""Pipelines that do what serving graphs do: one for each graph, its models called where a person says they answer.

The graph's routes, joins and detectors are then the pipeline's; the serving platform only has to answer for each model.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from govern.errors import BadInput
from govern.pipeline.manifests.flow import Call
from govern.pipeline.manifests.graph import Graph
from govern.pipeline.manifests.labels import free
from govern.pipeline.manifests.manifest import Loss
from govern.pipeline.spec import API_VERSION

_URL: Final = re.compile(r"^(https?|grpcs?)://[^/\s{}]+/?$")
#: What an address may leave open.
PLACES: Final = ("model", "service", "namespace")


def whole(graphs: Sequence[Graph], models: str) -> list[dict[str, Any]]:
    """Documents of kind Pipeline. What the graphs do beyond that is noted as losses of their parts.

    Args:
        models: the address of a model, with `{model}`, `{service}` and `{namespace}` where they stand in it.

    Raises:
        BadInput: it is no address.
    """
    documents: list[dict[str, Any]] = []
    names: set[str] = set()
    for graph in graphs:
        if isinstance(graph.flow, Loss):
            graph.flow.note()
            continue
        for loss in graph.flow.losses:
            loss.note()
        name = graph.flow.pipeline
        if name in names:
            why = "a graph before it has the same name, and pipelines of one file are told apart by theirs"
            graph.part.lose(None, f"graph {name!r} is not imported", why, "import it to a file of its own")
            continue
        names.add(name)
        beside = graph.flow.spec
        steps = [_called(step, models, graph.namespace) for step in graph.flow.steps]
        before = {key: value for key, value in beside.items() if key != "output"}
        output = {"output": beside["output"]} if "output" in beside else {}
        spec = {**before, "steps": steps, **output}
        documents.append(
            {
                "apiVersion": API_VERSION,
                "kind": "Pipeline",
                "metadata": {"name": name, "namespace": free(graph.namespace, set())},
                "spec": spec,
            }
        )
    return documents


def _called(step: dict[str, Any], models: str, namespace: str) -> dict[str, Any]:
    call = step.get("model")
    if not isinstance(call, Call):
        return step
    url = call.url or _address(models, call, namespace)
    return {**step, "model": {"url": url} | ({"name": call.model} if call.model != step["name"] else {})}


def _address(models: str, call: Call, namespace: str) -> str:
    url = models
    for place, value in zip(PLACES, (call.model, call.service, namespace), strict=True):
        url = url.replace(f"{{{place}}}", value)
    if not _URL.match(url):
        raise BadInput(
            f"--models {models!r}",
            why=f"{url} is no address of a model",
            fix=f"write protocol, host and port, such as http://{{model}}:8080; known are {', '.join(PLACES)}",
        )
    return url
