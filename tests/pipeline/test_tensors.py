"""Declarations of tensors that contradict each other, each at its place with its fix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from govern.pipeline import Pipeline, PipelineError, load_pipelines
from govern.schema import Feature, FeatureSchema
from tests.pipeline.conftest import kinds

BASE = """\
apiVersion: govern.io/v1alpha1
kind: Pipeline
metadata: {name: p}
spec:
  schema: schema.yaml
  steps:
    - name: clean
      transformer: {callable: a:b, outputs: [{name: rows, datatype: FP64, shape: [-1, 3]}, {name: id, datatype: BYTES}]}
    - name: score
      model: {url: http://x, inputs: [{name: x, datatype: FP64, shape: [-1, 3]}],
              outputs: [{name: y, datatype: FP32, shape: [-1, 2]}]}
      inputs: [clean.outputs.rows]
      tensorMap: {clean.outputs.rows: x}
    - name: other
      model: {url: http://x, inputs: [{name: age, datatype: FP64}, {name: job, datatype: BYTES}],
              outputs: [{name: z, datatype: FP32, shape: [-1, 2]}]}
    - name: odd
      detector: {type: isolation_forest, artifact: a}
      inputs: [clean.outputs.rows]
    - name: both
      combiner: {method: mean}
      inputs: [score, other]
"""
#: (text to replace, replacement, field, text at its place, what, why, fix).
CASES = [
    (
        "{clean.outputs.rows: x}",
        "{}",
        "spec.steps[1].model.inputs[0]",
        "{name: x",
        "model step 'score' never receives 'x'",
        "its inputs bring rows",
        "rename what arrives: tensorMap: {clean.outputs.rows: x}",
    ),
    (
        "inputs: [clean.outputs.rows]\n      tensorMap: {clean.outputs.rows: x}",
        "inputs: [clean]",
        "spec.steps[1].model.inputs[0]",
        "{name: x",
        "model step 'score' never receives 'x'",
        "its inputs bring rows, id",
        "what arrives is: rows, id",
    ),
    (
        "{name: x, datatype: FP64, shape",
        "{name: x, datatype: FP32, shape",
        "spec.steps[1].model.inputs[0]",
        "{name: x",
        "takes 'x' as FP32",
        "clean.outputs.rows is FP64",
        "convert it in a transformer",
    ),
    (
        "datatype: FP64, shape: [-1, 3]}],",
        "datatype: FP64, shape: [-1, 4]}],",
        "spec.steps[1].model.inputs[0]",
        "{name: x",
        "takes 'x' as [-1, 4]",
        "clean.outputs.rows is [-1, 3]",
        "correct the declaration",
    ),
    (
        "datatype: FP64, shape: [-1, 3]}],",
        "datatype: FP64, shape: [3]}],",
        "spec.steps[1].model.inputs[0]",
        "{name: x",
        "takes 'x' as [3]",
        "clean.outputs.rows is [-1, 3]",
        "correct the declaration",
    ),
    (
        "{name: age, datatype: FP64}",
        "{name: age, datatype: INT64}",
        "spec.steps[2].model.inputs[0]",
        "{name: age",
        "takes 'age' as INT64",
        "p.inputs.age is FP64",
        "correct the declaration",
    ),
    (
        "inputs: [{name: age, datatype: FP64}, {name: job, datatype: BYTES}]",
        "inputs: [{name: predict, datatype: FP64, shape: [-1, 5]}]",
        "spec.steps[2].model.inputs[0]",
        "{name: predict",
        "takes 'predict' with 5 columns",
        "the schema has 3 features",
        "correct `shape`, or the schema",
    ),
    (
        "artifact: a}\n      inputs: [clean.outputs.rows]",
        "artifact: a}\n      inputs: [score]",
        "spec.steps[3].inputs[0]",
        "score]\n    - name: both",
        "detector step 'odd' reads 2 columns of score.outputs.y",
        "the schema has 3 features",
        "correct the declared `shape`",
    ),
    (
        "artifact: a}\n      inputs: [clean.outputs.rows]",
        "artifact: a}\n      inputs: [clean, score]\n      tensorMap: {clean.outputs.rows: age}",
        "spec.steps[3].inputs[0]",
        "clean, score]",
        "never receives feature 'job', 'pay'",
        "its inputs bring age, id, y",
        "rename tensors",
    ),
    (
        "artifact: a}\n      inputs: [clean.outputs.rows]",
        "artifact: a}\n      inputs: [clean, score, other]\n"
        "      tensorMap: {clean.outputs.rows: age, clean.outputs.id: pay, score.outputs.y: job}",
        "spec.steps[3].inputs[0]",
        "clean, score, other]",
        "reads feature 'job' as FP32",
        "the schema has it as BYTES",
        "correct the declaration",
    ),
    (
        "inputs: [score, other]",
        "inputs: [clean.outputs.id, other]",
        "spec.steps[4].inputs[0]",
        "clean.outputs.id, other]",
        "clean.outputs.id is BYTES",
        "mean needs numbers",
        "method: vote",
    ),
    (
        "inputs: [score, other]",
        "inputs: [score, clean.outputs.rows]",
        "spec.steps[4].inputs[1]",
        "clean.outputs.rows]\n<END>",
        "clean.outputs.rows has shape [-1, 3]",
        "score.outputs.y has shape [-1, 2]",
        "one shape",
    ),
    (
        "inputs: [score, other]",
        "inputs: [score, clean]",
        "spec.steps[4].inputs[1]",
        "clean]\n<END>",
        "clean brings rows, id",
        "one tensor of each input",
        "name it: clean.outputs.<tensor>",
    ),
    (
        "combiner: {method: mean}\n      inputs: [score, other]",
        "combiner: {method: vote}\n      inputs: [score, clean.outputs.id]",
        "spec.steps[4].inputs[1]",
        "clean.outputs.id]\n<END>",
        "clean.outputs.id is BYTES",
        "score.outputs.y is FP32",
        "one datatype",
    ),
    (
        "combiner: {method: mean}\n      inputs: [score, other]",
        "model: {url: http://x}\n      inputs: [score, other]\n      tensorMap: {other.outputs.z: y}",
        "spec.steps[4].inputs[1]",
        "other]\n      tensorMap",
        "tensor 'y' arrives twice",
        "score.outputs.y brings it, and other.outputs.z does too",
        "tensorMap: {other.outputs.z: <new name>}",
    ),
]

Load = Callable[[str], list[Pipeline]]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    features = (
        Feature(name="age", kind="numeric"),
        Feature(name="job", kind="text", datatype="BYTES"),
        Feature(name="pay", kind="numeric"),
    )
    (tmp_path / "schema.yaml").write_text(FeatureSchema(format_version=1, model="p", features=features).to_yaml())

    def load_text(text: str) -> list[Pipeline]:
        (tmp_path / "p.yaml").write_text(text)
        return load_pipelines(tmp_path / "p.yaml", kinds=kinds)

    return load_text


@pytest.mark.parametrize(("old", "new", "field", "at", "what", "why", "fix"), CASES)
def test_each_contradiction_has_its_place_reason_and_fix(
    load: Load, old: str, new: str, field: str, at: str, what: str, why: str, fix: str
) -> None:
    assert BASE.count(old) == 1
    text = BASE.replace(old, new)
    with pytest.raises(PipelineError) as caught:
        load(text)
    problem = next(one for one in caught.value.problems if what in one.what)
    end = (text + "<END>").index(at)
    assert (problem.line, problem.column) == (text[:end].count("\n") + 1, end - text[:end].rfind("\n"))
    assert problem.field == field
    assert (why in problem.why, fix in problem.fix) == (True, True), str(problem)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("{url:", "{url:"),
        ("datatype: FP64, shape: [-1, 3]}],", "datatype: FP64, shape: [5, -1]}],"),
        ("datatype: FP64, shape: [-1, 3]}],", "datatype: FP64}],"),
        ("{name: age, datatype: FP64}", "{name: salary, datatype: INT64}"),  # a request may hold more than the schema
        (
            "{name: x, datatype: FP64, shape: [-1, 3]}",
            "{name: x, datatype: FP64}, {name: w, datatype: BOOL, optional: true}",
        ),
        (
            "combiner: {method: mean}\n      inputs: [score, other]",
            "combiner: {method: vote}\n      inputs: [clean.outputs.id]",
        ),
        # Of any one input arrives; of exclusive tensors one is there.
        (
            "combiner: {method: mean}\n      inputs: [score, other]",
            "model: {url: http://x}\n      inputs: [score, other]\n      inputsJoinType: any\n"
            "      tensorMap: {other.outputs.z: y}",
        ),
        (
            "outputs: [{name: y, datatype: FP32, shape: [-1, 2]}]}",
            "outputs: [{name: y, datatype: FP32}, {name: z, datatype: FP32}], oneOf: [y, z]}",
        ),
    ],
)
def test_what_may_go_together_is_right(load: Load, old: str, new: str) -> None:
    assert load(BASE.replace(old, new))
