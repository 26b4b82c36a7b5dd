"""Pipelines that read pipelines: where the records lie, and what is wrong between files."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from govern.cli.pipeline import app
from govern.pipeline.chain import Reading, chain, published_steps
from govern.pipeline.checks import chains
from govern.pipeline.load import load_documents
from govern.pipeline.spec import Source
from govern.schema import Feature, FeatureSchema
from tests.pipeline.conftest import kinds

HEAD = "apiVersion: govern.io/v1alpha1\nkind: Pipeline\nmetadata: {name: NAME}\nspec:\n"
WATCH = """\
  source: {service: shop, model: price}
  schema: schema.yaml
  steps:
    - {name: price, model: {captured: true}}
    - {name: split, router: {strategy: weighted, routes: [{name: old}, {name: new}]}}
    - {name: scale, transformer: {callable: pkg:scale}, inputs: [price.outputs]}
    - {name: odd, detector: {type: isolation_forest, artifact: a}}
"""
CALLED = "  steps: [{name: one, model: {url: http://x}}]\n  output: {steps: [one]}\n"
READS = """\
  input: {REST}
  schema: schema.yaml
  steps: [{name: two, transformer: {callable: pkg:two}}]
  output: {steps: [two]}
"""


def files(folder: Path, **rest: str) -> list[chains.Found]:
    found = []
    for name, text in rest.items():
        file = folder / f"{name}.yaml"
        file.write_text(HEAD.replace("NAME", name) + text)
        found += load_documents(file, schema=False, kinds=kinds)
    return found


def reads(rest: str) -> str:
    return READS.replace("REST", rest)


def test_each_reference_names_one_side_of_the_inferences_of_one_model(tmp_path: Path) -> None:
    rest = (
        "externalInputs: [watch.inputs, watch.outputs.y, watch.step.price.outputs.p, watch.step.scale.inputs], "
        "externalTriggers: [watch.step.split.outputs.old, last.outputs], "
        "tensorMap: {watch.outputs.y: z}, joinWindowMs: 70, joinType: outer, triggersJoinType: any"
    )
    output = "  output: {steps: [scale]}\n"
    found = files(tmp_path, watch=WATCH + output, last=reads("externalInputs: [watch.outputs]"), b=reads(rest))
    assert chains.check(found, kinds=kinds) == []
    pipelines = {pipeline.name: pipeline for _, pipeline in found}
    b, last = (chain(pipelines[name], pipelines, kinds=kinds) for name in ("b", "last"))
    assert [(one.service, one.model, one.side, one.pipeline, one.whole) for one in b.readings] == [
        ("shop", "price", "inputs", "", True),
        ("shop", "watch", "outputs", "watch", False),
        ("shop", "price", "outputs", "", False),
        ("shop", "watch.scale", "inputs", "watch", True),
        ("shop", "watch.split", "outputs", "watch", False),
        ("shop", "last", "outputs", "last", False),
    ]
    assert dict(b.inputs[1].port.names) == {"y": "z"}
    assert (b.window_ms, b.inputs_join, b.triggers_join, len(b.triggers)) == (70, "outer", "any", 2)
    assert (b.joins, b.source) == (True, Source(service="shop", model="b.inputs"))
    assert (last.joins, last.source) == (False, Source(service="shop", model="watch"))
    assert published_steps([b, last]) == {"watch": {"scale", "split"}}
    assert isinstance(b.inputs[0], Reading)


CASES = [
    ("watch.step.none.outputs", "watch has no step 'none'", "price, split, scale, odd"),
    ("watch.step.odd.outputs.is_outlier", "odd gives no tensors to other pipelines", "published as verdicts"),
    ("watch.outputs", "watch.outputs is not published", "watch has no `output`"),
    ("judged.outputs", "judged.outputs is not published", "judged gives verdicts only"),
    ("called.outputs", "called.outputs is not published", "only ever called"),
    ("called.inputs", "called.inputs is not published", "watches no captured stream"),
    ("last.inputs", "last.inputs is not published", "it reads others, too"),
]


@pytest.mark.parametrize(("reference", "what", "why"), CASES)
def test_what_no_other_pipeline_can_read_is_said_at_its_place(
    tmp_path: Path, reference: str, what: str, why: str
) -> None:
    found = files(
        tmp_path,
        watch=WATCH,
        judged=WATCH + "  output: {steps: [odd]}\n",
        called=CALLED,
        last=reads("externalInputs: [watch.inputs]"),
        b=reads(f"externalInputs: [watch.inputs], externalTriggers: [{reference}]"),
    )
    (problem,) = chains.check(found, kinds=kinds)
    assert (problem.what, problem.field) == (what, "spec.input.externalTriggers[0]")
    assert why in problem.why


def test_branches_of_another_pipeline_that_exclude_each_other_never_meet(tmp_path: Path) -> None:
    both = "externalInputs: [watch.step.split.outputs.old, watch.step.split.outputs.new]"
    (problem,) = chains.check(files(tmp_path, watch=WATCH, b=reads(both)), kinds=kinds)
    assert (problem.field, problem.fix) == ("spec.input.externalInputs[1]", "write joinType: any")
    assert chains.check(files(tmp_path, watch=WATCH, b=reads(both + ", joinType: any")), kinds=kinds) == []


def test_a_step_cannot_have_the_name_of_what_a_pipeline_is_given(tmp_path: Path) -> None:
    both = reads("externalInputs: [watch.inputs, watch.step.scale.outputs]").replace("name: two", "name: inputs")
    (problem,) = chains.check(files(tmp_path, watch=WATCH, b=both.replace("[two]", "[inputs]")), kinds=kinds)
    assert (problem.field, problem.what) == ("spec.steps[0].name", "step 'inputs'")


def test_a_ring_is_found_over_files_and_an_absent_pipeline_is_named(tmp_path: Path) -> None:
    schema = FeatureSchema(format_version=1, model="m", features=(Feature(name="x", kind="numeric"),))
    (tmp_path / "schema.yaml").write_text(schema.to_yaml())
    files(tmp_path, a=reads("externalInputs: [b.outputs]"), b=reads("externalInputs: [a.outputs]"))

    def check(*names: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["check", *(str(tmp_path / f"{name}.yaml") for name in names)])
        return result.exit_code, result.output

    code, output = check("a", "b")
    assert code == 2
    assert "spec.input.externalInputs[0] b -> a -> b is a ring" in output or "a -> b -> a is a ring" in output
    code, output = check("a")
    assert code == 0, output
    assert "not given: 5:28 spec.input.externalInputs[0] pipeline 'b': none of these files has it" in output
