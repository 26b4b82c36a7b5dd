"""A whole pipeline behind `govern serve`, as one V2 model, beside the steps of another one of the same file."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from govern.bus import open_bus
from govern.bus.protocol import Outgoing
from govern.bus.topics import specs, topic
from govern.codecs import v2
from govern.codecs.cloudevents import to_message
from govern.record import Feedback
from tests.runtime.conftest import Fitted
from tests.runtime.flow.conftest import numbers, tensors
from tests.runtime.serving.conftest import address, served
from tests.services.process import Process, ServiceError

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


LEARNING = f"""
---
apiVersion: govern.io/v1alpha1
kind: Pipeline
metadata: {{name: better}}
spec:
  steps:
    - name: choice
      router: {{strategy: thompson, routes: [{{name: good}}, {{name: bad}}]}}
      inputs: [better.inputs]
    - name: one
      {SAME}
      inputs: [better.inputs.x]
      triggers: [choice.outputs.good]
      tensorMap: {{better.inputs.x: good}}
    - name: two
      {SAME}
      inputs: [better.inputs.x]
      triggers: [choice.outputs.bad]
      tensorMap: {{better.inputs.x: bad}}
  output: {{steps: [one, two], stepsJoin: any}}
"""


async def test_a_router_learns_from_the_feedback_on_the_bus(fitted: Fitted, tmp_path: Path, unique: str) -> None:
    file = fitted.write(tmp_path / "pipeline", "default")
    file.write_text(file.read_text() + LEARNING)
    url = f"embedded://{tmp_path / 'bus.db'}"
    async with open_bus(url) as bus:
        await bus.ensure_topics(specs(unique))
        with served(file, tmp_path / "serve.log", "--bus", url, "--namespace", unique) as process:
            async with asyncio.timeout(60):
                while "routers learn from feedback" not in process.log():
                    await asyncio.sleep(0.05)
            async with httpx.AsyncClient(base_url=address(process), timeout=60) as client:

                async def routed(count: int, *, of: str) -> list[str]:
                    found = []
                    for number in range(count):
                        body = v2.encode_request(tensors(x=3), request_id=f"{of}-{number}")
                        response = await client.post("/v2/models/better/infer", content=body)
                        found += [one.name for one in v2.decode_response(response.content).outputs]
                    return found

                at_first = await routed(40, of="first")
                assert set(at_first) == {"good", "bad"}
                rewards = [
                    Feedback(
                        schema_version=1,
                        id=f"f{number}",
                        namespace=unique,
                        request_id=f"first-{number}",
                        reward=float(route == "good"),
                    )
                    for number, route in enumerate(at_first)
                ]
                broken = Outgoing(key=b"k", value=b"no feedback")
                messages = [broken, *(to_message(one, source="/test") for one in rewards)]
                await bus.publish(topic(unique, "feedback"), messages)
                async with asyncio.timeout(60):
                    while set(await routed(20, of="then")) != {"good"}:
                        await asyncio.sleep(0.05)


def test_a_router_that_could_never_learn_is_refused(fitted: Fitted, tmp_path: Path) -> None:
    file = fitted.write(tmp_path / "pipeline", "default")
    file.write_text(file.read_text() + LEARNING)
    with (
        pytest.raises(ServiceError, match="routers of better learn from feedback, and there is no bus"),
        served(file, tmp_path / "serve.log"),
    ):
        pass
