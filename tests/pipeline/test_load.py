from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from govern.errors import ConfigError, GovernError
from govern.pipeline import Pipeline, PipelineError, Problem, load_pipelines

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
STEP = st.fixed_dictionaries(
    {"name": NAMES | ANY},
    optional={
        "detector": ANY | st.just({"type": "tabular", "artifact": "a"}) | st.just({"type": "x", "artifact": "a"}),
        "explainer": ANY | st.just({"name": "e"}),
        "model": ANY | st.just({"captured": True}),
        "inputs": ANY | st.lists(REFERENCES, max_size=3),
        "triggers": ANY | st.lists(REFERENCES, max_size=3),
        "batch": ANY,
    },
)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(spec=ANY | st.fixed_dictionaries({"steps": st.lists(STEP, max_size=5), "output": ANY}), metadata=ANY)
def test_any_document_is_a_pipeline_or_a_placed_error(load: Load, spec: object, metadata: object) -> None:
    document = {"apiVersion": "govern.io/v1alpha1", "kind": "Pipeline", "metadata": metadata, "spec": spec}
    with pytest.raises(GovernError) as caught:
        load(yaml.safe_dump(document))
    assert isinstance(caught.value, PipelineError)
    assert all(one.line >= 1 and one.column >= 1 and one.fix for one in caught.value.problems)
