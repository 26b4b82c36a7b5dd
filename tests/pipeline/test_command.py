from __future__ import annotations

from pathlib import Path

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
    assert f"ok {file}: monitor, 5 steps" in result.output


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
    assert any("reads also probability of employment" in line for line in lines)
    assert any(line.startswith("│   └── explain  explainer · employment-shap") for line in lines)
