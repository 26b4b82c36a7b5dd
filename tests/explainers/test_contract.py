"""What every explainer promises, the user's own included: run over each entry point."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from explainers.base import Explained, Explainer, NoModel, NotFitted
from explainers.deadline import NEVER, Deadline, DeadlinePassed
from explainers.predictor import SklearnPredictor
from explainers.target import Target
from govern import plugins
from govern.errors import ArtifactError, BadInput
from govern.frame import Frame
from govern.schema import Feature, FeatureSchema

#: Parameters that keep a test short.
QUICK: dict[str, dict[str, Any]] = {
    "shap_tree": {"background_rows": 20},
    "shap_kernel": {"nsamples": 200, "rounds": 2, "background_rows": 10},
    "anchors": {"background_rows": 1000},
    "alibi.AnchorTabular": {"background_rows": 1000},
}
HOLDS_ITS_MODEL = ("shap_tree",)
ANCHORS = ("anchors", "alibi.AnchorTabular")


def params() -> list[Any]:
    without = pytest.mark.skipif(importlib.util.find_spec("alibi") is None, reason="needs the [alibi] extra")
    return [
        pytest.param(name, marks=[pytest.mark.alibi, without] if name.startswith("alibi.") else [])
        for name in plugins.names(plugins.EXPLAINERS)
    ]


@pytest.fixture(params=params())
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def kind(name: str) -> Any:
    return plugins.load(plugins.EXPLAINERS, name)


@pytest.fixture
def fitted(name: str, kind: Any, acs: Frame, acs_model: SklearnPredictor) -> Any:
    return kind(**QUICK[name]).fit(acs, acs_model)


def test_every_registered_explainer_is_tested() -> None:
    assert set(plugins.names(plugins.EXPLAINERS)) == set(QUICK)


def test_it_is_an_explainer_of_its_name(name: str, fitted: Any, acs: Frame, acs_model: SklearnPredictor) -> None:
    assert isinstance(fitted, Explainer)
    assert fitted.method == name
    assert fitted.schema == acs.schema
    assert fitted.model_digest == acs_model.digest
    assert fitted.seed == 0
    assert len(fitted.digest) == len(fitted.background_digest) == 64


def test_an_explanation_is_consistent(name: str, fitted: Any, acs: Frame, acs_model: SklearnPredictor) -> None:
    row = acs.take([11])
    explained = fitted.explain(row, deadline=Deadline.after(120))
    assert explained.method == name
    assert explained.status == "ok"
    assert explained.prediction == pytest.approx(acs_model.predict(row)[0, 1])
    assert explained.output_unit == "probability"
    assert 0.0 <= explained.base_value <= 1.0
    assert 0.0 <= explained.fidelity <= 1.0
    assert explained.error_bound >= 0.0
    if name in ANCHORS:
        assert_rule_holds(explained, row)
    else:
        assert [one.feature for one in explained.attributions] == list(acs.schema.names)
        total = explained.base_value + sum(one.contribution for one in explained.attributions)
        assert total == pytest.approx(explained.prediction, abs=1e-5)
        values = {one.feature: one.value for one in explained.attributions}
        assert values["SEX"] == row.row(0)["SEX"]
        assert float(values["AGEP"]) == row.row(0)["AGEP"]


def assert_rule_holds(explained: Explained, row: Frame) -> None:
    assert explained.anchor is not None
    assert explained.anchor.precision_lower <= explained.anchor.precision <= 1.0
    assert 0.0 < explained.anchor.coverage <= 1.0
    values = row.row(0)
    for one in explained.predicates:
        value = values[one.feature]
        if one.category is not None:
            assert value == one.category
        else:
            assert isinstance(value, float)
            assert one.low is None or value > one.low
            assert one.high is None or value <= one.high


def test_the_same_row_gives_the_same_explanation(fitted: Any, acs: Frame) -> None:
    first = fitted.explain(acs.take([3]), deadline=NEVER)
    np.random.seed(77)
    fitted.explain(acs.take([4]), deadline=NEVER)
    assert fitted.explain(acs.take([3]), deadline=NEVER) == first


def test_save_and_load_change_nothing(
    name: str, kind: Any, fitted: Any, acs: Frame, acs_model: SklearnPredictor, tmp_path: Path
) -> None:
    fitted.save(tmp_path / "artifact")
    predictor = None if name in HOLDS_ITS_MODEL else acs_model
    loaded = kind.load(tmp_path / "artifact", predictor=predictor)
    for attribute in ("digest", "model_digest", "background_digest", "seed", "schema", "target"):
        assert getattr(loaded, attribute) == getattr(fitted, attribute)
    row = acs.take([8])
    assert loaded.explain(row, deadline=NEVER) == fitted.explain(row, deadline=NEVER)


def test_fitting_again_gives_the_same_artifact(
    name: str, kind: Any, fitted: Any, acs: Frame, acs_model: SklearnPredictor
) -> None:
    assert kind(**QUICK[name]).fit(acs, acs_model).digest == fitted.digest
    assert kind(**QUICK[name], seed=9).fit(acs, acs_model).digest != fitted.digest
    assert kind(**QUICK[name], target=Target(words="chance")).fit(acs, acs_model).digest != fitted.digest


def test_a_changed_artifact_is_refused(kind: Any, fitted: Any, tmp_path: Path) -> None:
    path = tmp_path / "artifact"
    fitted.save(path)
    file = path / "background.npz"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtifactError, match="wrong digest"):
        kind.load(path)


@pytest.mark.parametrize(
    ("field", "value"),
    [("name", "another"), ("state_version", 99), ("format_version", 99), ("group", "govern.detectors"), ("params", {})],
)
def test_an_artifact_of_another_kind_is_refused(
    kind: Any, fitted: Any, tmp_path: Path, field: str, value: object
) -> None:
    path = tmp_path / "artifact"
    fitted.save(path)
    manifest = json.loads((path / "artifact.json").read_text())
    manifest[field] = value
    (path / "artifact.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError):
        kind.load(path)


def test_parameters_of_another_release_are_refused(kind: Any, fitted: Any, tmp_path: Path) -> None:
    path = tmp_path / "artifact"
    fitted.save(path)
    manifest = json.loads((path / "artifact.json").read_text())
    manifest["params"]["speed"] = "fast"
    (path / "artifact.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match="parameters"):
        kind.load(path)


def test_unfitted_it_says_so(kind: Any, acs: Frame) -> None:
    with pytest.raises(NotFitted):
        kind().explain(acs.take([0]), deadline=NEVER)
    with pytest.raises(NotFitted):
        _ = kind().digest


def test_without_a_model_it_says_so(name: str, kind: Any, acs: Frame) -> None:
    if name in HOLDS_ITS_MODEL:
        pytest.skip("fit refuses it: tested with the explainer")
    with pytest.raises(NoModel):
        kind(**QUICK[name]).fit(acs).explain(acs.take([0]), deadline=NEVER)


def test_other_than_one_row_is_refused(fitted: Any, acs: Frame) -> None:
    with pytest.raises(BadInput, match="2 rows"):
        fitted.explain(acs.take([0, 1]), deadline=NEVER)


def test_another_schema_is_refused(fitted: Any, make_frame: Any) -> None:
    with pytest.raises(BadInput, match="AGEP"):
        fitted.explain(make_frame({"x": [1.0]}), deadline=NEVER)


def test_a_passed_deadline_is_an_error(fitted: Any, acs: Frame) -> None:
    with pytest.raises(DeadlinePassed):
        fitted.explain(acs.take([0]), deadline=Deadline.after(-1))


def test_an_empty_background_is_refused(name: str, kind: Any, acs: Frame, acs_model: SklearnPredictor) -> None:
    with pytest.raises(BadInput, match="empty"):
        kind(**QUICK[name]).fit(acs.take(slice(0, 0)), acs_model)


def test_text_features_are_refused(name: str, kind: Any, acs_model: SklearnPredictor) -> None:
    schema = FeatureSchema(format_version=1, model="m", features=(Feature(name="note", kind="text"),))
    words = np.empty(2, dtype=object)
    words[:] = ["a", "b"]
    with pytest.raises(BadInput):
        kind(**QUICK[name]).fit(Frame(schema=schema, columns=(words,)), acs_model)
