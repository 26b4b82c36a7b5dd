"""Explainer steps as V2 models."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from explainers.anchors import AnchorTabular
from explainers.deadline import NEVER
from explainers.predictor import SklearnPredictor
from explainers.served import explainer_sources
from explainers.shap import TreeShap
from govern.codecs import v2
from govern.codecs.frames import to_tensors
from govern.errors import ConfigError
from govern.frame import Frame
from govern.pipeline.spec import ExplainerSpec, Source
from govern.pipeline.topology import Plan, PlannedStep
from govern.plugins import DETECTORS, load
from govern.runtime.loader import LoadedPipeline
from govern.runtime.serving.application import create_app
from govern.runtime.serving.calls import Calls
from govern.runtime.serving.repository import Repository
from tests.mirror.conftest import govern
from tests.services.process import Process


def pipeline(acs: Frame, *steps: ExplainerSpec) -> LoadedPipeline:
    planned = tuple(
        PlannedStep(
            name=spec.name,
            kind="explainer",
            detector=None,
            explainer=spec,
            needs_outputs=(),
            batch_size=0,
            window_ms=0,
            after=(),
            triggers=(),
        )
        for spec in steps
    )
    source = Source(service="employment", model="employment")
    plan = Plan("watch", "default", source, "schema.yaml", planned, (), "digest")
    return LoadedPipeline(plan=plan, schema=acs.schema, detectors={})


@pytest.fixture
def shap_tree(acs: Frame, acs_model: SklearnPredictor) -> TreeShap:
    return TreeShap(background_rows=20).fit(acs, acs_model)


@pytest.fixture
async def client(acs: Frame, acs_model: SklearnPredictor, shap_tree: TreeShap) -> AsyncIterator[httpx.AsyncClient]:
    rule = AnchorTabular(background_rows=100).fit(acs, acs_model)
    loaded = pipeline(acs, ExplainerSpec(name="why", max_per_window=3), ExplainerSpec(name="rule"))
    readers = {"why": lambda: shap_tree, "rule": lambda: rule}
    app = create_app(Repository(explainer_sources([loaded], readers)), Calls())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://serve") as client:
        yield client


async def test_attributions_are_the_explainers_own(client: httpx.AsyncClient, acs: Frame, shap_tree: TreeShap) -> None:
    people = acs.take([3, 4, 5])
    answer = await client.post("/v2/models/watch-why/infer", content=v2.encode_request(to_tensors(people)))
    assert answer.status_code == 200, answer.text
    outputs = {one.name: one.data for one in v2.decode_response(answer.content).outputs}
    for row in range(3):
        explained = shap_tree.explain(people.take([row]), deadline=NEVER)
        assert outputs["attribution"][row].tolist() == [one.contribution for one in explained.attributions]
        whole = json.loads(outputs["explanation"][row])
        assert whole["prediction"] == outputs["prediction"][row] == explained.prediction
        assert whole["reasons"]
    np.testing.assert_allclose(
        outputs["base_value"] + outputs["attribution"].sum(axis=1), outputs["prediction"], rtol=0, atol=1e-6
    )


async def test_metadata_is_of_the_artifact(client: httpx.AsyncClient, acs: Frame, shap_tree: TreeShap) -> None:
    described = (await client.get("/v2/models/watch-why")).json()
    assert shap_tree.digest.startswith(described["versions"][0])
    assert [one["name"] for one in described["inputs"]] == list(acs.schema.names)
    assert [one["name"] for one in described["outputs"]] == ["prediction", "base_value", "attribution", "explanation"]


async def test_a_rule_attributes_nothing(client: httpx.AsyncClient, acs: Frame) -> None:
    body = v2.encode_request(to_tensors(acs.take([3])))
    answer = await client.post("/v2/models/watch-rule/infer", content=body)
    assert answer.status_code == 200, answer.text
    outputs = {one.name: one.data for one in v2.decode_response(answer.content).outputs}
    assert outputs["attribution"].shape == (1, 0)
    assert json.loads(outputs["explanation"][0])["anchor"]["precision"] > 0


async def test_more_rows_than_the_step_explains(client: httpx.AsyncClient, acs: Frame) -> None:
    body = v2.encode_request(to_tensors(acs.take(range(4))))
    answer = await client.post("/v2/models/watch-why/infer", content=body)
    assert answer.status_code == 400
    assert "the step explains 3 in one call" in answer.json()["error"]


def test_an_explainer_that_is_not_there(acs: Frame) -> None:
    with pytest.raises(ConfigError, match="step 'why': no explainer 'why'"):
        explainer_sources([pipeline(acs, ExplainerSpec(name="why"))], {})


WATCHED = """
apiVersion: govern.io/v1alpha1
kind: Pipeline
metadata: {name: watch}
spec:
  source: {service: employment, model: employment}
  schema: schema.yaml
  steps:
    - name: outlier
      detector: {type: isolation_forest, artifact: outlier}
      inputs: [watch.inputs]
    - name: why
      explainer: {name: shap}
      inputs: [watch.inputs]
      triggers: [outlier.outputs.outliers]
"""


@pytest.mark.e2e
def test_the_command_serves_them_beside_the_detectors(acs: Frame, shap_tree: TreeShap, tmp_path: Path) -> None:
    (tmp_path / "schema.yaml").write_text(acs.schema.to_yaml())
    (tmp_path / "watch.yaml").write_text(WATCHED)
    load(DETECTORS, "isolation_forest")(n_estimators=5, contamination=0.05).fit(acs.take(range(200))).save(
        tmp_path / "outlier"
    )
    shap_tree.save(tmp_path / "explainers" / "shap")
    options = ("--explainers", str(tmp_path / "explainers"), "--http", "127.0.0.1:0")
    process = Process(govern("serve", str(tmp_path / "watch.yaml"), *options), log=tmp_path / "log")
    process.start(lambda log: "on http://" in log)
    try:
        address = re.search(r"http://\S+", process.log())
        assert address is not None
        with httpx.Client(base_url=address.group(), timeout=60) as client:
            index = client.post("/v2/repository/index").json()
            body = v2.encode_request(to_tensors(acs.take([3])))
            answer = client.post("/v2/models/watch-why/infer", content=body)
    finally:
        process.stop()
    assert {one["name"]: one["state"] for one in index} == {"watch-outlier": "READY", "watch-why": "READY"}
    outputs = {one.name: one.data for one in v2.decode_response(answer.content).outputs}
    explained = shap_tree.explain(acs.take([3]), deadline=NEVER)
    assert outputs["prediction"].tolist() == [explained.prediction]
