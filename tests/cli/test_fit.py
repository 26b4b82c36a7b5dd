"""`govern fit` as a person types it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from detectors import artifacts
from govern.cli.main import main
from govern.pipeline import load_pipelines
from govern.schema import FeatureSchema

SAMPLE = Path(__file__).parents[1] / "data" / "acs_sample.parquet"
COLUMNS = [word for name in ("id", "employed", "year", "prediction") for word in ("--exclude", name)]
OUTPUT = ["--output", "p=predicted_probability"]

PIPELINE = """
apiVersion: govern.io/v1alpha1
kind: Pipeline
metadata: {name: people}
spec:
  source: {service: office, model: employment}
  schema: schema.yaml
  steps:
    - name: drift
      detector: {type: tabular, artifact: artifacts/drift}
      batch: {size: 500}
    - name: adversarial
      detector: {type: model_distillation, params: {output: p, epochs: 5}, artifact: artifacts/adversarial}
      inputs: [people.inputs, employment.outputs.p]
      batch: {size: 500}
    - name: employment
      model: {captured: true}
"""


@pytest.fixture
def pipeline(tmp_path) -> Path:
    path = tmp_path / "pipeline.yaml"
    path.write_text(PIPELINE)
    return path


class Ran(NamedTuple):
    code: int
    stdout: str
    stderr: str


@pytest.fixture
def govern_fit(monkeypatch, capsys) -> Callable[..., Ran]:
    def run(*words: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["govern", "fit", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        return Ran(int(ended.value.code or 0), *capsys.readouterr())

    return run


def test_schema_and_artifacts_that_the_pipeline_accepts(govern_fit, pipeline):
    words = [SAMPLE, "--pipeline", pipeline, *COLUMNS, *OUTPUT, "--protected", "SEX", "--rows", 1000, "--seed", 1]
    ran = govern_fit(*words)
    assert ran.code == 0, ran.stderr
    assert "16 features (15 categorical, 1 numeric)" in ran.stdout
    for word in ("tabular", "model_distillation", "1,000", "2/2"):
        assert word in ran.stdout
    assert len(load_pipelines(pipeline, artifacts=True)) == 1
    schema = FeatureSchema.load(pipeline.parent / "schema.yaml")
    assert schema["SEX"].protected
    folder = pipeline.parent / "artifacts"
    first = {name: artifacts.load(folder / name) for name in ("drift", "adversarial")}
    assert all(detector.schema == schema for detector in first.values())

    edited = (pipeline.parent / "schema.yaml").read_text().replace("name: AGEP\n", "name: AGEP\n  title: age\n")
    (pipeline.parent / "schema.yaml").write_text(edited)
    again = govern_fit(*words)
    assert again.code == 0, again.stderr
    assert again.stdout.startswith("Kept")
    assert (pipeline.parent / "schema.yaml").read_text() == edited
    assert artifacts.load(folder / "drift").schema["AGEP"].title == "age"


def test_only_a_schema_from_csv(govern_fit, tmp_path):
    table = tmp_path / "people.csv"
    table.write_text("age,colour\n" + "".join(f"{20 + i}.5,{'red' if i % 2 else 'blue'}\n" for i in range(30)))
    ran = govern_fit(table, "--out", tmp_path / "new", "--model", "m")
    assert ran.code == 0, ran.stderr
    assert "No detector was fitted" in ran.stdout
    assert FeatureSchema.load(tmp_path / "new" / "schema.yaml").names == ("age", "colour")


def test_what_other_steps_make_is_fitted_when_it_is_named(govern_fit, pipeline, tmp_path):
    behind = """    - {name: encoder, model: {url: "http://encoder"}}
    - {name: embedding, detector: {type: ks, artifact: artifacts/embedding}, inputs: [encoder]}
"""
    pipeline.write_text(PIPELINE.replace("  steps:\n", f"  steps:\n{behind}"))
    table = tmp_path / "encoded.csv"
    table.write_text("e0,e1\n" + "".join(f"{i % 7}.5,{i % 5}.25\n" for i in range(60)))
    ran = govern_fit(table, "--pipeline", pipeline, "--step", "embedding", "--schema", tmp_path / "embedding.yaml")
    assert ran.code == 0, ran.stderr
    assert "1/1" in ran.stdout
    assert artifacts.load(pipeline.parent / "artifacts" / "embedding").schema.names == ("e0", "e1")
    assert not (pipeline.parent / "schema.yaml").exists()
    rest = govern_fit(SAMPLE, "--pipeline", pipeline, *COLUMNS, *OUTPUT, "--rows", 1000)
    assert rest.code == 0, rest.stderr
    assert "2/2" in rest.stdout
    assert "Left out: embedding. Other steps make what they read" in rest.stdout
    wrong = govern_fit(table, "--pipeline", pipeline, "--step", "encoder")
    assert wrong.code == 2
    assert "the detectors of pipeline 'people' are embedding, drift, adversarial" in wrong.stderr


def test_a_useless_reference_leaves_nothing_behind(govern_fit, pipeline, tmp_path):
    table = tmp_path / "people.csv"
    table.write_text("age,colour,p\n" + "".join(f"{20 + i}.5,red,0.{i}\n" for i in range(10, 90)))
    ran = govern_fit(table, "--pipeline", pipeline, "--output", "p=p")
    assert ran.code == 2
    assert ran.stderr.startswith("error: reference: feature 'colour' is constant\n  why: it is 'red' in all 80 rows")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["people.csv", "pipeline.yaml"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--exclude", "AGEPP"], "excluded column 'AGEPP' is missing"),
        (["--output", "predicted_probability"], "--output 'predicted_probability'"),
        (["--output", "p=nowhere"], "column 'nowhere' is missing"),
        (["--model", "another"], "no pipeline watches model 'another'"),
        ([], "'adversarial' learns from the model's output 'p', which the reference lacks"),
    ],
)
def test_mistakes_are_told_on_three_lines(govern_fit, pipeline, words, message):
    ran = govern_fit(SAMPLE, "--pipeline", pipeline, *COLUMNS, *words)
    assert ran.code == 2
    what, why, fix = ran.stderr.splitlines()
    assert what.startswith("error: ")
    assert message in what
    assert why.startswith("  why: ")
    assert fix.startswith("  fix: ")


@pytest.mark.parametrize(("words", "message"), [([], "--model is missing"), (["--model", "m"], "--out is missing")])
def test_what_no_pipeline_says_must_be_said(govern_fit, words, message):
    ran = govern_fit(SAMPLE, *words)
    assert ran.code == 2
    assert message in ran.stderr


def test_power_is_told_for_each_size_of_window(govern_fit, pipeline, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    words = [SAMPLE, "--pipeline", pipeline, *COLUMNS, *OUTPUT, "--rows", 1500, "--step", "drift", "--power"]
    ran = govern_fit(*words, "--windows", "100, 5000", "--rows-per-day", 15_000)
    assert ran.code == 0, ran.stderr
    assert "3/3" in ran.stdout
    rows = [line.split() for line in ran.stdout.splitlines() if line.startswith(" drift")][1:]
    assert [row[1] for row in rows] == ["100", "5,000"] or [row[1] for row in rows] == ["100", "500", "5,000"]
    assert "Not measured: drift, window of 5,000 rows: a reference of 16,667 rows is needed" in ran.stdout
    assert "ms" in next(row for row in rows if row[1] == "100"), "what a window takes"
    # One in twenty windows, each of 100 rows, of 450,000 rows a month.
    assert "225" in next(row for row in rows if row[1] == "100")
    wrong = govern_fit(*words, "--windows", "50,many")
    assert wrong.code == 2
    assert "--windows 'many'" in wrong.stderr
