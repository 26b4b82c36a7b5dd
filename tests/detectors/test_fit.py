"""Fitting the detectors of a pipeline from a reference."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from detectors import artifacts
from detectors.fit import draft_or_kept, fit, jobs
from govern.errors import BadInput, ConfigError
from govern.frame import MISSING, Frame
from govern.pipeline import Pipeline
from govern.pipeline.spec import API_VERSION, Metadata, PipelineSpec, Source, Step
from govern.table import read

SAMPLE = Path(__file__).parents[1] / "data" / "acs_sample.parquet"
NOT_FEATURES = ("id", "employed", "year", "prediction")


def pipeline_of(*detectors: dict[str, object]) -> Pipeline:
    steps = tuple(Step(name=f"s{i}", detector=detector) for i, detector in enumerate(detectors))
    return Pipeline(
        api_version=API_VERSION,
        kind="Pipeline",
        metadata=Metadata(name="p"),
        spec=PipelineSpec(source=Source(service="s", model="made"), schema_path="schema.yaml", steps=steps),
    )


def test_every_step_is_fitted_and_stored(make_table, tmp_path):
    pipeline = pipeline_of(
        {"type": "tabular", "params": {"p_val": 0.01, "correction": "fdr"}, "artifact": "a/drift"},
        {"type": "isolation_forest", "params": {"seed": 3}, "artifact": "a/outlier"},
        {"type": "model_distillation", "artifact": "a/adversarial"},
        {"type": "ddm", "artifact": "a/online"},
    )
    reference = make_table(600)
    reports = list(fit(jobs(pipeline, tmp_path), reference))
    assert [(one.step, one.kind, one.method) for one in reports] == [
        ("s0", "drift", "tabular"),
        ("s1", "outlier", "isolation_forest"),
        ("s2", "adversarial", "model_distillation"),
        ("s3", "drift", "ddm"),
    ]
    for one in reports:
        stored = artifacts.load(one.path)
        assert one.path.is_relative_to(tmp_path / "a")
        assert (one.digest, one.rows) == (stored.digest, 600)
        assert stored.reference_digest == reference.digest
        # At its first row ddm cannot alarm: what is reported is the threshold of later ones.
        settled = stored.thresholds[-1] if one.method == "ddm" else stored.score(reference).threshold
        assert one.threshold == pytest.approx(settled)
        assert np.isfinite(one.threshold)


def test_fitting_goes_step_by_step(make_table, tmp_path):
    work = jobs(pipeline_of({"type": "ks", "artifact": "a"}, {"type": "chi_squared", "artifact": "b"}), tmp_path)
    going = fit(work, make_table(100))
    assert not (tmp_path / "a").exists()
    next(going)
    assert (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("detector", "message"),
    [
        ({"type": "ks", "params": {"colour": "red"}}, r"step 's0': detector 'ks' refuses its parameters: .*'colour'"),
        ({"type": "ks", "params": {"p_val": 2.0}}, r"step 's0': ks: p_val is 2\.0"),
        ({"type": "unheard-of"}, "'unheard-of' is not known: registered are .*tabular"),
    ],
)
def test_wrong_detectors_are_named(tmp_path, detector, message):
    with pytest.raises(ConfigError, match=message):
        jobs(pipeline_of({"artifact": "a", **detector}), tmp_path)


def test_two_steps_may_not_share_an_artifact(tmp_path):
    with pytest.raises(ConfigError, match="step 's1': artifact 'a' is also that of step 's0'"):
        jobs(pipeline_of({"type": "ks", "artifact": "a"}, {"type": "tabular", "artifact": "a"}), tmp_path)


def _with_first(frame: Frame, column: np.ndarray) -> Frame:
    return dataclasses.replace(frame, columns=(column, *frame.columns[1:]))


def _with_last(frame: Frame, column: np.ndarray) -> Frame:
    return dataclasses.replace(frame, columns=(*frame.columns[:-1], column))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda frame: _with_first(frame, np.full(100, 7.0)), r"'x0' is constant: it is 7\.0 in all 100 rows"),
        (lambda frame: _with_first(frame, np.full(100, np.nan)), "'x0' has no values: all 100 are missing"),
        (lambda frame: _with_last(frame, np.full(100, 2, np.int32)), "'c1' is constant: it is 'v2' in all 100"),
        (lambda frame: _with_last(frame, np.full(100, MISSING, np.int32)), "'c1' has no values"),
        (lambda frame: dataclasses.replace(frame, outputs={}), "output 'predict_proba', which the reference lacks"),
        (lambda frame: frame.take(slice(0, 5)), "the reference has 5 rows: at least 20 are needed"),
    ],
)
def test_a_useless_reference_leaves_no_artifact(make_table, tmp_path, spoil, message):
    work = jobs(pipeline_of({"type": "ks", "artifact": "a"}, {"type": "model_distillation", "artifact": "b"}), tmp_path)
    with pytest.raises(BadInput, match=message):
        list(fit(work, spoil(make_table(100))))
    assert list(tmp_path.iterdir()) == []


def test_a_schema_is_inferred_without_outputs(tmp_path):
    schema, kept = draft_or_kept(
        read(SAMPLE),
        tmp_path / "schema.yaml",
        "employment",
        exclude=NOT_FEATURES,
        protected=["SEX"],
        pii=["AGEP"],
        outputs={"p": "predicted_probability"},
    )
    assert not kept
    assert len(schema.features) == 16
    assert schema["SEX"].protected
    assert schema["AGEP"].pii


def test_an_edited_schema_is_kept(make_table, tmp_path):
    path = tmp_path / "schema.yaml"
    schema = make_table(10).schema
    path.write_text(schema.to_yaml().replace("- name: x0\n", "- name: x0\n  title: age\n"))
    found, kept = draft_or_kept(read(SAMPLE), path, "made", exclude=["not there either"])
    assert kept
    assert found["x0"].title == "age"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exclude": ["x0"]}, "says otherwise of 'x0' than --exclude"),
        ({"protected": ["x0"]}, "says otherwise of 'x0' than --protected"),
        ({"pii": ["nothing"]}, "says otherwise of 'nothing' than --pii"),
        ({"model": "another"}, "is of model 'made'"),
    ],
)
def test_a_kept_schema_that_says_otherwise(make_table, tmp_path, options, message):
    path = tmp_path / "schema.yaml"
    path.write_text(make_table(10).schema.to_yaml())
    with pytest.raises(BadInput, match=message):
        draft_or_kept(read(SAMPLE), path, **{"model": "made", **options})
