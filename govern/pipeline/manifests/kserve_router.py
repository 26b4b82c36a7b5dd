"""The routers of an InferenceGraph as steps of a pipeline."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from govern.pipeline.manifests.flow import Call, Flow, Given, Unsayable, all_of, first_of
from govern.pipeline.manifests.manifest import Loss, Part

#: An address that a V2 client builds by itself from host and port; or one of which it would build the same.
_V2_ADDRESS: Final = re.compile(r"^(https?://[^/\s]+)/?(?:v2/models/([^/\s]+)/infer)?$")


@dataclass(frozen=True, slots=True)
class Target:
    """A step of a router: a node, a service or an address.

    Attributes:
        response: whether it is given the response of the step before it, instead of the request.
    """

    part: Part
    name: str
    node: str
    service: str
    url: str
    response: bool
    weight: int | None
    condition: str
    dependency: str


@dataclass(frozen=True, slots=True)
class Router:
    part: Part
    name: str
    type: str
    targets: Sequence[Target]


def write(name: str, root: str, routers: Mapping[str, Router]) -> Flow | Loss:
    """The steps of a graph; the reason when no pipeline can say what it does."""
    walk = _Walk(Flow(name), routers)
    try:
        walk.flow.end(walk.router(root, Given(), ()))
    except Unsayable as error:
        return error.loss
    return walk.flow


class _Walk:
    def __init__(self, flow: Flow, routers: Mapping[str, Router]) -> None:
        self.flow = flow
        self._routers = routers

    def router(self, name: str, given: Given, above: Sequence[str]) -> Given:
        """Write a node's steps; what it gives is returned. `above` are the nodes that lead to it."""
        router, above = self._routers[name], (*above, name)
        if not router.targets:
            raise _unsayable(router.part, "steps", f"node {name!r} leads nowhere")
        match router.type:
            case "Sequence":
                return self._sequence(router, given, above)
            case "Splitter":
                weights = [1 if one.weight is None else one.weight for one in router.targets]
                if len(weights) < 2 or not any(weights):
                    return self._target(router.targets[0], given, above)
                names = [one.name for one in router.targets]
                branches = self.flow.route(name, {"strategy": "weighted", "weights": weights}, names, given)
                pairs = zip(router.targets, branches, strict=True)
                return first_of([self._target(one, its, above) for one, its in pairs])
            case "Ensemble":
                return all_of([self._target(one, given, above) for one in router.targets])
        raise _unsayable(router.targets[0].part, "condition", "a Switch reads the JSON of a body to choose its step")

    def _sequence(self, router: Router, given: Given, above: Sequence[str]) -> Given:
        last = given
        for one in router.targets:
            if one.condition:
                raise _unsayable(one.part, "condition", "the condition reads the JSON of a response")
            last = self._target(one, last if one.response else given, above)
        return last

    def _target(self, one: Target, given: Given, above: Sequence[str]) -> Given:
        if one.dependency == "Soft":
            why = "in a pipeline a step that fails ends the request"
            self.flow.losses.append(Loss(one.part, "dependency", "a failure ends the request", why, "write Hard"))
        if one.node in above:
            raise _unsayable(one.part, "nodeName", f"node {one.node!r} leads back to itself")
        if one.node:
            return self.router(one.node, given, above)
        address = _V2_ADDRESS.match(one.url) if one.url and not one.service else None
        if one.url and not one.service and address is None:
            raise _unsayable(one.part, "serviceUrl", f"{one.url} is no address that is called over V2")
        model = one.service or (address[2] if address is not None else "") or one.name
        call = Call(one.service or one.name or "service", model or "model", address[1] if address is not None else "")
        return self.flow.step(one.name or one.service or "service", {"model": call}, given)


def _unsayable(part: Part, key: str, why: str) -> Unsayable:
    fix = "write the graph by hand: a transformer step with `oneOf` chooses a branch, and triggers follow it"
    return Unsayable(Loss(part, key if part.has(key) else None, "the graph is not imported", why, fix))
