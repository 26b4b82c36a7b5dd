"""Every rule of a pipeline file: the error's place, field, words and fix."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from govern.pipeline import PipelineError, Problem
from tests.pipeline.conftest import Load

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
        "`detector:`",
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
        "externalInputs",
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
        "steps: [drift, outlier]",
        "steps: [drift, outlir]",
        "outlir",
        "spec.output.steps[1]",
        "step 'outlir' does not exist",
        "did you mean 'outlier'?",
    ),
    (
        "  source: {service: employment, model: employment}\n",
        "",
        "true",
        "spec.steps[0].model.captured",
        "model 'employment' is not captured",
        "write spec.source",
    ),
    (
        "  output:",
        "  input: {externalInputs: [x]}\n  output:",
        "input:",
        "spec.input",
        "`source` and `input`",
        "remove one",
    ),
    (
        "{captured: true}",
        "{captured: true, timeoutMs: 10}",
        "timeoutMs",
        "spec.steps[0].model.timeoutMs",
        "`timeoutMs` has no effect",
        "write `url:`",
    ),
    (
        "  output:",
        "  maxStepRevisits: 3\n  output:",
        "maxStepRevisits",
        "spec.maxStepRevisits",
        "bounds nothing",
        "allowCycles: true",
    ),
    (
        "  output:",
        "  passEmptyResponses: true\n  output:",
        "passEmptyResponses",
        "spec.passEmptyResponses",
        "key 'passEmptyResponses'",
        "remove it",
    ),
    ("steps: [drift, outlier]", "steps: []", "[]", "spec.output.steps", "`steps` is empty", "remove `output`"),
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


#: As above, of the pipeline that is called.
CALLED_CASES = [
    ("http://scorer:8080", "http://scorer:8080/v2", "http://scorer", "spec.steps[1].model.url", "it is", "host:port"),
    (
        "{url: http://scorer:8080, ",
        "{",
        "{inputs",
        "spec.steps[1].model",
        "it is neither captured nor called",
        "`url: http://host:port`",
    ),
    (
        "url: http://scorer:8080,",
        "captured: true, url: http://scorer:8080,",
        "{capt",
        "spec.steps[1].model",
        "it is captured and called",
        "keep one",
    ),
    ("pkg.clean:rows", "clean", "clean}", "spec.steps[0].transformer.callable", "it is 'clean'", "package.module"),
    (
        "datatype: FP32, shape",
        "datatype: F32, shape",
        "F32",
        "spec.steps[1].model.inputs[0].datatype",
        "it is 'F32'",
        "write one",
    ),
    (
        "oneOf: [good, bad]",
        "oneOf: [good, bat]",
        "bat]",
        "spec.steps[1].model.oneOf[1]",
        "output 'bat' is not declared",
        "did you mean 'bad'?",
    ),
    (
        "{name: bad, datatype: FP32}",
        "{name: good, datatype: FP32}",
        "good, datatype: FP32}],",
        "spec.steps[1].model.outputs[1].name",
        "tensor 'good' comes twice",
        "rename",
    ),
    (
        "{name: b}",
        "{name: a}",
        "a}]",
        "spec.steps[2].router.routes[1].name",
        "route 'a' comes twice",
        "rename",
    ),
    (
        "{name: a, weight: 9}, {name: b}",
        "{name: a, weight: 0}, {name: b, weight: 0}",
        "[{name: a, w",
        "spec.steps[2].router.routes",
        "no route is open",
        "weight",
    ),
    (
        "strategy: weighted",
        "strategy: thompson",
        "weight:",
        "spec.steps[2].router.routes[0].weight",
        "`weight` has no effect",
        "remove it",
    ),
    (
        "strategy: weighted",
        "strategy: weighted, epsilon: 0.2",
        "epsilon",
        "spec.steps[2].router.epsilon",
        "`epsilon` has no effect",
        "remove it",
    ),
    (
        "strategy: weighted",
        "strategy: random",
        "random",
        "spec.steps[2].router.strategy",
        "it is 'random'",
        "correct the value",
    ),
    ("[{name: a, weight: 9}, {name: b}]", "[{name: a}]", "[{name: a}]", "spec.steps[2].router.routes", "", ""),
    (
        "weights: [2, 1]",
        "weights: [2, 1, 1]",
        "[2, 1, 1]",
        "spec.steps[5].combiner.weights",
        "3 weights",
        "one number for each input",
    ),
    ("weights: [2, 1]", "weights: [0, 0]", "[0, 0]", "spec.steps[5].combiner.weights", "all weights are 0", "raise"),
    (
        "method: weighted",
        "method: vote",
        "weights",
        "spec.steps[5].combiner.weights",
        "`weights` has no effect",
        "method: weighted",
    ),
    (
        "triggers: [split.outputs.b]",
        "triggers: [split.outputs.c]",
        "split.outputs.c",
        "spec.steps[4].triggers[0]",
        "split.outputs.c",
        "split emits: a, b",
    ),
    (
        "inputs: [scorer.outputs.good]",
        "inputs: [scorer.outputs.goood]",
        "scorer.outputs.goood",
        "spec.steps[3].inputs[0]",
        "scorer.outputs.goood",
        "did you mean 'good'?",
    ),
    (
        "triggers: [split.outputs.b]",
        "triggers: [split.outputs.b, split.outputs.b]",
        "split.outputs.b]",
        "spec.steps[4].triggers[1]",
        "split.outputs.b comes twice",
        "remove one",
    ),
    (
        "{clean.outputs.rows: x}",
        "{clean.outputs: x}",
        "clean.outputs: x",
        "spec.steps[1].tensorMap.clean.outputs",
        "clean.outputs",
        "<step>.outputs.<tensor>",
    ),
    (
        "{clean.outputs.rows: x}",
        "{split.outputs.a: x}",
        "split.outputs.a: x",
        "spec.steps[1].tensorMap.split.outputs.a",
        "split.outputs.a",
        "clean.outputs",
    ),
    (
        "{size: 3, windowMs: 10, rolling: true}",
        "{rolling: true}",
        "rolling",
        "spec.steps[2].batch.rolling",
        "`rolling` has no effect",
        "write size or windowMs",
    ),
    (
        "externalInputs: [intake.outputs]",
        "externalInputs: []",
        "externalInputs",
        "spec.input.externalInputs",
        "`externalInputs` is empty",
        "name a reference",
    ),
    (
        "externalInputs: [intake.outputs], ",
        "",
        "{externalTriggers",
        "spec.input",
        "`externalInputs` is missing",
        "add",
    ),
    (
        "externalInputs: [intake.outputs]",
        "externalInputs: [score.outputs]",
        "score.outputs]",
        "spec.input.externalInputs[0]",
        "score.outputs",
        "own data",
    ),
    (
        "externalTriggers: [gate.step.open.outputs.go]",
        "externalTriggers: [gate.open.outputs]",
        "gate.open",
        "spec.input.externalTriggers[0]",
        "gate.open.outputs",
        "<pipeline>.step.<step>.outputs",
    ),
    (
        "steps: [mean.outputs.score]",
        "steps: [mean.outputs.scores]",
        "mean.outputs.scores",
        "spec.output.steps[0]",
        "mean.outputs.scores",
        "did you mean 'score'?",
    ),
    (
        "steps: [mean.outputs.score]",
        "steps: [mean.inputs]",
        "mean.inputs",
        "spec.output.steps[0]",
        "mean.inputs",
        "<step>.outputs.<tensor>",
    ),
    ("stepsJoin: inner", "stepsJoin: innr", "innr", "spec.output.stepsJoin", "it is 'innr'", "correct the value"),
    ("joinWindowMs: 50", "joinWindowMs: -1", "-1", "spec.steps[5].joinWindowMs", "it is -1", "correct the value"),
    ("stepsJoin: inner", "stepsJoins: inner", "stepsJoins", "spec.output.stepsJoins", "unknown key", "'stepsJoin'?"),
]


@pytest.mark.parametrize(("old", "new", "at", "field", "what", "fix"), CALLED_CASES)
def test_each_error_of_a_called_pipeline_has_its_place_and_fix(
    load: Load, called: str, old: str, new: str, at: str, field: str, what: str, fix: str
) -> None:
    assert called.count(old) == 1
    text = called.replace(old, new)
    with pytest.raises(PipelineError) as caught:
        load(text)
    (problem,) = (one for one in caught.value.problems if one.field == field)
    before = text[: text.index(at, called.index(old) - len(at))]
    assert (problem.line, problem.column) == (before.count("\n") + 1, len(before) - before.rfind("\n"))
    assert (problem.field, what in problem.what, fix in problem.fix) == (field, True, True), str(problem)


def test_a_pipeline_that_says_everything_is_right(load: Load, called: str) -> None:
    (pipeline,) = load(called)
    assert [step.role for step in pipeline.spec.steps] == [
        "transformer", "model", "router", "model", "model", "combiner", "explainer"
    ]  # fmt: skip


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


@pytest.mark.parametrize("model", ["monitor", "monitor.drift"])
def test_a_pipeline_does_not_watch_what_it_gives(load: Load, good: str, problems: Problems, model: str) -> None:
    own = ("model: employment}", f"model: {model}}}")
    (found,) = problems(own, ("steps: [drift, outlier]", "steps: [drift, employment]"))
    assert (found.field, found.what) == ("spec.source.model", f"{model} is the pipeline itself")
    assert "rename the pipeline" in found.fix
    load(good.replace(*own))  # verdicts are no inferences
