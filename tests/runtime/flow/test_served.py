"""A whole pipeline behind `govern serve`, as one V2 model, beside the steps of another one of the same file."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import httpx
import msgspec
import pytest

from govern.bus import Bus, Partition, open_bus
from govern.bus.protocol import Outgoing
from govern.bus.topics import specs, topic
from govern.codecs import open_inference_pb2 as pb
from govern.codecs import v2, v2_grpc
from govern.codecs.cloudevents import to_message
from govern.pipeline import PipelineError
from govern.record import Feedback
from govern.runtime.flow import feedback as feedback_module
from govern.runtime.flow.build import load_models
from govern.runtime.flow.feedback import follow_feedback
from govern.runtime.flow.sources import sources
from govern.runtime.flow.steps.bandit import Bandit
from govern.runtime.serving.calls import Calls
from govern.runtime.serving.grpc_server import serving as serving_grpc
from govern.runtime.serving.repository import Repository
from tests.runtime.conftest import Fitted
from tests.runtime.flow.conftest import numbers, tensors
from tests.runtime.serving.conftest import address, served
from tests.runtime.serving.test_grpc import call
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


async def test_a_pipeline_is_one_model_over_grpc_too(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.yaml"
    file.write_text(PIPELINE)
    async with AsyncExitStack() as stack:
        repository = Repository(sources(file, stack)[1])
        port = await stack.enter_async_context(serving_grpc(repository, Calls(), "127.0.0.1", 0))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{port}"))

        async def ask(*names: str) -> dict[str, float]:
            encoded = v2_grpc.encode_request(tensors(**dict.fromkeys(names, 3)), model="choice", request_id="r")
            answer = await call(channel, "ModelInfer", pb.ModelInferRequest.FromString(encoded))
            assert (answer.model_name, answer.id) == ("choice", "r")
            (decoded,) = v2_grpc.decode_responses(answer.SerializeToString(), "application/protobuf")
            return numbers(decoded.outputs)

        described = await call(channel, "ModelMetadata", pb.ModelMetadataRequest(name="choice"))
        assert described.platform == "govern_pipeline"
        assert await ask("x", "small") == {"x": 3}
        assert await ask("x", "big") == {"y": 3}
        with pytest.raises(grpc.aio.AioRpcError, match="pipeline 'choice' has no output for this request") as caught:
            await ask("x")
        assert caught.value.code() == grpc.StatusCode.INTERNAL


async def test_a_server_starts_with_one_reading_of_its_file(fitted: Fitted, tmp_path: Path) -> None:
    file = fitted.write(tmp_path / "pipeline", "default")
    file.write_text(file.read_text() + PIPELINE)
    async with AsyncExitStack() as stack:
        watching, found = sources(file, stack)
        file.write_text("written anew, and not yet whole")
        repository = Repository(found)
        assert [one.plan.name for one in watching] == ["watch"]
        assert set(repository) == {"choice", "watch-drift", "watch-outlier", "watch-adversarial"}
        for name in ("choice", "watch-outlier"):
            with pytest.raises(PipelineError):
                repository.load(name)
            assert name in repository


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


async def routed(process: Process, count: int, *, of: str) -> list[str]:
    """The routes that so many requests took."""
    found = []
    async with httpx.AsyncClient(base_url=address(process), timeout=60) as client:
        for number in range(count):
            body = v2.encode_request(tensors(x=3), request_id=f"{of}-{number}")
            response = await client.post("/v2/models/better/infer", content=body)
            found += [one.name for one in v2.decode_response(response.content).outputs]
    return found


async def test_what_routers_learn_from_the_feedback_on_the_bus_outlives_kill_9(
    fitted: Fitted, tmp_path: Path, unique: str
) -> None:
    """Of 40 requests 20 are rewarded, 10 once the pipeline was loaded again, the others while the server is dead."""
    file = fitted.write(tmp_path / "pipeline", "default")
    file.write_text(file.read_text() + LEARNING)
    url = f"embedded://{tmp_path / 'bus.db'}"
    options = ("--bus", url, "--namespace", unique)
    async with open_bus(url) as bus:
        await bus.ensure_topics(specs(unique))
        feedback = Partition(topic(unique, "feedback"), 0)

        async def reward(routes: list[str], numbers: range) -> None:
            rewards = [
                Feedback(
                    schema_version=1,
                    id=f"f{number}",
                    namespace=unique,
                    request_id=f"first-{number}",
                    reward=float(routes[number] == "good"),
                )
                for number in numbers
            ]
            broken = Outgoing(key=b"k", value=b"no feedback")
            await bus.publish(feedback.topic, [broken, *(to_message(one, source="/test") for one in rewards)])

        async def kept() -> Bandit:
            """What the server has put on the bus once it has read all feedback."""
            end = str(await bus.end_offset(feedback)).encode()
            table = await _until(bus, unique, lambda table: table.get(b'["serve",0]') == end)
            return msgspec.json.decode(table[b'["serve","better","choice","bandit"]'], type=Bandit)

        with served(file, tmp_path / "serve.log", *options) as process:
            async with asyncio.timeout(60):
                while "routers learn from feedback" not in process.log():
                    await asyncio.sleep(0.05)
            at_first = await routed(process, 40, of="first")
            assert set(at_first) == {"good", "bad"}
            await reward(at_first, range(20))
            assert sum((await kept()).rewards.values()) == 20
            async with httpx.AsyncClient(base_url=address(process), timeout=60) as client:
                assert (await client.post("/v2/repository/models/better/load", json={})).status_code == 200
            await reward(at_first, range(10, 30))
            assert sum((await kept()).rewards.values()) == 30
            process.kill()
        await reward(at_first, range(40))  # those that were learned already, too
        with served(file, tmp_path / "serve.log", *options) as process:
            whole = await kept()
            assert whole.rewards == Counter(at_first)
            assert whole.total == {"good": at_first.count("good"), "bad": 0}
            assert set(await routed(process, 20, of="then")) == {"good"}


async def test_each_server_keeps_what_it_has_learned_under_its_name(
    tmp_path: Path, embedded_url: str, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two have the same name: the newer one goes on with what the other knew, which then learns for itself alone."""
    monkeypatch.setattr(feedback_module, "_AWAY_S", 0.01)
    file = tmp_path / "pipeline.yaml"
    file.write_text(LEARNING)
    servers = [(name, load_models(file)[0]) for name in ("a", "b", "b")]
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(open_bus(embedded_url))
        await bus.ensure_topics(specs(unique))
        for at, (name, model) in enumerate(servers):
            stack.push_async_callback(model.close)
            await model.infer(tensors(x=3), request_id=f"r{at}")
            following = follow_feedback(lambda: open_bus(embedded_url), unique, name, lambda model=model: [model])  # type: ignore[misc]
            stack.callback(asyncio.create_task(following).cancel)
            await _until(bus, unique, lambda table, at=at: f'"r{at}"'.encode() in b"".join(table.values()))  # type: ignore[misc]
        for at in range(3):
            one = Feedback(schema_version=1, id=f"f{at}", namespace=unique, request_id=f"r{at}", reward=1.0)
            await bus.publish(topic(unique, "feedback"), [to_message(one, source="/test")])
        end = b"3"
        table = await _until(bus, unique, lambda table: table[b'["a",0]'] == table[b'["b",0]'] == end)
        kept = [json.loads(table[f'["{name}","better","choice","bandit"]'.encode()]) for name in ("a", "b")]
        assert [sum(one["rewards"].values()) for one in kept] == [1, 2]
        async with asyncio.timeout(60):
            while not servers[1][1].routers[0].bandit.rewards:
                await asyncio.sleep(0.01)


async def _until(bus: Bus, namespace: str, condition: Callable[[dict[bytes, bytes]], bool]) -> dict[bytes, bytes]:
    """What is kept of the namespace's routers, once it is as it should be."""
    async with asyncio.timeout(60):
        while not condition(table := await bus.read_table(Partition(topic(namespace, "routers"), 0))):
            await asyncio.sleep(0.02)
    return table


def test_a_router_that_could_never_learn_is_refused(fitted: Fitted, tmp_path: Path) -> None:
    file = fitted.write(tmp_path / "pipeline", "default")
    file.write_text(file.read_text() + LEARNING)
    with (
        pytest.raises(ServiceError, match="routers of better learn from feedback, and there is no bus"),
        served(file, tmp_path / "serve.log"),
    ):
        pass
