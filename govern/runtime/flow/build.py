"""From a pipeline file to the model that serves the whole pipeline."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from govern.errors import MissingExtra
from govern.pipeline import Pipeline, load_pipelines
from govern.pipeline.graph import Node, graph
from govern.pipeline.spec import ModelSpec
from govern.runtime.flow.engine import Flow
from govern.runtime.flow.message import Step
from govern.runtime.flow.metadata import metadata
from govern.runtime.flow.model import DEFAULT_DEADLINE_S, FlowModel
from govern.runtime.flow.steps.combiner import Combiner
from govern.runtime.flow.steps.detector import InlineDetector
from govern.runtime.flow.steps.rest_model import RestModel
from govern.runtime.flow.steps.router import Router
from govern.runtime.flow.steps.transformer import transformer
from govern.runtime.loader import read_detector
from govern.runtime.serving.names import model_name
from govern.runtime.serving.step import DetectorStep
from govern.schema import FeatureSchema

if TYPE_CHECKING:
    import grpc

#: Connections that a pipeline keeps to its models, and how many of them while nobody asks: httpx's own.
_LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20)


def load_models(path: Path, *, deadline_s: float = DEFAULT_DEADLINE_S) -> list[FlowModel]:
    """The pipelines of a file as models, each for one event loop: the one that asks and closes it.

    Raises:
        PipelineError: the file is wrong.
        ConfigError: a step cannot be made (a function or an artifact is not what the file says), or a pipeline has no
            output that a call can answer with.
        ArtifactError: an artifact cannot be used.
        MissingExtra: a model is called over gRPC, and grpcio is absent.
    """
    return [flow_model(pipeline, path.parent, deadline_s=deadline_s) for pipeline in load_pipelines(path)]


def flow_model(
    pipeline: Pipeline,
    folder: Path,
    *,
    deadline_s: float = DEFAULT_DEADLINE_S,
) -> FlowModel:
    """A pipeline that was checked, as a model.

    Drift detectors (they judge windows of many requests), explainers, and models that are captured and not called do
    nothing for a single request; `Flow.idle` names them.

    Args:
        folder: what the file's paths are relative to.

    Raises:
        GovernError: as `load_models`.
    """
    connections = _Connections()
    routers: list[Router] = []
    steps: dict[str, Step] = {}
    one = graph(pipeline)
    for node in one.steps:
        step = _step(node, pipeline, folder, connections)
        if step is not None:
            steps[node.name] = step
        if isinstance(step, Router) and step.learns:
            routers.append(step)
    flow = Flow(one, steps)
    return FlowModel(flow, metadata(flow), routers=routers, resources=connections.stack, deadline_s=deadline_s)


def _step(node: Node, pipeline: Pipeline, folder: Path, connections: _Connections) -> Step | None:
    spec = node.step
    assert spec is not None, "entry and exit are no steps"
    if spec.model is not None and spec.model.url is not None:
        return connections.model(node.name, spec.model)
    if spec.transformer is not None:
        return transformer(node.name, spec.transformer)
    if spec.router is not None:
        return Router(node.name, spec.router)
    if spec.combiner is not None:
        return Combiner(spec.combiner)
    if spec.detector is not None and node.kind != "drift":
        assert pipeline.spec.schema_path is not None, "a pipeline with a detector was checked to have a schema"
        schema = FeatureSchema.load(folder / pipeline.spec.schema_path)
        detector = read_detector(folder, pipeline, node.name, spec.detector, schema)
        source = pipeline.spec.source
        judging = DetectorStep(
            namespace=pipeline.namespace,
            service="" if source is None else source.service,
            model=pipeline.model,
            pipeline=pipeline.name,
            name=node.name,
            plan_digest="",  # for judgements, and a flow makes none
            schema=schema,
            detector=detector,
        )
        return InlineDetector(model_name(pipeline.name, node.name), judging)
    return None


class _Connections:
    """Clients of the models that a pipeline calls, one for each server; `stack` closes them."""

    def __init__(self) -> None:
        self.stack = AsyncExitStack()
        self._http: httpx.AsyncClient | None = None
        self._channels: dict[str, grpc.aio.Channel] = {}

    def model(self, step: str, spec: ModelSpec) -> Step:
        assert spec.url is not None, "a model that is not called has no connection"
        if spec.url.startswith("http"):
            return RestModel(step, spec, self._client())
        try:
            from govern.runtime.flow.steps import grpc_model
        except ModuleNotFoundError as error:
            raise MissingExtra("serve", needed_by=f"step {step!r}, which calls {spec.url},") from error
        return grpc_model.GrpcModel(step, spec, partial(self._channel, spec.url.rstrip("/"), grpc_model.channel))

    def _channel(self, url: str, make: Callable[[str], grpc.aio.Channel]) -> grpc.aio.Channel:
        if url not in self._channels:
            self._channels[url] = make(url)
            self.stack.push_async_callback(self._channels[url].close)
        return self._channels[url]

    def _client(self) -> httpx.AsyncClient:
        if self._http is None:
            # Each step has a timeout of its own; no proxy and no .netrc of whoever started the process.
            self._http = httpx.AsyncClient(timeout=None, limits=_LIMITS, trust_env=False)  # noqa: S113
            self.stack.push_async_callback(self._http.aclose)
        return self._http
