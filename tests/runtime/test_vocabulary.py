"""A worker refuses, at its place, all that it does not run, and runs the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from govern.pipeline import PipelineError, Problem
from govern.pipeline import spec as models
from govern.pipeline.load import load_documents
from govern.runtime import vocabulary
from govern.runtime.loader import load
from govern.schema import Feature, FeatureSchema
from tests.pipeline.conftest import CALLED, GOOD, kinds
from tests.runtime.conftest import Fitted

#: (text to replace, replacement, text at whose place the refusal is, field, what, why, fix).
CASES = [
    (
        "  output:",
        "  dataflow: {cleanTopicsOnDelete: true}\n  output:",
        "dataflow",
        "spec.dataflow",
        "`dataflow`",
        "no topics of its own",
        "govern topics",
    ),
    (
        "batch: {size: 10, windowMs: 50}",
        "batch: {size: 10, rolling: true}",
        "rolling",
        "spec.steps[3].batch.rolling",
        "`rolling` of detector step 'adversarial'",
        "each row is judged once, by itself",
        "remove `rolling`",
    ),
    (
        "      triggers: [outlier.outputs.outliers, adversarial.outputs.adversarials]\n",
        "      triggers: [outlier.outputs.outliers, adversarial.outputs.adversarials]\n      triggersJoinType: inner\n",
        "triggersJoinType",
        "spec.steps[4].triggersJoinType",
        "`triggersJoinType`",
        "any of its triggers",
        "remove it",
    ),
    (
        "      triggers: [outlier.outputs.outliers, adversarial.outputs.adversarials]\n",
        "",
        "name: ex",
        "spec.steps[4]",
        "explainer step 'explain' has no triggers",
        "flagged rows only",
        "outliers",
    ),
    (
        "      model: {captured: true}\n",
        "      model: {captured: true}\n      batch: {size: 3}\n",
        "batch",
        "spec.steps[0].batch",
        "model step 'employment'",
        "only detectors",
        "remove `batch`",
    ),
    (
        "      batch: {size: 500}\n",
        "      triggers: [outlier.outputs.outliers]\n",
        "outlier.",
        "spec.steps[1].triggers[0]",
        "outlier.outputs.outliers",
        "speaks of windows",
        "each inference",
    ),
    (
        "employment.outputs.probability",
        "drift.outputs.is_drift",
        "drift.",
        "spec.steps[3].inputs[1]",
        "drift.outputs.is_drift",
        "speaks of windows",
        "read monitor.inputs",
    ),
    (
        "inputs: [monitor.inputs]\n      triggers",
        "inputs: [outlier.outputs.outliers]\n      triggers",
        "outlier.",
        "spec.steps[4].inputs[0]",
        "outlier.outputs.outliers",
        "triggered by flagged rows",
        "write triggers: [outlier.outputs.outliers]",
    ),
    (
        "outlier.outputs.outliers",
        "drift.outputs.is_drift",
        "drift.",
        "spec.steps[4].triggers[0]",
        "drift.outputs.is_drift",
        "never flags single rows",
        "outlier.outputs.outliers",
    ),
    (
        "outlier.outputs.outliers",
        "outlier.outputs.is_outlier",
        "outlier.",
        "spec.steps[4].triggers[0]",
        "outlier.outputs.is_outlier",
        "for every window",
        "only when rows were flagged",
    ),
    (
        "outlier.outputs.outliers",
        "employment.outputs.p",
        "employment.outputs.p,",
        "spec.steps[4].triggers[0]",
        "employment.outputs.p",
        "never flags single rows",
        "outlier.outputs.outliers",
    ),
    (
        "outlier.outputs.outliers",
        "monitor.inputs",
        "monitor.inputs, a",
        "spec.steps[4].triggers[0]",
        "monitor.inputs",
        "flagged rows only",
        "outlier.outputs.outliers",
    ),
    (
        "steps: [drift, outlier]",
        "steps: [explain]",
        "explain]",
        "spec.output.steps[0]",
        "step 'explain' gives no output",
        "a topic of their own",
        "other steps",
    ),
    (
        "steps: [drift, outlier]",
        "steps: [drift.outputs.is_drift]",
        "drift.outputs.is_drift",
        "spec.output.steps[0]",
        "drift.outputs.is_drift",
        "verdicts whole",
        "write drift",
    ),
    (
        "inputs: [monitor.inputs]\n      triggers",
        "inputs: [monitor.inputs.a]\n      triggers",
        "monitor.inputs.a",
        "spec.steps[4].inputs[0]",
        "monitor.inputs.a",
        "all of them",
        "read monitor.inputs",
    ),
    (
        "inputs: [monitor.inputs]\n      triggers",
        "inputs: [monitor.inputs]\n      tensorMap: {monitor.inputs.a: b}\n      triggers",
        "tensorMap",
        "spec.steps[4].tensorMap",
        "`tensorMap`",
        "the schema gives them",
        "remove it",
    ),
    (
        "      model: {captured: true}\n",
        "      model: {captured: true}\n      triggers: [monitor.inputs]\n",
        "triggers",
        "spec.steps[0].triggers",
        "model step 'employment'",
        "was called already",
        "remove `triggers`",
    ),
    (
        "      model: {captured: true}\n",
        "      model: {captured: true}\n      inputs: [monitor.inputs.a]\n",
        "monitor.inputs.a",
        "spec.steps[0].inputs[0]",
        "monitor.inputs.a",
        "was called already",
        "remove it",
    ),
]


def refused(folder: Path, text: str) -> list[Problem]:
    schema = FeatureSchema(format_version=1, model="m", features=(Feature(name="a", kind="numeric"),))
    (folder / "schema.yaml").write_text(schema.to_yaml())
    (folder / "p.yaml").write_text(text)
    ((document, pipeline),) = load_documents(folder / "p.yaml", kinds=kinds)
    return vocabulary.unrun(document, pipeline, kinds=kinds)


@pytest.mark.parametrize(("old", "new", "at", "field", "what", "why", "fix"), CASES)
def test_each_refusal_has_its_place_reason_and_fix(
    tmp_path: Path, old: str, new: str, at: str, field: str, what: str, why: str, fix: str
) -> None:
    assert GOOD.count(old) == 1
    text = GOOD.replace(old, new)
    (problem,) = refused(tmp_path, text)
    before = text[: text.index(at, GOOD.index(old) - 100)]
    assert (problem.line, problem.column) == (before.count("\n") + 1, len(before) - before.rfind("\n"))
    assert problem.field == field
    assert (what in problem.what, why in problem.why, fix in problem.fix) == (True, True, True), str(problem)


def test_a_detector_that_remembers_is_not_given_windows_that_overlap(tmp_path: Path) -> None:
    text = GOOD.replace("batch: {size: 500}", "batch: {size: 500, rolling: true}")
    assert refused(tmp_path, text) == []
    (problem,) = refused(tmp_path, text.replace("type: tabular", "type: online_cvm"))
    assert problem.field == "spec.steps[1].batch.rolling"
    assert "remembers the windows before" in problem.why


def test_of_a_called_pipeline_a_worker_refuses_what_is_not_of_one_inference(tmp_path: Path) -> None:
    step = "spec.steps[{}].{}".format
    assert [problem.field for problem in refused(tmp_path, CALLED)] == [
        "spec.dataflow",
        "spec",
        step(2, "batch"),
        step(6, "triggersJoinType"),
        step(6, "triggers[0]"),
        step(6, "triggers[1]"),
    ]


WATCHED = """
apiVersion: govern.io/v1alpha1
kind: Pipeline
metadata: {name: p}
spec:
  source: {service: s, model: m}
  schema: schema.yaml
  allowCycles: true
  maxStepRevisits: 3
  steps:
    - {name: m, model: {captured: true}}
    - {name: other, model: {url: "http://other:8080", name: x, version: "1", timeoutMs: 5}, inputs: [p.inputs.a]}
    - name: choice
      router: {strategy: thompson, routes: [{name: left}, {name: right}]}
    - name: both
      combiner: {method: mean, output: a}
      inputs: [m, other.outputs.y]
      inputsJoinType: outer
    - name: encode
      transformer:
        callable: "some:thing"
        outputs: [{name: b, datatype: FP64}, {name: c, datatype: FP64, shape: [-1, 2]}]
      inputs: [both, again]
      inputsJoinType: any
      triggers: [choice.outputs.left, choice.outputs.right]
      triggersJoinType: any
      tensorMap: {both.outputs.a: b}
    - {name: again, transformer: {callable: "some:thing"}, inputs: [encode.outputs.b]}
    - {name: drift, detector: {type: tabular, artifact: a}, inputs: [encode.outputs.c], triggers: [choice.outputs.left]}
    - {name: outlier, detector: {type: isolation_forest, artifact: b}, inputs: [m.inputs.a]}
  output: {steps: [drift, encode, again.outputs.d], stepsJoin: outer, tensorMap: {encode.outputs.c: e}}
"""


def test_a_worker_runs_whatever_says_something_of_one_inference(tmp_path: Path) -> None:
    """What a detector reads of other steps is not of the schema, which has one feature here, but of its own."""
    assert refused(tmp_path, WATCHED) == []


def test_a_worker_says_that_it_need_not_wait_for_what_cannot_come_any_more(tmp_path: Path) -> None:
    text = WATCHED.replace("stepsJoin: outer", "stepsJoin: outer, joinWindowMs: 5")
    text = text.replace("      inputsJoinType: outer\n", "      inputsJoinType: outer\n      joinWindowMs: 7\n")
    assert refused(tmp_path, text) == []
    ((document, pipeline),) = load_documents(tmp_path / "p.yaml", kinds=kinds)
    found = vocabulary.undone(document, pipeline)
    assert [one.field for one in found] == ["spec.steps[3].joinWindowMs", "spec.output.joinWindowMs"]


def test_a_call_is_answered_by_what_says_something_of_one_request(tmp_path: Path) -> None:
    drift = (
        "    - {name: drift, detector: {type: tabular, artifact: a}}\n"
        "    - {name: after, model: {url: http://x}, inputs: [drift]}\n"
    )
    text = CALLED.replace("  output:", f"{drift}  output:").replace("spec:\n", "spec:\n  schema: schema.yaml\n")
    (tmp_path / "p.yaml").write_text(text)
    assert refused(tmp_path, text)
    ((document, pipeline),) = load_documents(tmp_path / "p.yaml", kinds=kinds)
    assert vocabulary.unserved(document, pipeline, kinds=kinds) == []
    idle = [one.what for one in vocabulary.unused(document, pipeline, kinds=kinds) if "does nothing" in one.what]
    assert idle == [f"step {name!r} does nothing" for name in ("why", "drift", "after")]
    (tmp_path / "p.yaml").write_text(text.replace("[mean.outputs.score]", "[mean.outputs.score, after]"))
    ((document, pipeline),) = load_documents(tmp_path / "p.yaml", kinds=kinds)
    (problem,) = vocabulary.unserved(document, pipeline, kinds=kinds)
    assert (problem.field, problem.what) == ("spec.output.steps[1]", "after never comes")
    assert "waits for step 'drift'" in problem.why


def test_a_pipeline_without_output_or_with_a_source_is_not_served_whole(tmp_path: Path) -> None:
    for text, what in (
        (GOOD, "monitor is not served whole"),
        (CALLED.partition("  output:")[0], "`output` is missing"),
    ):
        refused(tmp_path, text)
        ((document, pipeline),) = load_documents(tmp_path / "p.yaml", kinds=kinds)
        assert [one.what for one in vocabulary.unserved(document, pipeline, kinds=kinds)] == [what]


def test_what_asks_for_nothing_else_than_a_worker_does_is_run(tmp_path: Path) -> None:
    text = GOOD.replace("batch: {size: 500}", "batch: {size: 500, rolling: true}\n      inputsJoinType: outer")
    text = text.replace("batch: {size: 10, windowMs: 50}", "inputsJoinType: inner")
    text = text.replace("{captured: true}", "{captured: true, outputs: [{name: probability, datatype: FP64}]}")
    assert refused(tmp_path, text + "  allowCycles: false\n") == []


def test_a_later_key_of_the_vocabulary_is_run_declared_or_refused() -> None:
    """What a new key of the specification would need, lest a worker ignores it."""
    known = {*vocabulary.REFUSED, *vocabulary.DECLARATIONS, *vocabulary.RUN}
    sections = (models.PipelineSpec, models.Step, models.Batch, models.ModelSpec, models.Output)
    later = {(one, one.model_fields[name].alias or name) for one in sections for name in one.added}
    assert later == known


def test_a_worker_that_is_given_such_a_file_says_so_and_loads_nothing(fitted: Fitted, tmp_path: Path) -> None:
    file = fitted.write(tmp_path / "pipeline", "default")
    good = file.read_text()
    file.write_text(good.replace("{size: 20, ", "{rolling: true, size: 20, "))
    with pytest.raises(PipelineError, match=r"spec\.steps\[2\]\.batch\.rolling: `rolling` of detector step") as caught:
        load(file)
    assert [problem.place for problem in caught.value.problems] == [f"{file}:18:15"]
    file.write_text(good.replace("{size: 300, ", "{rolling: true, size: 300, "))
    (loaded,) = load(file)
    assert {one.name for one in loaded.plan.steps if one.rolling} == {"drift"}
