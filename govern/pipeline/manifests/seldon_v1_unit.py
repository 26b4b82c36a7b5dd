"""A node of a SeldonDeployment's graph with those below it, as steps of a pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from govern.pipeline.manifests.flow import Call, Flow, Given, Unsayable, all_of, first_of
from govern.pipeline.manifests.manifest import Loss, Part

#: Parameters of Seldon's own routers that a router here has, or that follow from the graph.
_SETTINGS: Final = ("epsilon", "n_branches", "ratioA", "seed", "verbose")


@dataclass(frozen=True, slots=True)
class Unit:
    """A node and those below it.

    Attributes:
        parameters: of a router, by name.
        predictor: where it stands; its requests are copies when that is a `shadow`.
    """

    part: Part
    name: str
    type: str
    implementation: str
    parameters: Mapping[str, str]
    children: Sequence[Unit]
    deployment: str
    predictor: str
    shadow: bool

    def write(self, flow: Flow, given: Given) -> Given:
        """Write the steps of this part of the graph; what it gives is returned."""
        match self.type:
            case "ROUTER":
                return self._route(flow, given)
            case "COMBINER":
                return self._combine(flow, given)
            case "OUTPUT_TRANSFORMER":
                return self._call(flow, self._below(flow, given))
        return self._below(flow, self._call(flow, given))

    def _call(self, flow: Flow, given: Given) -> Given:
        return flow.step(self.name, {"model": Call(self.deployment, self.name)}, given)

    def _below(self, flow: Flow, given: Given) -> Given:
        if len(self.children) > 1:
            what, why = "only its first child is called", "several children need a router or a combiner above them"
            self._lose(flow, "children", what, why, "write type: COMBINER or ROUTER for the node")
        return self.children[0].write(flow, given) if self.children else given

    def _route(self, flow: Flow, given: Given) -> Given:
        if not self.children:
            fix = "give it children, or remove it"
            raise Unsayable(Loss(self.part, None, "the graph is not imported", "this router leads nowhere", fix))
        if len(self.children) < 2:
            why = "a router has two routes at least"
            self._lose(flow, None, f"router {self.name!r} is left out", why, "nothing, if that will do")
            return self._below(flow, given)
        routes = flow.route(self.name, self._strategy(flow), [child.name for child in self.children], given)
        return first_of([child.write(flow, its) for child, its in zip(self.children, routes, strict=True)])

    def _combine(self, flow: Flow, given: Given) -> Given:
        if self.implementation != "AVERAGE_COMBINER":
            what, why = f"combiner {self.name!r} takes the mean", "what it does stands in its code"
            self._lose(flow, None, what, why, "write the step's `combiner`, or a transformer, by hand")
        parts = [child.write(flow, given) for child in self.children]
        return flow.step(self.name, {"combiner": {"method": "mean"}}, all_of(parts) if parts else given)

    def _strategy(self, flow: Flow) -> dict[str, Any]:
        others = [
            name for name in self.parameters if name not in ("epsilon", "n_branches", "ratioA", "seed", "verbose")
        ]
        if others:
            what, why = f"parameters {', '.join(others)} are not imported", "a router here has no such settings"
            self._lose(flow, "parameters", what, why, "see `router` in docs/pipelines.md")
        seed = {"seed": int(self.parameters["seed"])} if self.parameters.get("seed", "").isdigit() else {}
        if self.implementation == "RANDOM_ABTEST":
            share = _share(self.parameters.get("ratioA", "0.5"))
            return {
                "strategy": "weighted",
                "weights": [share, *[round(1 - share, 9)] * (len(self.children) - 1)],
                **seed,
            }
        if self.implementation == "SIMPLE_ROUTER":
            return {"strategy": "weighted", "weights": [1, *[0] * (len(self.children) - 1)], **seed}
        if "epsilon" in self.parameters:
            return {"strategy": "epsilon-greedy", "epsilon": _share(self.parameters["epsilon"]), **seed}
        if "thompson" in f"{self.name} {self.implementation}".lower():
            return {"strategy": "thompson", **seed}
        what, why = f"router {self.name!r} draws evenly", "how it chooses stands in its code"
        self._lose(flow, None, what, why, "write the step's `router` by hand, or a transformer with `oneOf`")
        return {"strategy": "weighted", "weights": [1] * len(self.children), **seed}

    def _lose(self, flow: Flow, key: str | None, what: str, why: str, fix: str) -> None:
        flow.losses.append(Loss(self.part, key, what, why, fix))


def _share(text: str) -> float:
    """A share as a parameter has it; Seldon's default when it is none."""
    try:
        share = float(text)
    except ValueError:
        return 0.5
    return share if 0 <= share <= 1 else 0.5
