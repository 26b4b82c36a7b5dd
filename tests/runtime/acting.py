"""Watched pipelines whose steps are functions of the test, and a detector that says what it was given."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import yaml

from govern.codecs.tensor import Tensor
from govern.detection import InstanceScores
from govern.frame import Frame
from govern.pipeline import Pipeline, plan
from govern.pipeline.graph import fed, graph
from govern.pipeline.spec import Step as StepSpec
from govern.runtime.flow import Call, Step
from govern.runtime.flow.connections import Connections
from govern.runtime.loader import LoadedPipeline
from govern.runtime.watched import WatchedFlow, watched
from govern.schema import Feature, FeatureSchema
from tests.runtime.flow.test_flow_property import as_tuples

SCHEMA = FeatureSchema(format_version=1, model="m", features=(Feature(name="a", kind="numeric"),))
Function = Callable[[Call], Awaitable[Sequence[Tensor]]]


@dataclass(frozen=True)
class Echo:
    """A detector of somebody else: each row's score is the row."""

    kind: str = "outlier"
    method: str = "echo"
    schema: FeatureSchema = SCHEMA
    digest: str = "e" * 64
    reference_digest: str = "r" * 64
    seed: int = 0
    min_instances: int = 1
    needs_outputs: tuple[str, ...] = ()

    def fit(self, reference: Frame) -> Self:
        return self

    def score(self, window: Frame) -> InstanceScores:
        values = window["a"].astype(np.float64)
        return InstanceScores(scores=values, flagged=values > 500, threshold=500.0)

    def save(self, path: Path) -> None:
        raise NotImplementedError

    @classmethod
    def load(cls, path: Path) -> Self:
        raise NotImplementedError


class Functions(Connections):
    """Steps by name; those that are not among them are what the file says."""

    def __init__(self, functions: Mapping[str, Function]) -> None:
        super().__init__()
        self._functions = functions

    def step(self, spec: StepSpec) -> Step | None:
        return self._functions.get(spec.name) or super().step(spec)


def loaded(
    spec: str, *, name: str = "p", namespace: str = "n", schema: FeatureSchema = SCHEMA, **functions: Function
) -> LoadedPipeline:
    """A pipeline over service `s`, model `m`; each of its detectors is an `Echo` of the feature `a`."""
    content: dict[str, Any] = yaml.safe_load(spec)
    content = {"source": {"service": "s", "model": "m"}, "schema": "schema.yaml"} | content
    head = {"apiVersion": "govern.io/v1alpha1", "kind": "Pipeline", "metadata": {"name": name, "namespace": namespace}}
    pipeline = Pipeline.model_validate({**head, "spec": as_tuples(content)})
    one = graph(pipeline)
    flow = WatchedFlow(pipeline, schema, connections=Functions(functions)) if watched(pipeline).nodes else None
    return LoadedPipeline(
        plan=plan(pipeline),
        schema=schema,
        detectors={node.name: Echo() for node in one.steps if node.role == "detector"},  # type: ignore[misc]
        fed=frozenset(node.name for node in one.steps if fed(node, one)),
        flow=flow,
    )
