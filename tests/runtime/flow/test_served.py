"""A whole pipeline behind `govern serve`, as one V2 model, beside the steps of another one of the same file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from govern.codecs import v2
from tests.runtime.conftest import Fitted
from tests.runtime.flow.conftest import numbers, tensors
from tests.runtime.serving.conftest import address, served
from tests.services.process import Process

SAME = "transformer: {callable: 'builtins:dict'}"
PIPELINE = f"""
---
apiVersion: govern.io/v1alpha1
kind: Pipeline
metadata: {{name: choice}}
spec:
  steps:
    - {{name: one, {SAME}, inputs: [choice.inputs.x], triggers: [choice.inputs.small]}}
    - {{name: two, {SAME}, inputs: [choice.inputs.x], triggers: [choice.inputs.big], tensorMap: {{choice.inputs.x: y}}}}
  output: {{steps: [one, two], stepsJoin: any}}
"""


@pytest.fixture
def serving(fitted: Fitted, tmp_path: Path) -> Iterator[Process]:
    file = fitted.write(tmp_path / "pipeline", "default")
    file.write_text(file.read_text() + PIPELINE)
    with served(file, tmp_path / "serve.log") as process:
        yield process


def test_a_pipeline_is_one_model(serving: Process) -> None:
    with httpx.Client(base_url=address(serving), timeout=60) as client:
        names = {one["name"] for one in client.post("/v2/repository/index", json={}).json()}
        assert names == {"choice", "watch-drift", "watch-outlier", "watch-adversarial"}
        assert client.get("/v2/models/choice").json()["platform"] == "govern_pipeline"
        for again in (False, True):
            if again:
                assert client.post("/v2/repository/models/choice/load", json={}).status_code == 200
            for trigger, answer in (("small", {"x": 3}), ("big", {"y": 3})):
                body = v2.encode_request(tensors(x=3, **{trigger: 1}))
                response = client.post("/v2/models/choice/infer", content=body)
                assert numbers(v2.decode_response(response.content).outputs) == answer
        response = client.post("/v2/models/choice/infer", content=v2.encode_request(tensors(x=3)))
        assert response.status_code == 500
        assert "pipeline 'choice' has no output for this request" in response.json()["error"]
    serving.terminate()
    assert serving.wait() == 0
