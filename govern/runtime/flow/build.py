"""From a pipeline file to the model that serves the whole pipeline."""

from __future__ import annotations

from pathlib import Path

from govern.pipeline import Pipeline, load_pipelines
from govern.pipeline.graph import Node, graph
from govern.runtime.flow.connections import Connections
from govern.runtime.flow.engine import Flow
from govern.runtime.flow.message import Step
from govern.runtime.flow.metadata import metadata
from govern.runtime.flow.model import DEFAULT_DEADLINE_S, FlowModel
from govern.runtime.flow.steps.detector import InlineDetector
from govern.runtime.flow.steps.router import Router
from govern.runtime.loader import Check, read_detector
from govern.runtime.serving.names import model_name
from govern.runtime.serving.step import DetectorStep
from govern.schema import FeatureSchema


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
    check: Check | None = None,
) -> FlowModel:
    """A pipeline that was checked, as a model.

    Drift detectors (they judge windows of many requests), explainers, and models that are captured and not called do
    nothing for a single request; `Flow.idle` names them.

    Args:
        folder: what the file's paths are relative to.
        check: of each artifact, before it is read.

    Raises:
        GovernError: as `load_models`.
    """
    connections = Connections()
    routers: list[Router] = []
    steps: dict[str, Step] = {}
    one = graph(pipeline)
    for node in one.steps:
        step = _step(node, pipeline, folder, connections, check)
        if step is not None:
            steps[node.name] = step
        if isinstance(step, Router) and step.learns:
            routers.append(step)
    flow = Flow(one, steps)
    return FlowModel(flow, metadata(flow), routers=routers, resources=connections.stack, deadline_s=deadline_s)


def _step(node: Node, pipeline: Pipeline, folder: Path, connections: Connections, check: Check | None) -> Step | None:
    spec = node.step
    assert spec is not None, "entry and exit are no steps"
    called = connections.step(spec)
    if called is not None or spec.detector is None or node.kind == "drift":
        return called
    assert pipeline.spec.schema_path is not None, "a pipeline with a detector was checked to have a schema"
    schema = FeatureSchema.load(folder / pipeline.spec.schema_path)
    detector = read_detector(folder, pipeline, node.name, spec.detector, schema, check=check)
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
