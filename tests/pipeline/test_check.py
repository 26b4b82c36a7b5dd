"""Every rule of a pipeline file: the error's place, field, words and fix."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from govern.pipeline import Problem

Problems = Callable[..., tuple[Problem, ...]]

#: (text to replace, replacement, text at whose place the error is, field, what, fix).
CASES = [
    (
        "params: {p_value: 0.05}",
        "parms: {}",
        "parms",
        "spec.steps[1].detector.parms",
        "unknown key 'parms'",
        "did you mean 'params'?",
    ),
    (
        "batch: {size: 500}",
        "batch: {sizes: 500}",
        "sizes",
        "spec.steps[1].batch.sizes",
        "unknown key 'sizes'",
        "did you mean 'size'?",
    ),
    (
        "  source: {service: employment, model: employment}\n",
        "",
        "schema",
        "spec.source",
        "it is missing",
        "add `source:`",
    ),
    ("  schema: schema.yaml\n", "", "source", "spec.schema", "it is missing", "add `schema:`"),
    ("size: 500", "size: -5", "-5", "spec.steps[1].batch.size", "it is -5", "correct the value"),
    ("size: 500", "size: '500'", "'", "spec.steps[1].batch.size", "it is '500'", "correct the value"),
    (
        "windowMs: 50",
        "windowMs: 0",
        "0}\n    - name: e",
        "spec.steps[3].batch.windowMs",
        "it is 0",
        "correct the value",
    ),
    (
        "p_value: 0.05",
        "p_value: [1]",
        "[1]",
        "spec.steps[1].detector.params.p_value",
        "it is (1,)",
        "correct the value",
    ),
    ("name: monitor,", "name: Monitor,", "Monitor", "metadata.name", "name 'Monitor'", "rename it"),
    ("batch: {size: 500}", "batch: 500", "500", "spec.steps[1].batch", "it is 500", "write key: value lines"),
    (
        "{captured: true}",
        "{captured: false}",
        "false",
        "spec.steps[0].model.captured",
        "it is False",
        "correct the value",
    ),
    (
        "  schema: schema.yaml\n",
        "  schema: schema.yaml\n  allowCycles: true\n",
        "allowCycles",
        "spec.allowCycles",
        "key 'allowCycles'",
        "without cycles",
    ),
    (
        "      batch: {size: 500}\n",
        "      batch: {size: 500, rolling: true}\n",
        "rolling",
        "spec.steps[1].batch.rolling",
        "key 'rolling'",
        "tumbling",
    ),
    (
        "      batch: {size: 500}\n",
        "      inputsJoinType: any\n",
        "inputsJoinType",
        "spec.steps[1].inputsJoinType",
        "key 'inputsJoinType'",
        "no join",
    ),
    (
        "      batch: {size: 500}\n",
        "      tensorMap: {a: b}\n",
        "tensorMap",
        "spec.steps[1].tensorMap",
        "key 'tensorMap'",
        "schema",
    ),
    ("  output:", "  input: {externalInputs: [x]}\n  output:", "input:", "spec.input", "key 'input'", "source"),
    (
        "name: outlier",
        "name: monitor",
        "monitor\n",
        "spec.steps[2].name",
        "step 'monitor' has the pipeline's name",
        "rename",
    ),
    ("name: explain", "name: drift", "drift\n      e", "spec.steps[4].name", "step 'drift' comes twice", "rename"),
    (
        "      explainer: {name: employment-shap}\n",
        "",
        "name: ex",
        "spec.steps[4]",
        "step explain has no kind",
        "add `detector:`",
    ),
    (
        "      model: {captured: true}\n",
        "      model: {captured: true}\n      explainer: {name: x}\n      triggers: [outlier.outputs.outliers]\n",
        "name: e",
        "spec.steps[0]",
        "step employment has explainer and model",
        "keep one",
    ),
    (
        "      triggers: [outlier.outputs.outliers, adversarial.outputs.adversarials]\n",
        "",
        "name: ex",
        "spec.steps[4]",
        "explainer step 'explain' has no triggers",
        "outliers",
    ),
    (
        "      model: {captured: true}\n",
        "      model: {captured: true}\n      batch: {size: 3}\n",
        "batch",
        "spec.steps[0].batch",
        "model step 'employment'",
        "remove `batch`",
    ),
    (
        "      batch: {size: 500}\n",
        "      triggers: [outlier.outputs.outliers]\n",
        "triggers",
        "spec.steps[1].triggers",
        "detector step 'drift'",
        "remove `triggers`",
    ),
    (
        "type: tabular,",
        "type: tabulr,",
        "tabulr",
        "spec.steps[1].detector.type",
        "'tabulr' is not known",
        "did you mean 'tabular'?",
    ),
    (
        "inputs: [monitor.inputs, employment.outputs.probability]",
        "inputs: []",
        "inputs: []",
        "spec.steps[3].inputs",
        "`inputs` is empty",
        "leave the key out",
    ),
    (
        "triggers: [outlier.outputs.outliers, adversarial.outputs.adversarials]",
        "triggers:",
        "triggers",
        "spec.steps[4].triggers",
        "`triggers` is empty",
        "name a reference",
    ),
    (
        "employment.outputs.probability",
        "employmnt.outputs.probability",
        "employmnt",
        "spec.steps[3].inputs[1]",
        "employmnt.outputs.probability",
        "did you mean 'employment'?",
    ),
    (
        "employment.outputs.probability",
        "other.step.x.outputs.t",
        "other",
        "spec.steps[3].inputs[1]",
        "other.step.x.outputs.t",
        "own steps",
    ),
    (
        "employment.outputs.probability",
        "employment.result",
        "employment.",
        "spec.steps[3].inputs[1]",
        "employment.result",
        "<step>.outputs.<tensor>",
    ),
    (
        "employment.outputs.probability",
        "monitor.outputs",
        "monitor.o",
        "spec.steps[3].inputs[1]",
        "monitor.outputs",
        "monitor.inputs",
    ),
    (
        "employment.outputs.probability",
        "monitor.inputs.AGEP",
        "monitor.inputs.",
        "spec.steps[3].inputs[1]",
        "monitor.inputs.AGEP",
        "all of them",
    ),
    (
        "employment.outputs.probability",
        "employment.inputs",
        "employment.",
        "spec.steps[3].inputs[1]",
        "employment.inputs",
        "monitor.inputs",
    ),
    (
        "employment.outputs.probability",
        "drift.outputs.is_drift",
        "drift.",
        "spec.steps[3].inputs[1]",
        "drift.outputs.is_drift",
        "a model's outputs",
    ),
    (
        "outlier.outputs.outliers",
        "outlier.outputs.outlier",
        "outlier.",
        "spec.steps[4].triggers[0]",
        "outlier.outputs.outlier",
        "did you mean 'outliers'?",
    ),
    (
        "outlier.outputs.outliers",
        "drift.outputs.outliers",
        "drift.",
        "spec.steps[4].triggers[0]",
        "drift.outputs.outliers",
        "is_drift",
    ),
    (
        "outlier.outputs.outliers",
        "drift.outputs.is_drift",
        "drift.",
        "spec.steps[4].triggers[0]",
        "drift.outputs.is_drift",
        "outlier.outputs.outliers",
    ),
    (
        "outlier.outputs.outliers",
        "outlier.outputs.is_outlier",
        "outlier.",
        "spec.steps[4].triggers[0]",
        "outlier.outputs.is_outlier",
        "only when rows were flagged",
    ),
    (
        "outlier.outputs.outliers",
        "outlier",
        "outlier,",
        "spec.steps[4].triggers[0]",
        "outlier",
        "only when rows were flagged",
    ),
    (
        "outlier.outputs.outliers",
        "employment.outputs.p",
        "employment.outputs.p,",
        "spec.steps[4].triggers[0]",
        "employment.outputs.p",
        "outlier.outputs.outliers",
    ),
    (
        "outlier.outputs.outliers",
        "monitor.inputs",
        "monitor.inputs, a",
        "spec.steps[4].triggers[0]",
        "monitor.inputs",
        "outlier.outputs.outliers",
    ),
    (
        "steps: [drift, outlier]",
        "steps: [drift, outlir]",
        "outlir",
        "spec.output.steps[1]",
        "step 'outlir' does not exist",
        "did you mean 'outlier'?",
    ),
    ("steps: [drift, outlier]", "steps: []", "[]", "spec.output.steps", "`steps` is empty", "remove `output`"),
    (
        "steps: [drift, outlier]",
        "steps: [explain]",
        "explain]",
        "spec.output.steps[0]",
        "step 'explain' gives no verdict",
        "detector steps",
    ),
    (
        "govern.io/v1alpha1",
        "mlops.seldon.io/v1alpha1",
        "mlops",
        "apiVersion",
        "no pipeline of govern",
        "govern pipeline import",
    ),
    ("kind: Pipeline", "kind: Model", "Model", "kind", "no pipeline of govern", "kind: Pipeline"),
]

#: Renaming these breaks references, too; only the name is looked at here.
REFERRED_TO = ("name: monitor,", "name: outlier", "name: explain")


@pytest.mark.parametrize(("old", "new", "at", "field", "what", "fix"), CASES)
def test_each_error_has_its_place_and_fix(
    problems: Problems, good: str, old: str, new: str, at: str, field: str, what: str, fix: str
) -> None:
    found = [one for one in problems((old, new)) if old not in REFERRED_TO or one.field == field]
    assert len(found) == 1, [str(one) for one in found]
    (problem,) = found
    before = good.replace(old, new).partition(at)[0]
    assert (problem.line, problem.column) == (before.count("\n") + 1, len(before) - before.rfind("\n"))
    assert problem.field == field
    assert what in problem.what
    assert problem.why
    assert fix in problem.fix


def test_a_cycle_names_its_path(problems: Problems) -> None:
    found = problems(
        ("      batch: {size: 500}\n", ""),
        ("      inputs: [monitor.inputs]\n    - name: outlier", "      inputs: [outlier.outputs]\n    - name: outlier"),
        ("artifact: artifacts/outlier}", "artifact: artifacts/outlier}\n      inputs: [drift.outputs]"),
    )
    assert len(found) == 1, [str(one) for one in found]
    assert found[0].what in ("cycle drift -> outlier -> drift", "cycle outlier -> drift -> outlier")
    assert found[0].field in ("spec.steps[1].inputs", "spec.steps[2].inputs")


def test_a_step_that_reads_itself_is_a_cycle(problems: Problems) -> None:
    (found,) = problems(("employment.outputs.probability", "adversarial.outputs"))
    assert found.what == "cycle adversarial -> adversarial"
