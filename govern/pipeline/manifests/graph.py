"""A serving graph as any of the three families writes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from govern.pipeline.manifests.manifest import Part
from govern.pipeline.references import Reference
from govern.record import Kind

Role = Literal["model", "detector", "explainer", "router", "combiner", "transformer"]


@dataclass(frozen=True, slots=True)
class Edge:
    """What a node reads, and the value of the manifest that says so."""

    part: Part
    key: str | int
    reference: Reference


@dataclass(frozen=True, slots=True)
class Node:
    """One component of a serving graph.

    Attributes:
        part: the mapping that describes it.
        service: the service that capture names in the records of its inferences.
        kind: what a detector judges.
        inputs: what it reads; the graph's inputs when empty.
        batch: `size` and `windowMs` of a detector's window.
        does: what a node of another role than model, detector and explainer does, for a person.
    """

    name: str
    part: Part
    role: Role
    service: str
    kind: Kind | None = None
    inputs: tuple[Edge, ...] = ()
    triggers: tuple[Edge, ...] = ()
    batch: Mapping[str, int] = field(default_factory=dict)
    does: str = ""


@dataclass(frozen=True, slots=True)
class Graph:
    """The nodes that answer one caller, in the manifest's order."""

    name: str
    namespace: str
    part: Part
    nodes: tuple[Node, ...]
