"""Manifests in the form of Seldon's and KServe's documentation: what becomes of them, and where what is lost stands."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from govern.cli.pipeline import app
from govern.pipeline import Pipeline, load_pipelines
from govern.schema import Feature, FeatureSchema

MANIFESTS = Path(__file__).parent / "manifests"
CLEAN = """\
apiVersion: mlops.seldon.io/v1alpha1
kind: Model
metadata: {name: income}
spec: {storageUri: "gs://example/income", requirements: [sklearn]}
"""


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["import", *map(str, words)])


def written(out: Path) -> list[Pipeline]:
    """The pipelines of a file that `govern pipeline check` finds correct, once their schemas are fitted."""
    schema = FeatureSchema(format_version=1, model="m", features=(Feature(name="a", kind="numeric"),))
    for document in yaml.safe_load_all(out.read_text()):
        path = out.parent / document["spec"]["schema"]
        path.parent.mkdir(exist_ok=True)
        path.write_text(schema.to_yaml())
    checked = CliRunner().invoke(app, ["check", str(out)])
    assert checked.exit_code == 0, checked.output
    return load_pipelines(out)


def streams(pipelines: Sequence[Pipeline]) -> list[tuple[str, str, str]]:
    return [(one.name, one.spec.source.service, one.spec.source.model) for one in pipelines]


def lost(result: Result) -> list[str]:
    """The fields of the losses, in file order."""
    return [line.split()[1] for line in result.stderr.splitlines() if line.startswith(str(MANIFESTS))]


def test_seldon_v2(tmp_path: Path) -> None:
    out = tmp_path / "pipelines.yaml"
    result = run(MANIFESTS / "credit.yaml", "--out", out)
    assert result.exit_code == 3, result.output
    pipelines = written(out)
    assert streams(pipelines) == [
        ("credit-clean", "credit", "clean"),
        ("credit-scorer", "credit", "scorer"),
        ("credit-limit", "credit", "limit"),
    ]
    model, drift, outlier, why = pipelines[1].spec.steps
    assert {one.namespace for one in pipelines} == {"lending"}
    assert model.model is not None
    assert drift.detector is not None
    assert (drift.detector.type, drift.inputs) == ("tabular", ("scorer.outputs.probability",))
    assert (drift.batch.size, drift.batch.window_ms, drift.batch.rolling) == (200, 5000, True)
    assert outlier.detector is not None
    assert (outlier.detector.type, outlier.inputs) == ("isolation_forest", ("credit-scorer.inputs",))
    assert why.explainer is not None
    assert why.triggers == ("odd-rows.outputs.outliers",)
    assert lost(result) == [
        "spec.logger.percent",
        "spec.steps[1].inputs[0]",
        "spec.steps[1].inputs[1]",
        "spec.steps[1].inputsJoinType",
        "spec.steps[1].tensorMap",
        "spec.steps[2].name",
        "spec.steps[3].name",
        "spec.steps[4].inputs[0]",
        "spec.steps[4].inputsJoinType",
        "spec.steps[4].joinWindowMs",
        "spec.steps[4].triggers[0]",
        "spec.steps[4].triggersJoinType",
        "spec.steps[5].inputs[0]",
        "spec.steps[5].triggers[0]",
        "spec.input.externalInputs",
        "spec.output.steps",
        "spec.output.stepsJoin",
    ]
    assert f"{MANIFESTS / 'credit.yaml'}:40:7 spec.steps[1].tensorMap `tensorMap` is not imported" in result.stderr


def test_seldon_v1(tmp_path: Path) -> None:
    out = tmp_path / "pipelines.yaml"
    result = run(MANIFESTS / "offers.yaml", "--out", out)
    assert result.exit_code == 3, result.output
    assert streams(written(out)) == [(f"offers-{one}", "offers", one) for one in ("plain", "left", "right")]
    graph = "spec.predictors[0].graph"
    assert lost(result) == [
        "spec.predictors[0].explainer",
        graph,
        f"{graph}.children[0]",
        f"{graph}.children[0].children[1]",
        f"{graph}.children[0].children[1].children[1].logger.mode",
    ]


def test_kserve(tmp_path: Path) -> None:
    out = tmp_path / "pipelines.yaml"
    result = run(MANIFESTS / "photos.yaml", "--out", out)
    assert result.exit_code == 3, result.output
    found = streams(written(out))
    assert [(service, model) for _, service, model in found] == [
        (x, x) for x in ("animals", "dogs", "cats-a", "cats-b")
    ]
    assert found[0][0] == "animals-watch"  # a step must not have the pipeline's name
    nodes = "items[1].spec.nodes"
    assert lost(result) == [
        "items[0].spec.predictor.canaryTrafficPercent",
        "items[0].spec.transformer",
        "items[0].spec.explainer",
        f"{nodes}.root",
        f"{nodes}.root.steps[0].dependency",
        f"{nodes}.root.steps[1].data",
        f"{nodes}.root.steps[1].condition",
        f"{nodes}.breeds",
        f"{nodes}.breeds.steps[0].condition",
        f"{nodes}.breeds.steps[1].condition",
        f"{nodes}.cats",
        f"{nodes}.cats.steps[0].weight",
        f"{nodes}.cats.steps[1].weight",
        f"{nodes}.both",
        f"{nodes}.both.steps[2].serviceUrl",
        "items[2].apiVersion",
    ]


def test_what_is_imported_whole_ends_with_0(tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text(CLEAN)
    result = run(tmp_path / "model.yaml", "--strict", "-o", tmp_path / "out.yaml")
    assert (result.exit_code, result.stderr) == (0, "0 losses, 1 pipeline written\n")
    assert streams(written(tmp_path / "out.yaml")) == [("income-watch", "income", "income")]


def test_without_a_file_it_writes_to_standard_output(tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text(CLEAN)
    result = run(tmp_path / "model.yaml")
    assert yaml.safe_load(result.stdout)["spec"]["source"] == {"service": "income", "model": "income"}


def test_models_and_pipelines_stand_in_any_file_and_order(tmp_path: Path) -> None:
    documents = (MANIFESTS / "credit.yaml").read_text().split("---\n")
    files = [tmp_path / f"{number}.yaml" for number in range(len(documents))]
    for file, text in zip(files, reversed(documents), strict=True):
        file.write_text(text)
    run(*files, "-o", tmp_path / "apart.yaml")
    run(MANIFESTS / "credit.yaml", "-o", tmp_path / "together.yaml")
    assert (tmp_path / "apart.yaml").read_text() == (tmp_path / "together.yaml").read_text()


def test_json_is_read_even_with_tabs(tmp_path: Path) -> None:
    for name in ("offers", "photos"):
        document = yaml.safe_load((MANIFESTS / f"{name}.yaml").read_text())
        (tmp_path / f"{name}.json").write_text(json.dumps(document, indent="\t"))
        run(tmp_path / f"{name}.json", "-o", tmp_path / "json.yaml")
        run(MANIFESTS / f"{name}.yaml", "-o", tmp_path / "yaml.yaml")
        assert (tmp_path / "json.yaml").read_text() == (tmp_path / "yaml.yaml").read_text()


def test_strict_writes_nothing_when_something_is_lost(tmp_path: Path) -> None:
    result = run(MANIFESTS / "credit.yaml", "--strict", "-o", tmp_path / "out.yaml")
    assert result.exit_code == 3
    assert result.stderr.endswith("17 losses, nothing is written\n")
    assert not (tmp_path / "out.yaml").exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{name: income}", "{}", "f.yaml:3:11 metadata.name it is missing"),
        ("metadata: {name: income}\n", "", "f.yaml:1:1 metadata Model has no name"),
        ("requirements: [sklearn]", "requirements: sklearn", "spec.requirements it is 'sklearn'"),
        ("requirements: [sklearn]", "explainer: {type: ale}", "spec.explainer it explains nothing"),
        ("{name: income}", "{name: {{ .Values.name }}}", "f.yaml:3:18 a template"),
        ("[sklearn]", "[sklearn", "no YAML"),
        ("income}", "income, name: x}", "metadata.name comes twice"),
        (CLEAN, "", "it is empty"),
        (CLEAN, "- 1\n", "f.yaml:1:1 no manifest"),
        (CLEAN, "a: &a [*a]\n", "nested too deeply"),
        (
            CLEAN,
            "a: &a [1]\n"
            + "".join(f"{k}: &{k} [{', '.join(['*' + p] * 9)}]\n" for p, k in zip("abcdefgh", "bcdefghi", strict=True)),
            "more than 200,000 values",
        ),
        ("mlops.seldon.io/v1alpha1", "mlops.seldon.io/v9", "apiVersion the manifest is not imported"),
        ("kind: Model", "kind: Server", "kind the manifest is not imported"),
    ],
    ids=lambda text: text[:30],
)
def test_what_cannot_be_read_is_said_with_its_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    (tmp_path / "f.yaml").write_text(CLEAN.replace(old, new))
    result = run(tmp_path / "f.yaml", "-o", tmp_path / "out.yaml")
    assert result.exit_code == 2
    assert message in result.stderr
    assert "fix: " in result.stderr
    assert not (tmp_path / "out.yaml").exists()


def test_a_detector_of_which_nothing_tells_the_kind_is_a_model(tmp_path: Path) -> None:
    text = (MANIFESTS / "credit.yaml").read_text().replace(".is_outlier", "")
    (tmp_path / "f.yaml").write_text(text)
    result = run(tmp_path / "f.yaml", "-o", tmp_path / "out.yaml")
    assert "detector 'odd-rows' is imported as a model" in result.stderr
    assert ("credit-odd-rows", "credit", "odd-rows") in streams(written(tmp_path / "out.yaml"))


def test_a_key_that_is_not_known_is_said_with_the_nearest_one(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text(CLEAN.replace("requirements", "requirement"))
    result = run(tmp_path / "f.yaml", "-o", tmp_path / "out.yaml")
    assert result.exit_code == 3
    assert "f.yaml:4:43 spec.requirement unknown key 'requirement'" in result.stderr
    assert "did you mean 'requirements'?" in result.stderr
