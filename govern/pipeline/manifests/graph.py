"""A serving graph as any of the three families writes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from govern.pipeline.manifests.flow import Flow
from govern.pipeline.manifests.manifest import Loss, Part
from govern.pipeline.references import Reference
from govern.pipeline.spec import JoinType
from govern.record import Kind

#: As manifests write them, and pipelines do.
JOINS: Final = get_args(JoinType)
#: What a detector of each kind is imported as; a manifest says where a detector lies, not which it is.
DETECTOR_TYPES: Final[dict[Kind, str]] = {
    "drift": "tabular",
    "outlier": "isolation_forest",
    "adversarial": "model_distillation",
}

Role = Literal["model", "detector", "explainer", "router", "combiner", "transformer"]


@dataclass(frozen=True, slots=True)
class Edge:
    """What a node reads, and the value of the manifest that says so."""

    part: Part
    key: str | int
    reference: Reference


@dataclass(frozen=True, slots=True)
class Joins:
    """Join types are "" and the window None where the manifest does not say."""

    inputs: str = ""
    triggers: str = ""
    window_ms: int | None = None
    tensor_map: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Node:
    """One component of a serving graph.

    Attributes:
        part: the mapping that describes it.
        service: the service that capture names in the records of its inferences.
        kind: what a detector judges.
        inputs: what it reads; the graph's inputs when empty.
        batch: `size`, `windowMs` and `rolling` of its window.
        joins: how it joins what it reads.
        does: what a node of another role than model, detector and explainer does, for a person.
    """

    name: str
    part: Part
    role: Role
    service: str
    kind: Kind | None = None
    inputs: tuple[Edge, ...] = ()
    triggers: tuple[Edge, ...] = ()
    batch: Mapping[str, int | bool] = field(default_factory=dict)
    joins: Joins | None = None
    does: str = ""


@dataclass(frozen=True, slots=True)
class Graph:
    """The nodes that answer one caller, in the manifest's order.

    Attributes:
        flow: the graph as steps that call each model; the reason when it cannot be said so.
        unwatched: what is lost when each of its models is watched on its own.
    """

    name: str
    namespace: str
    part: Part
    nodes: tuple[Node, ...]
    flow: Flow | Loss
    unwatched: tuple[Loss, ...] = ()
