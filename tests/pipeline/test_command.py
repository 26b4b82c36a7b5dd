from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from govern.cli.pipeline import app
from govern.schema import Feature, FeatureSchema


@pytest.fixture
def file(tmp_path: Path, good: str) -> Path:
    schema = FeatureSchema(format_version=1, model="m", features=(Feature(name="a", kind="numeric"),))
    (tmp_path / "schema.yaml").write_text(schema.to_yaml())
    (tmp_path / "p.yaml").write_text(good)
    return tmp_path / "p.yaml"


def test_check_says_ok(file: Path) -> None:
    result = CliRunner().invoke(app, ["check", str(file)])
    assert result.exit_code == 0, result.output
    assert f"ok {file}: monitor, 5 steps, 0f0926cedb2f, run by govern worker\n" in result.output


def test_check_says_what_the_command_that_runs_a_pipeline_has_no_use_for(file: Path, called: str) -> None:
    file.write_text(called)
    result = CliRunner().invoke(app, ["check", str(file)])
    assert result.exit_code == 0, result.output
    first, *notes = result.output.splitlines()
    assert first.startswith(f"ok {file}: score, 7 steps, ")
    assert first.endswith(", run by govern serve")
    unused, absent = notes[:6], notes[6:]
    assert [note.split("'")[1] for note in absent] == ["intake", "gate"]
    assert [note.split()[:4] for note in unused] == [
        ["in", "govern", "serve:", where] for where in ("5:3", "8:3", "22:7", "35:7", "36:7", "40:59")
    ]
    assert "36:7 spec.steps[6] step 'why' does nothing: it explains after the answer" in result.output


def test_check_says_of_a_pipeline_that_no_command_runs_why(file: Path, called: str) -> None:
    file.write_text(called.replace("output: {steps: [mean.outputs.score]", "output: {steps: [mean.outputs.score, why]"))
    result = CliRunner().invoke(app, ["check", str(file)])
    assert result.exit_code == 0, result.output
    assert "score, 7 steps" in result.output
    assert "no command of this release runs it" in result.output
    assert "not govern worker: 5:3 spec `schema` is missing: the rows of what the pipeline is given" in result.output
    assert "not govern worker: 22:7 spec.steps[2].batch router step 'split': in `govern worker` only detectors" in (
        result.output
    )
    assert "not govern serve: 40:40 spec.output.steps[1] why never comes: step 'why' explains after" in result.output


def test_check_lists_every_problem_of_every_file(file: Path, good: str) -> None:
    other = file.with_name("q.yaml")
    other.write_text(good.replace("size: 500", "size: -1").replace("[drift, outlier]", "[drfit]"))
    result = CliRunner().invoke(app, ["check", str(file), str(other), str(file.with_name("none.yaml"))])
    assert result.exit_code == 2
    assert f"{other}:13:21 spec.steps[1].batch.size it is -1" in result.output
    assert f"{other}:24:20 spec.output.steps[0] step 'drfit' does not exist" in result.output
    assert "did you mean 'drift'?" in result.output
    assert "none.yaml cannot be read" in result.output
    assert result.output.rstrip().endswith("3 errors")


def test_check_artifacts_when_asked(file: Path) -> None:
    result = CliRunner().invoke(app, ["check", "--artifacts", str(file)])
    assert result.exit_code == 2
    assert result.output.count("artifact is missing") == 3


def test_show_draws_the_graph(file: Path) -> None:
    result = CliRunner().invoke(app, ["show", str(file)])
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0].startswith("monitor.inputs  the inferences of employment/employment")
    assert any("drift · tabular · window 500 rows or 60 s" in line for line in lines)
    assert any("reads monitor.inputs and employment.outputs.probability" in line for line in lines)
    assert any("    └── explain  explainer · employment-shap" in line for line in lines)


def test_show_draws_joins_routes_and_cycles(file: Path, called: str) -> None:
    file.write_text(called)
    result = CliRunner().invoke(app, ["show", str(file)], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    for words in (
        "score.inputs  what it is called with",
        "reads intake.outputs",
        "when there is gate.step.open.outputs.go",
        "reads the first of score.inputs, scorer.outputs.bad",
        "reads clean.outputs (rows as x)",
        "router · weighted · a 9, b 1 · rolling window 3 rows or 0.01 s",
        "when there is split.outputs.a",
        "reads what comes within 0.05 s of one, two",
        "when there is mean.outputs.score and split.outputs.a",
        "output  what the pipeline gives",
    ):
        assert result.output.count(words) == 1, words


def test_show_writes_a_picture(file: Path, good: str, called: str) -> None:
    file.write_text(f"{good}---\n{called}")
    picture = file.with_suffix(".svg")
    result = CliRunner().invoke(app, ["show", str(file), "--svg", str(picture)])
    assert (result.exit_code, result.output) == (0, f"{picture}: monitor, score\n")
    texts = [one.text for one in ElementTree.parse(picture).iter("{http://www.w3.org/2000/svg}text")]
    for words in ("monitor", "employment", "drift", "score", "clean", "split.outputs.a", "clean.outputs (rows as x)"):
        assert words in texts
