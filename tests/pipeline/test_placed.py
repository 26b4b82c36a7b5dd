"""What is wrong with placements, each at its place; what the parts of a right one are; and who reads them."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from govern.cli.pipeline import app
from govern.pipeline import PipelineError
from govern.pipeline.chain import chain
from govern.pipeline.cut import PART_OF, cut
from govern.pipeline.graph import fed, graph
from govern.pipeline.groups import PLACEMENT
from govern.pipeline.load import load_documents, load_pipelines
from govern.pipeline.spec import Pipeline
from govern.pipeline.topology import digest
from govern.schema import Feature, FeatureSchema
from tests.pipeline.conftest import kinds

HEAD = """\
apiVersion: govern.io/v1alpha1
kind: Pipeline
metadata: {name: p}
spec:
  source: {service: s, model: m}
  schema: schema.yaml
  steps:
    - {name: m1, model: {captured: true}}
    - {name: a, transformer: {callable: "x:f"}}
    - {name: b, transformer: {callable: "x:f"}, PLACED inputs: [a.outputs.t]}
"""
PLACED = "placement: gpu,"


def load(folder: Path, rest: str = "", head: str = HEAD) -> Pipeline:
    (folder / "p.yaml").write_text(head.replace("PLACED", PLACED) + rest)
    (pipeline,) = load_pipelines(folder / "p.yaml", schema=False, kinds=kinds)
    return pipeline


def test_a_pipeline_that_places_nothing_keeps_its_digest_and_is_its_own_part(tmp_path: Path) -> None:
    plain = load(tmp_path, head=HEAD.replace("PLACED ", ""))
    assert cut(plain, kinds=kinds) == (plain,)
    assert "placement" not in str(plain.canonical())
    assert digest(plain) == "74caa22997789812426271f39437c5159eb0b5b2fbf3659a0e2bd1bc7a950e4d"  # before the key
    assert digest(load(tmp_path)) != digest(plain)


def test_steps_of_one_placement_that_can_run_together_do(tmp_path: Path) -> None:
    rest = (
        "    - {name: c, transformer: {callable: 'x:f'}, placement: gpu, inputs: [b.outputs, a.outputs.u]}\n"
        "    - {name: d, transformer: {callable: 'x:f'}, inputs: [c.outputs.t, a.outputs.t],"
        " tensorMap: {c.outputs.t: v}}\n"
        "    - {name: e, transformer: {callable: 'x:f'}, inputs: [d.outputs.t, m1.outputs.y], joinWindowMs: 7}\n"
        "    - {name: g, transformer: {callable: 'x:f'}, inputs: [d.outputs.t], triggers: [p.inputs, a.outputs.v]}\n"
        "    - {name: h, transformer: {callable: 'x:f'}, inputs: [a.outputs.w, p.inputs.x], inputsJoinType: any}\n"
        "  output: {steps: [g]}\n"
    )
    parts = {part.name: part for part in cut(load(tmp_path, rest), kinds=kinds)}
    assert {name: [step.name for step in part.spec.steps] for name, part in parts.items()} == {
        "p-a": ["m1", "a", "h"],
        "p-b": ["b", "c"],
        "p-d": ["d"],
        "p-e": ["e"],
        "p": ["g"],
    }
    assert {name: part.metadata.labels for name, part in parts.items() if PLACEMENT in part.metadata.labels} == {
        "p-b": {PART_OF: "p", PLACEMENT: "gpu"}
    }
    b, d, e, g = (parts[name].spec.input for name in ("p-b", "p-d", "p-e", "p"))
    assert b is not None
    assert d is not None
    assert e is not None
    assert g is not None
    assert b.external_inputs == ("p-a.step.a.outputs",)
    assert [step.inputs for step in parts["p-b"].spec.steps] == [("p-b.inputs.t",), ("b.outputs", "p-b.inputs.u")]
    assert d.external_inputs == ("p-b.step.c.outputs.t", "p-a.step.a.outputs.t")
    assert d.tensor_map == {"p-b.step.c.outputs.t": "v"}
    assert (e.external_inputs, e.join_window_ms) == (("p-d.step.d.outputs.t", "p-a.step.m1.outputs.y"), 7)
    assert g.external_triggers == ("p-a.inputs", "p-a.step.a.outputs.v")
    assert [part for part, one in parts.items() if one.spec.output is not None] == ["p"]


def test_when_all_is_placed_elsewhere_one_part_has_the_name(tmp_path: Path) -> None:
    head = HEAD.replace('callable: "x:f"}}', 'callable: "x:f"}, placement: gpu}')
    (part,) = cut(load(tmp_path, head=head), kinds=kinds)
    assert (part.name, part.metadata.labels[PLACEMENT]) == ("p", "gpu")
    assert [step.name for step in part.spec.steps] == ["m1", "a", "b"]


def test_a_detector_goes_where_it_is_placed_and_an_explainer_where_it_is_triggered(tmp_path: Path) -> None:
    rest = (
        "    - {name: odd, detector: {type: isolation_forest, artifact: x}, placement: gpu}\n"
        "    - {name: far, detector: {type: isolation_forest, artifact: x}, inputs: [b.outputs]}\n"
        "    - {name: why, explainer: {name: e}, triggers: [odd.outputs.outliers]}\n"
        "  output:\n"
        "    steps: [far, odd]\n"
        "    tensorMap: {far.outputs.is_outlier: f, far.outputs.instance_score: g, far.outputs.outliers: h}\n"
    )
    parts = {part.name: part for part in cut(load(tmp_path, rest), kinds=kinds)}
    assert {name: [step.name for step in part.spec.steps] for name, part in parts.items()} == {
        "p-a": ["m1", "a"],
        "p-b": ["b"],
        "p-odd": ["m1", "odd", "why"],
        "p": ["far"],
    }
    given = {name: part.spec.output for name, part in parts.items()}
    assert {name: one.steps for name, one in given.items() if one is not None} == {"p-odd": ("odd",), "p": ("far",)}
    graphs = [graph(part, kinds=kinds) for part in parts.values()]
    assert [node.name for one in graphs for node in one.steps if fed(node, one)] == ["far"]


def test_others_read_the_whole_and_are_given_what_its_parts_publish(tmp_path: Path) -> None:
    reader = HEAD[: HEAD.index("  source")].replace("{name: p}", "{name: r}") + (
        "  input:\n"
        "    externalInputs: [p.step.b.outputs.t, p.outputs.t, p.step.m1.outputs, p.inputs]\n"
        "    tensorMap: {p.outputs.t: u}\n"
        "  schema: schema.yaml\n"
        "  steps: [{name: z, transformer: {callable: 'x:f'}}]\n"
    )
    rest = "    - {name: c, transformer: {callable: 'x:f'}, inputs: [b.outputs]}\n  output: {steps: [c]}\n"
    whole = load(tmp_path, rest)
    r = load(tmp_path, head=reader)
    pipelines = {part.name: part for part in (*cut(whole, kinds=kinds), r)}
    readings = chain(r, pipelines, kinds=kinds).readings
    assert [(one.service, one.model, one.side, one.pipeline) for one in readings] == [
        ("s", "p-b.b", "outputs", "p-b"),
        ("s", "p", "outputs", "p"),
        ("s", "m", "outputs", ""),
        ("s", "m", "inputs", ""),
    ]


F = "transformer: {callable: 'x:f'}"
ODD = "detector: {type: isolation_forest, artifact: x}"
CASES = [
    (f"{{name: c, {F}, inputs: [b.inputs]}}", "steps[3].inputs[0]", "read what step 'b' reads"),
    (
        f"{{name: c, {F}, inputs: [b.outputs.t, a.outputs.t], inputsJoinType: any}}",
        "steps[3].inputsJoinType",
        "place it where the steps are that it reads, or write inner",
    ),
    (
        "{name: c, combiner: {method: mean}, inputs: [b.outputs, a.outputs.t]}",
        "steps[3].inputs[0]",
        "name the tensor: <step>.outputs.<tensor>",
    ),
    (
        f"{{name: odd, {ODD}, inputs: [b.outputs]}}\n"
        "    - {name: why, explainer: {name: e}, triggers: [odd.outputs.outliers]}",
        "steps[4].triggers[0]",
        "trigger it by detectors in one place that read the pipeline's inputs",
    ),
    (
        f"{{name: odd, {ODD}}}\n    - {{name: even, {ODD}, placement: gpu}}\n"
        "    - {name: why, explainer: {name: e}, triggers: [odd.outputs.outliers, even.outputs.outliers]}",
        "steps[5].triggers[1]",
        "trigger it by detectors in one place that read the pipeline's inputs",
    ),
    (
        f"{{name: odd, {ODD}}}\n"
        f"    - {{name: why, explainer: {{name: e}}, triggers: [odd.outputs.outliers], {PLACED}}}",
        "steps[4].placement",
        "remove `placement`",
    ),
    ("{name: m2, model: {captured: true}, placement: gpu}", "steps[3].placement", "remove `placement`"),
    (
        f"{{name: c, {F}, inputs: [b.outputs]}}\n  output: {{steps: [b, c]}}",
        "output.steps[1]",
        "name one step that reads them all",
    ),
    (
        f"{{name: odd, {ODD}}}\n    - {{name: even, {ODD}, placement: gpu}}\n  output: {{steps: [odd]}}",
        "steps[4]",
        "name it in the output",
    ),
    (
        f"{{name: c, {F}, inputs: [a.outputs, d.outputs], inputsJoinType: any}}\n"
        f"    - {{name: d, {F}, inputs: [c.outputs.t], placement: gpu}}\n  allowCycles: true",
        "steps[4]",
        "place all of its steps alike",
    ),
    (
        f"{{name: c, {F}, inputs: [b.outputs, d.outputs], inputsJoinType: any}}\n"
        f"    - {{name: d, {F}, inputs: [c.outputs.t], triggers: [a.outputs]}}\n  allowCycles: true",
        "steps[3]",
        "place it where the steps are that it reads",
    ),
    (f"{{name: p-b, {F}}}\n  output: {{steps: [a]}}", "steps[2].name", "rename one of the steps"),
]


@pytest.mark.parametrize(("rest", "field", "fix"), CASES)
def test_what_cannot_be_cut_is_said_at_its_place(tmp_path: Path, rest: str, field: str, fix: str) -> None:
    with pytest.raises(PipelineError) as error:
        load(tmp_path, f"    - {rest}\n")
    assert [(problem.field, problem.fix) for problem in error.value.problems] == [(f"spec.{field}", fix)]


def test_names_of_parts_that_are_too_long_or_watched_are_refused(tmp_path: Path) -> None:
    long = HEAD.replace("{name: p}", "{name: " + 62 * "p" + "}")
    with pytest.raises(PipelineError, match="is 64 characters"):
        load(tmp_path, head=long)
    with pytest.raises(PipelineError, match="p-b is the watched model"):
        load(tmp_path, head=HEAD.replace("model: m}", "model: p-b}"))


def test_a_pipeline_that_is_only_called_places_nothing(tmp_path: Path) -> None:
    head = HEAD[: HEAD.index("  source")] + "  steps:\n" + HEAD[HEAD.index("    - {name: a") :]
    with pytest.raises(PipelineError, match=r"spec.steps\[1\].placement: `placement` has no use"):
        load(tmp_path, head=head)


def test_a_part_and_a_pipeline_of_another_file_cannot_have_one_name(tmp_path: Path) -> None:
    schema = FeatureSchema(format_version=1, model="m", features=(Feature(name="x", kind="numeric"),))
    (tmp_path / "schema.yaml").write_text(schema.to_yaml())
    one, other = tmp_path / "p.yaml", tmp_path / "q.yaml"
    one.write_text(HEAD.replace("PLACED", PLACED))
    other.write_text(HEAD.replace("PLACED ", "").replace("{name: p}", "{name: p-b}"))
    result = CliRunner().invoke(app, ["check", str(one), str(other)])
    assert result.exit_code == 2, result.output
    assert f"{one}:10:14 spec.steps[2].name pipeline 'p-b' comes twice" in result.output
    (both := tmp_path / "both.yaml").write_text(one.read_text() + "---\n" + other.read_text())
    with pytest.raises(PipelineError, match="'p-b' comes twice"):
        load_documents(both)
    with one.open("a") as file:
        file.write(
            "    - {name: c, combiner: {method: mean}, inputs: [a.outputs.t, b.outputs.t], joinWindowMs: 7}\n"
            "    - {name: d, combiner: {method: mean}, inputs: [c.outputs.output], joinWindowMs: 7}\n"
        )
    checked = CliRunner().invoke(app, ["check", str(one)])
    assert "part p-c, placed nowhere: c, d" in checked.output
    (unused,) = [line for line in checked.output.splitlines() if "`joinWindowMs` has no use" in line]
    assert "spec.steps[4].joinWindowMs" in unused
    shown = CliRunner().invoke(app, ["show", str(one)])
    assert "part p-b, placed at gpu: b" in shown.output.splitlines()
    assert any("placed at gpu" in line and "transformer" in line for line in shown.output.splitlines())
