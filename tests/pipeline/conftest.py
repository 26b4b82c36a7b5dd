"""A correct pipeline file to spoil, and detector kinds without importing detectors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from govern.errors import ConfigError
from govern.pipeline import Pipeline, PipelineError, Problem, load_pipelines
from govern.record import Kind
from govern.schema import Feature, FeatureSchema

GOOD = """\
apiVersion: govern.io/v1alpha1
kind: Pipeline
metadata: {name: monitor, namespace: default}
spec:
  source: {service: employment, model: employment}
  schema: schema.yaml
  steps:
    - name: employment
      model: {captured: true}
    - name: drift
      detector: {type: tabular, params: {p_value: 0.05}, artifact: artifacts/drift}
      inputs: [monitor.inputs]
      batch: {size: 500}
    - name: outlier
      detector: {type: isolation_forest, artifact: artifacts/outlier}
    - name: adversarial
      detector: {type: model_distillation, artifact: artifacts/adversarial}
      inputs: [monitor.inputs, employment.outputs.probability]
      batch: {size: 10, windowMs: 50}
    - name: explain
      explainer: {name: employment-shap}
      inputs: [monitor.inputs]
      triggers: [outlier.outputs.outliers, adversarial.outputs.adversarials]
  output: {steps: [drift, outlier]}
"""

#: A pipeline that is called, and that uses the rest of the vocabulary.
CALLED = """\
apiVersion: govern.io/v1alpha1
kind: Pipeline
metadata: {name: score}
spec:
  input: {externalInputs: [intake.outputs], externalTriggers: [gate.step.open.outputs.go], joinWindowMs: 20}
  allowCycles: true
  maxStepRevisits: 5
  dataflow: {cleanTopicsOnDelete: true}
  steps:
    - name: clean
      transformer: {callable: pkg.clean:rows}
      inputs: [score.inputs, scorer.outputs.bad]
      inputsJoinType: any
    - name: scorer
      model: {url: http://scorer:8080, inputs: [{name: x, datatype: FP32, shape: [-1, 4]}],
              outputs: [{name: good, datatype: FP32}, {name: bad, datatype: FP32}], oneOf: [good, bad]}
      inputs: [clean.outputs]
      tensorMap: {clean.outputs.rows: x}
    - name: split
      router: {strategy: weighted, routes: [{name: a, weight: 9}, {name: b}]}
      inputs: [scorer.outputs]
      batch: {size: 3, windowMs: 10, rolling: true}
    - name: one
      model: {url: grpcs://one:9000, name: first, version: "2", timeoutMs: 100}
      inputs: [scorer.outputs.good]
      triggers: [split.outputs.a]
    - name: two
      model: {url: https://two}
      inputs: [split.inputs]
      triggers: [split.outputs.b]
    - name: mean
      combiner: {method: weighted, weights: [2, 1], output: score}
      inputs: [one, two]
      inputsJoinType: outer
      joinWindowMs: 50
    - name: why
      explainer: {name: shap}
      triggers: [mean.outputs.score, split.outputs.a]
      triggersJoinType: inner
  output: {steps: [mean.outputs.score], stepsJoin: inner, joinWindowMs: 10, tensorMap: {mean.outputs.score: answer}}
"""


def kinds(type_: str) -> Kind:
    known: dict[str, Kind] = {
        "tabular": "drift",
        "online_cvm": "drift",
        "isolation_forest": "outlier",
        "model_distillation": "adversarial",
    }
    if type_ not in known:
        raise ConfigError(f"{type_!r} is not known", why="it is not registered", fix="correct the name")
    return known[type_]


Load = Callable[..., list[Pipeline]]


@pytest.fixture
def good() -> str:
    return GOOD


@pytest.fixture
def called() -> str:
    return CALLED


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """`load(text)` writes the text to pipeline.yaml beside a schema.yaml and loads it."""
    schema = FeatureSchema(format_version=1, model="m", features=(Feature(name="a", kind="numeric"),))
    (tmp_path / "schema.yaml").write_text(schema.to_yaml())

    def load_text(text: str, **options: bool) -> list[Pipeline]:
        path = tmp_path / "pipeline.yaml"
        path.write_text(text)
        return load_pipelines(path, kinds=kinds, **options)

    return load_text


@pytest.fixture
def problems(load: Load) -> Callable[..., tuple[Problem, ...]]:
    """`problems(old, new)` is what is found after replacing `old` by `new` in the correct file."""

    def spoil(*changes: tuple[str, str], **options: bool) -> tuple[Problem, ...]:
        text = GOOD
        for old, new in changes:
            assert text.count(old) == 1, f"{old!r} must be there once"
            text = text.replace(old, new)
        with pytest.raises(PipelineError) as caught:
            load(text, **options)
        return caught.value.problems

    return spoil
