"""A serving graph as the steps of one pipeline, written down while its manifest is walked through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from govern.pipeline.manifests.labels import free
from govern.pipeline.manifests.manifest import Loss
from govern.pipeline.spec import JoinType


@dataclass(frozen=True, slots=True)
class Call:
    """A model that is called; its address is filled in when the pipeline is written.

    Attributes:
        url: where the manifest says it; else "".
    """

    service: str
    model: str
    url: str = ""


@dataclass(frozen=True, slots=True)
class Given:
    """What a part of the graph is given, or gives: references, how they are joined, and what it waits for besides."""

    inputs: tuple[str, ...] = ()
    join: JoinType = "inner"
    triggers: tuple[str, ...] = ()


class Unsayable(Exception):
    """The graph does something that no pipeline says."""

    def __init__(self, loss: Loss) -> None:
        super().__init__(loss.what)
        self.loss = loss


class Flow:
    """The steps so far.

    Attributes:
        steps: as they stand in a pipeline's file, but for the `Call` of a model.
        spec: what stands beside the steps.
        losses: what is lost when the graph is imported so.
    """

    def __init__(self, pipeline: str) -> None:
        self.pipeline = free(pipeline, set())
        self.steps: list[dict[str, Any]] = []
        self.spec: dict[str, Any] = {}
        self.losses: list[Loss] = []

    def name(self, wanted: str) -> str:
        """A step's name that is not taken."""
        return free(wanted, {self.pipeline, *(step["name"] for step in self.steps)})

    def step(self, name: str, section: dict[str, Any], given: Given) -> Given:
        """Write a step down; what it gives is returned."""
        step = {"name": self.name(name), **section}
        if given.inputs:
            step["inputs"] = list(given.inputs)
        if len(given.inputs) > 1 and given.join != "inner":
            step["inputsJoinType"] = given.join
        if given.triggers:
            step["triggers"] = list(given.triggers)
        self.steps.append(step)
        return Given((step["name"],))

    def route(self, name: str, router: dict[str, Any], branches: Sequence[str], given: Given) -> list[Given]:
        """Write a router down; what each of its branches is given is returned."""
        weights = router.pop("weights", None)
        routes: list[dict[str, Any]] = []
        for position, branch in enumerate(branches):
            called = free(branch, {route["name"] for route in routes})
            routes.append({"name": called} | ({"weight": weights[position]} if weights is not None else {}))
        (router_name,) = self.step(name, {"router": {**router, "routes": routes}}, given).inputs
        return [Given(given.inputs, given.join, (f"{router_name}.outputs.{one['name']}",)) for one in routes]

    def end(self, given: Given) -> None:
        """What arrives here is the pipeline's output."""
        self.spec["output"] = {"steps": list(given.inputs)}
        if len(given.inputs) > 1:
            self.spec["output"]["stepsJoin"] = given.join


def first_of(given: Sequence[Given]) -> Given:
    """Of branches that exclude each other."""
    return Given(tuple(text for one in given for text in one.inputs), "any")


def all_of(given: Sequence[Given]) -> Given:
    """Of branches that all come; of those in it that exclude each other, the one that does."""
    certain = all(len(one.inputs) == 1 or one.join == "inner" for one in given)
    return Given(tuple(dict.fromkeys(text for one in given for text in one.inputs)), "inner" if certain else "outer")
