from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.tree import Tree

from govern.cli.pipeline_show import draw
from govern.errors import ConfigError
from govern.pipeline import Pipeline, PipelineError, Problem, load_pipelines
from govern.pipeline.graph import graph
from govern.pipeline.svg import svg
from tests.pipeline.conftest import kinds
from tests.pipeline.test_deadlocks import graphs

Problems = Callable[..., tuple[Problem, ...]]
Load = Callable[..., list[Pipeline]]


def test_a_correct_file_is_read(load: Load, good: str) -> None:
    (pipeline,) = load(good)
    assert (pipeline.name, pipeline.namespace) == ("monitor", "default")
    assert [step.name for step in pipeline.spec.steps] == ["employment", "drift", "outlier", "adversarial", "explain"]
    drift = pipeline.spec.steps[1].detector
    assert drift is not None
    assert drift.params == {"p_value": 0.05}
    explain = pipeline.spec.steps[4].explainer
    assert explain is not None
    assert (explain.max_per_window, explain.deadline_s) == (5, 30.0)


def test_all_errors_are_reported_in_file_order(problems: Problems) -> None:
    found = problems(
        ("size: 500", "size: 0"),
        ("type: isolation_forest", "type: isolation_florist"),
        ("employment.outputs.probability", "employd.outputs.probability"),
        ("steps: [drift, outlier]", "steps: [drifft]"),
        ("  schema: schema.yaml", "  schemas: schema.yaml"),
    )
    assert [one.field for one in found] == [
        "spec.schema",
        "spec.schemas",
        "spec.steps[1].batch.size",
        "spec.steps[2].detector.type",
        "spec.steps[3].inputs[1]",
        "spec.output.steps[0]",
    ]


def test_the_error_says_it_all_in_one_text(load: Load, good: str, tmp_path: Path) -> None:
    with pytest.raises(PipelineError) as caught:
        load(good.replace("size: 500", "size: 0").replace("steps: [drift, outlier]", "steps: [no]"))
    assert caught.value.what == f"{tmp_path / 'pipeline.yaml'}: 2 errors"
    assert f"{tmp_path / 'pipeline.yaml'}:13:21: spec.steps[1].batch.size: it is 0" in caught.value.why
    with pytest.raises(PipelineError) as caught:
        load(good.replace("size: 500", "size: 0"))
    assert caught.value.what == f"{tmp_path / 'pipeline.yaml'}:13:21: spec.steps[1].batch.size: it is 0"


def test_schema_and_artifacts_must_be_there(problems: Problems, load: Load, good: str, tmp_path: Path) -> None:
    found = problems(("schema: schema.yaml", "schema: none.yaml"))
    assert [(one.line, one.field) for one in found] == [(6, "spec.schema")]
    assert load(good.replace("schema.yaml", "none.yaml"), schema=False)
    (tmp_path / "artifacts/drift").mkdir(parents=True)
    (tmp_path / "artifacts/drift/artifact.json").write_text("{}")
    with pytest.raises(PipelineError) as caught:
        load(good, artifacts=True)
    assert [(one.line, one.what) for one in caught.value.problems] == [
        (15, "artifact is missing"),
        (17, "artifact is missing"),
    ]
    (tmp_path / "schema.yaml").write_text("format_version: 9")
    with pytest.raises(PipelineError, match="is no feature schema"):
        load(good)


def test_several_pipelines_in_one_file(load: Load, good: str) -> None:
    other = good.replace("monitor", "second")
    assert [one.name for one in load(f"---\n{good}---\n{other}---\n")] == ["monitor", "second"]
    with pytest.raises(PipelineError, match="'monitor' comes twice"):
        load(f"{good}---\n{good}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1, 2", r"pipeline\.yaml:\d+:\d+: no YAML"),
        ("a: 1\na: 2", r"pipeline\.yaml:2:1: a comes twice"),
        ("a: &x 1\nb: *x", r"pipeline\.yaml:2:4: alias \*x"),
        ("a: !!python/object:os.system {}", "no pipeline of govern"),
        ("a: !!python/name:os.system x", r"pipeline\.yaml:1:4: no YAML"),
        ("a: 2026-02-31", r"pipeline\.yaml:1:4: a cannot be read"),
        ("[1]", "the document is no mapping"),
        ("", "it is empty"),
        ("a: \x00", "no YAML"),
        ("[" * 800 + "]" * 800, "nested too deeply"),
    ],
)
def test_a_file_that_is_no_pipeline(load: Load, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(text)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_pipelines(tmp_path / "none.yaml")


NAMES = st.sampled_from(["monitor", "drift", "outlier", "employment", "explain", "x"])
REFERENCES = st.builds(
    ".".join, st.lists(NAMES | st.sampled_from(["inputs", "outputs", "outliers", "is_drift", ""]), max_size=4)
)
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | REFERENCES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
TENSORS = st.lists(st.fixed_dictionaries({"name": NAMES, "datatype": st.sampled_from(["FP64", "BYTES"])}), max_size=2)
ROUTES = st.lists(st.fixed_dictionaries({"name": NAMES}), min_size=2, max_size=3)
JOIN = st.sampled_from(["inner", "outer", "any"]) | ANY
SOME = st.lists(REFERENCES | NAMES, min_size=1, max_size=3)
RENAMED = st.dictionaries(REFERENCES, NAMES, max_size=2)
ROLES: list[st.SearchStrategy[dict[str, object]]] = [
    st.fixed_dictionaries({role: ANY | content})
    for role, content in {
        "detector": st.sampled_from([{"type": "tabular", "artifact": "a"}, {"type": "x", "artifact": "a"}]),
        "explainer": st.just({"name": "e"}),
        "model": st.just({"captured": True})
        | st.fixed_dictionaries({"url": st.just("http://x")}, optional={"inputs": TENSORS, "outputs": TENSORS}),
        "transformer": st.fixed_dictionaries({"callable": st.just("a:b")}, optional={"outputs": TENSORS, "oneOf": ANY}),
        "router": st.fixed_dictionaries({"strategy": st.just("thompson"), "routes": ROUTES | ANY}),
        "combiner": st.fixed_dictionaries({"method": st.sampled_from(["mean", "weighted"])}, optional={"weights": ANY}),
    }.items()
]
STEP = st.builds(
    lambda role, step, wild: {**step, **role, **wild},
    st.one_of(ROLES),
    st.fixed_dictionaries(
        {"name": NAMES}, optional={"inputs": SOME, "triggers": SOME, "inputsJoinType": JOIN, "tensorMap": RENAMED}
    ),
    st.just({})
    | st.dictionaries(st.sampled_from(["name", "inputs", "triggers", "batch", "tensorMap"]), ANY, max_size=1),
)
SPEC = st.fixed_dictionaries(
    {"steps": st.lists(STEP, min_size=1, max_size=5)},
    optional={
        "output": ANY | st.fixed_dictionaries({"steps": SOME}, optional={"stepsJoin": JOIN, "tensorMap": RENAMED}),
        "input": ANY | st.fixed_dictionaries({"externalInputs": SOME}, optional={"externalTriggers": SOME}),
        "allowCycles": st.booleans() | ANY,
        "schema": st.just("schema.yaml"),
        "source": st.just({"service": "s", "model": "m"}),
    },
)
WILD = st.fixed_dictionaries(
    {
        "apiVersion": st.just("govern.io/v1alpha1"),
        "kind": st.just("Pipeline"),
        "metadata": st.just({"name": "monitor"}) | ANY,
        "spec": SPEC | ANY,
    }
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(document=WILD | graphs())
def test_any_document_is_a_placed_error_or_a_pipeline_that_can_be_drawn(load: Load, document: object) -> None:
    problems: tuple[Problem, ...] = ()
    try:
        (pipeline,) = load(yaml.safe_dump(document))
    except PipelineError as error:
        problems = error.problems
    if problems:
        assert all(one.line >= 1 and one.column >= 1 and one.fix for one in problems)
        return
    one = graph(pipeline, kinds=kinds)
    assert ElementTree.fromstring(svg([one])).tag.endswith("svg")
    assert one.name in render(draw(pipeline, one))


def render(tree: Tree) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(tree)
    return console.export_text()
