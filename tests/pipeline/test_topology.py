from __future__ import annotations

from collections.abc import Callable

import pytest

from govern.errors import ConfigError, NotFound
from govern.pipeline import Pipeline, plan
from govern.pipeline.references import Reference, detector_kind, parse, parse_external

Load = Callable[..., list[Pipeline]]


def kinds(type_: str) -> str:
    return {"tabular": "drift", "isolation_forest": "outlier", "model_distillation": "adversarial"}[type_]


def planned(load: Load, text: str, **digests: str):  # type: ignore[no-untyped-def]
    (pipeline,) = load(text)
    return plan(pipeline, artifact_digests=digests, kinds=kinds)  # type: ignore[arg-type]


def test_steps_are_ordered_and_completed(load: Load, good: str) -> None:
    one = planned(load, good)
    names = [step.name for step in one.steps]
    assert sorted(names) == ["adversarial", "drift", "employment", "explain", "outlier"]
    assert names.index("employment") < names.index("adversarial") < names.index("explain")
    assert names.index("outlier") < names.index("explain")
    assert [(one.step(name).kind, one.step(name).batch_size, one.step(name).window_ms) for name in sorted(names)] == [
        ("adversarial", 10, 50),
        ("drift", 500, 60_000),
        ("model", 0, 0),
        ("explainer", 0, 0),
        ("outlier", 100, 1000),
    ]
    assert one.step("adversarial").needs_outputs == ("probability",)
    assert one.step("explain").triggers == (("outlier", "outliers"), ("adversarial", "adversarials"))
    assert one.step("explain").after == ("outlier", "adversarial")
    assert (one.name, one.source.service, one.schema_path) == ("monitor", "employment", "schema.yaml")
    assert one.outputs == ("drift", "outlier")
    with pytest.raises(NotFound, match="no step 'x'"):
        one.step("x")


def test_order_does_not_depend_on_the_file(load: Load, good: str) -> None:
    head, steps = good.split("    - name: employment\n")
    steps, tail = steps.split("  output:")
    explain = steps.index("    - name: explain")
    turned = head + steps[explain:] + "    - name: employment\n" + steps[:explain] + "  output:" + tail
    one = planned(load, turned)
    assert [step.name for step in one.steps][-1] == "explain"


def test_all_detectors_are_the_output_by_default(load: Load, good: str) -> None:
    one = planned(load, good.replace("  output: {steps: [drift, outlier]}\n", ""))
    assert set(one.outputs) == {"drift", "outlier", "adversarial"}


def test_an_output_of_other_steps_silences_no_detector(load: Load, good: str) -> None:
    one = planned(load, good.replace("steps: [drift, outlier]", "steps: [employment]"))
    assert set(one.outputs) == {"drift", "outlier", "adversarial"}
    one = planned(load, good.replace("steps: [drift, outlier]", "steps: [employment, drift]"))
    assert one.outputs == ("drift",)


def test_steps_of_a_loop_stay_as_the_file_has_them(load: Load, good: str) -> None:
    loop = """    - {name: back, transformer: {callable: "a:b"}, inputs: [monitor.inputs, forth], inputsJoinType: any}
    - {name: forth, transformer: {callable: "a:b"}, inputs: [back]}
"""
    one = planned(load, good.replace("  steps:\n", f"  allowCycles: true\n  steps:\n{loop}"))
    names = ["back", "forth", "employment", "drift", "outlier", "adversarial", "explain"]
    assert [step.name for step in one.steps] == names
    assert one.step("back").kind == "transformer"


def test_the_digest_covers_content_and_artifacts_but_not_form(load: Load, good: str) -> None:
    digest = planned(load, good).digest
    assert planned(load, "# a comment\n" + good).digest == digest
    assert planned(load, good.replace("{size: 500}", "{windowMs: 60000, size: 500}")).digest != digest
    assert planned(load, good.replace("0.05", "0.01")).digest != digest
    assert planned(load, good, drift="d1").digest != digest
    assert planned(load, good, drift="d1").digest != planned(load, good, drift="d2").digest


def test_a_pipeline_that_uses_no_later_key_keeps_the_digest_that_its_verdicts_were_recorded_with(
    load: Load, good: str
) -> None:
    recorded = "0f0926cedb2f7dd032f73f88750a7d2979425004e679a60bb8baf3a36d9143fa"  # of the release before those keys
    assert planned(load, good).digest == recorded
    told = good.replace("size: 500", "size: 500, rolling: false").replace(
        "  output:", "  allowCycles: false\n  output:"
    )
    assert planned(load, told).digest == recorded
    assert planned(load, good.replace("size: 500", "size: 500, rolling: true")).digest != recorded


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("a", Reference("a", "outputs")),
        ("a.inputs", Reference("a", "inputs")),
        ("a.outputs.b", Reference("a", "outputs", "b")),
        ("a.outputs.b.c", Reference("a", "outputs", "b.c")),
        ("", None),
        (".", None),
        ("a.", None),
        (".outputs", None),
        ("a.outputs.", None),
        ("a.b", None),
        ("a.step.b.outputs", None),
    ],
)
def test_references(text: str, reference: Reference | None) -> None:
    assert parse(text) == reference


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("a", Reference("", "outputs", pipeline="a")),
        ("a.inputs.x", Reference("", "inputs", "x", pipeline="a")),
        ("a.step.b", Reference("b", "outputs", pipeline="a")),
        ("a.step.b.outputs.c.d", Reference("b", "outputs", "c.d", pipeline="a")),
        ("a.step.", None),
        ("a.b", None),
        (".step.b", None),
        ("", None),
    ],
)
def test_references_to_other_pipelines(text: str, reference: Reference | None) -> None:
    assert parse_external(text) == reference
    assert reference is None or parse_external(str(reference)) == reference


def test_kinds_of_real_detectors() -> None:
    assert detector_kind("tabular") == "drift"
    assert detector_kind("isolation_forest") == "outlier"
    assert detector_kind("model_distillation") == "adversarial"
    with pytest.raises(ConfigError, match="'none' is not known"):
        detector_kind("none")
