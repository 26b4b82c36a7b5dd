"""Two watched models, and a pipeline that joins what each of them answers; inferences of both as captured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from govern.codecs import v2
from govern.codecs.tensor import Tensor
from govern.pipeline.chain import chain
from govern.pipeline.load import load_pipelines
from govern.record import Capture, Inference
from govern.runtime.chained.tasks import JoinedPipeline
from govern.schema import Feature, FeatureSchema
from tests.runtime.conftest import START_NS, payload

PIPELINES = """\
apiVersion: govern.io/v1alpha1
kind: Pipeline
metadata: {name: left, namespace: NAMESPACE}
spec:
  source: {service: shop, model: price}
  schema: schema.yaml
  steps: [{name: price, model: {captured: true}}]
  output: {steps: [price]}
---
apiVersion: govern.io/v1alpha1
kind: Pipeline
metadata: {name: right, namespace: NAMESPACE}
spec:
  source: {service: shop, model: stock}
  schema: schema.yaml
  steps: [{name: stock, model: {captured: true}}]
---
apiVersion: govern.io/v1alpha1
kind: Pipeline
metadata: {name: both, namespace: NAMESPACE}
spec:
  input:
    externalInputs: [left.inputs, left.step.price.outputs.y, right.step.stock.outputs]
    tensorMap: {right.step.stock.outputs.y: z}
    joinWindowMs: 1000
  schema: schema.yaml
  steps: [{name: total, combiner: {method: mean}, inputs: [both.inputs.y, both.inputs.z]}]
  output: {steps: [total]}
"""
SCHEMA = FeatureSchema(format_version=1, model="m", features=(Feature(name="x", kind="numeric"),))


def write(folder: Path, namespace: str = "default") -> Path:
    (folder / "schema.yaml").write_text(SCHEMA.to_yaml())
    file = folder / "pipelines.yaml"
    file.write_text(PIPELINES.replace("NAMESPACE", namespace))
    return file


@pytest.fixture
def both(tmp_path: Path) -> JoinedPipeline:
    pipelines = {one.name: one for one in load_pipelines(write(tmp_path))}
    return JoinedPipeline(chain(pipelines["both"], pipelines), (SCHEMA,) * 3)


def column(name: str, *values: float) -> Tensor:
    return Tensor(name, "FP64", np.array(values, dtype=np.float64).reshape(-1, 1))


def called(
    model: str, request: int, at_ms: int = 0, *, namespace: str = "default", outputs: Sequence[Tensor] | None = None
) -> Inference:
    """The captured call of a model: `x` in; `y` out, which is ten times the number of the request."""
    given = (column("y", 10.0 * request),) if outputs is None else outputs
    return Inference(
        schema_version=1,
        id=f"{model}-{request}-{at_ms}",
        request_id=f"request-{request}",
        namespace=namespace,
        service="shop",
        model=model,
        endpoint="default",
        protocol="v2",
        t_request=START_NS + (at_ms - 5) * 10**6,
        t_response=START_NS + at_ms * 10**6,
        status_code=200,
        request=payload(v2.encode_request([column("x", float(request))])),
        response=payload(v2.encode_response(model, given)),
        capture=Capture(agent=f"agent-{model}", seq=request),
    )
