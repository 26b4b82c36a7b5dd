"""Pipelines of real models: govern's own V2 server, over REST and gRPC, on real sockets."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import uvicorn

from govern.codecs import v2, v2_binary
from govern.codecs.frames import to_tensors
from govern.codecs.tensor import Tensor, objects
from govern.errors import BadInput, ConfigError, Unavailable
from govern.pipeline.spec import ModelSpec
from govern.runtime.flow import Call, FlowModel, Part
from govern.runtime.flow.build import load_models
from govern.runtime.flow.errors import StepFailed, StepRefused, Unreachable
from govern.runtime.flow.steps.rest_model import RestModel
from govern.runtime.serving.calls import Calls
from govern.runtime.serving.grpc_server import serving
from govern.runtime.serving.model import ModelMetadata
from govern.runtime.serving.repository import Repository, Source
from govern.runtime.serving.rest import create_app
from tests.runtime.conftest import Fitted
from tests.runtime.flow.conftest import numbers, tensors

PIPELINE = """
apiVersion: govern.io/v1alpha1
kind: Pipeline
metadata: {name: sums}
spec:
  steps:
    - name: one
      model: {url: URL, name: add, inputs: [{name: x, datatype: FP64, shape: [-1]}]}
    - name: two
      model:
        url: URL
        name: add
        version: "1"
        timeoutMs: TIMEOUT
        outputs: [{name: y, datatype: FP64, shape: [-1]}]
      inputs: [one.outputs.y]
      tensorMap: {one.outputs.y: x}
  output: {steps: [two.outputs.y]}
"""


class Adder:
    """x + 1. Below 0 it refuses, at 500 it has a defect, at 600 it answers when the test lets it."""

    metadata = ModelMetadata(name="add", inputs=(), outputs=())

    def __init__(self, go_on: threading.Event) -> None:
        self._go_on = go_on

    def infer(self, inputs: list[Tensor], /) -> list[Tensor]:
        (x,) = (one.data.astype(np.float64) for one in inputs)
        if (x < 0).any():
            raise BadInput("x is negative", why="the model was not trained on that", fix="send x >= 0")
        if (x == 500).any():
            raise ZeroDivisionError("a defect")
        if (x == 600).any():
            assert self._go_on.wait(60)
        return [Tensor("y", "FP64", x + 1), Tensor("text", "BYTES", objects(["a"]))]


@pytest.fixture
def go_on() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def http(go_on: threading.Event) -> Iterator[str]:
    config = uvicorn.Config(
        create_app({"add": Adder(go_on)}),
        host="127.0.0.1",
        port=0,
        log_level="critical",
        lifespan="off",
        timeout_keep_alive=60,
    )
    server = uvicorn.Server(config)
    bound = config.bind_socket()
    bound.listen()  # so that a call made before the server runs waits for it
    thread = threading.Thread(target=server.run, args=([bound],))
    thread.start()
    try:
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    finally:
        go_on.set()
        server.should_exit = True
        thread.join(timeout=60)
        bound.close()
        assert not thread.is_alive()


@pytest.fixture
async def grpc(go_on: threading.Event) -> AsyncIterator[str]:
    models = Repository([Source("add", lambda: Adder(go_on))])
    async with serving(models, Calls(), "127.0.0.1", 0) as port:
        yield f"grpc://127.0.0.1:{port}"
        go_on.set()


@pytest.fixture(params=["http", "grpc"])
async def url(request: pytest.FixtureRequest, http: str, grpc: str) -> str:
    return {"http": http, "grpc": grpc}[request.param]


async def model(folder: Path, url: str, timeout_ms: int = 60_000) -> FlowModel:
    file = folder / "pipeline.yaml"
    file.write_text(PIPELINE.replace("URL", url).replace("TIMEOUT", str(timeout_ms)))
    (found,) = load_models(file)
    return found


async def test_models_are_called_one_after_another(tmp_path: Path, url: str) -> None:
    sums = await model(tmp_path, url)
    try:
        answers = await asyncio.gather(*(sums.infer(tensors(x=at)) for at in range(20)))
        assert [numbers(one) for one in answers] == [{"y": at + 2} for at in range(20)]
        assert [one.name for one in sums.metadata.inputs] == ["x"]
        assert [(one.name, one.datatype) for one in sums.metadata.outputs] == [("y", "FP64")]
        with pytest.raises(StepRefused, match=r"step 'one': .*refused the request.*x is negative"):
            await sums.infer(tensors(x=-1))
        with pytest.raises(StepFailed, match=r"step 'two': .*ZeroDivisionError") as caught:
            await sums.infer(tensors(x=499))
        assert caught.value.http_status == 503
    finally:
        await sums.close()


async def test_a_model_that_takes_too_long_is_left(tmp_path: Path, url: str) -> None:
    sums = await model(tmp_path, url, timeout_ms=50)
    try:
        with pytest.raises(StepFailed, match=r"step 'two': .*no answer within 0.05 s.*timeoutMs"):
            await sums.infer(tensors(x=599))
    finally:
        await sums.close()


@pytest.mark.parametrize("scheme", ["http", "grpc"])
async def test_a_model_that_is_away_is_named(tmp_path: Path, scheme: str) -> None:
    sums = await model(tmp_path, f"{scheme}://127.0.0.1:1")
    try:
        away = r"step 'one': .*start the model server, or correct the step's url"
        with pytest.raises(StepFailed, match=away) as raised:
            await sums.infer(tensors(x=1))
        assert isinstance(raised.value.__cause__, Unreachable)
        assert raised.value.step == "one"
    finally:
        await sums.close()


async def test_connections_are_used_again(http: str) -> None:
    opened: list[object] = []
    transport = httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=1))
    async with httpx.AsyncClient(transport=transport, event_hooks={"response": [_noted(opened)]}) as client:
        step = RestModel("add", ModelSpec(url=http), lambda: client)
        for at in range(3):
            await step(Call("r", 0, (Part("", 0, tuple(tensors(x=at))),)))
    assert len(opened) == 4  # its metadata, and three calls
    assert len({id(one) for one in opened}) == 1


def _noted(found: list[object]):  # type: ignore[no-untyped-def]
    async def note(response: httpx.Response) -> None:
        found.append(response.extensions["network_stream"].get_extra_info("socket"))

    return note


@pytest.mark.parametrize(("extensions", "binary"), [(["binary_tensor_data"], True), ([], False), (None, False)])
async def test_tensors_are_sent_as_bytes_to_who_says_that_it_reads_them(extensions: object, binary: bool) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(404) if extensions is None else httpx.Response(200, json={"extensions": extensions})
        asked.append(request)
        sent = v2.decode_request(request.content, json_size=v2_binary.json_size(request.headers))
        return httpx.Response(200, content=v2.encode_response("add", sent.inputs))

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        step = RestModel("add", ModelSpec(url="http://model:8080"), lambda: client)
        assert numbers(await step(Call("r", 0, (Part("", 0, tuple(tensors(x=3))),)))) == {"x": 3}
    assert (v2_binary.HEADER in asked[0].headers) == binary


@pytest.mark.parametrize(
    ("response", "error", "message"),
    [
        (httpx.Response(400, json={"error": "no x"}), BadInput, "refused the request: no x"),
        (httpx.Response(404, json={"error": "no model"}), Unavailable, "HTTP 404: no model"),
        (httpx.Response(500, json={"error": "a defect"}), Unavailable, "HTTP 500: a defect"),
        (httpx.Response(502, text="bad gateway"), Unreachable, "HTTP 502: bad gateway"),
        (httpx.Response(429, text="too many"), Unreachable, "HTTP 429: too many"),
        (httpx.Response(200, text="hello"), Unavailable, "its answer cannot be read"),
    ],
)
async def test_what_a_server_answers_is_told(response: httpx.Response, error: type[Exception], message: str) -> None:
    async with httpx.AsyncClient(transport=httpx.MockTransport(lambda _: response)) as client:
        step = RestModel("add", ModelSpec(url="http://model:8080"), lambda: client)
        with pytest.raises(error, match=message) as raised:
            await step(Call("r", 0, (Part("", 0, tuple(tensors(x=3))),)))
    assert raised.type is error


WATCHED = """
apiVersion: govern.io/v1alpha1
kind: Pipeline
metadata: {name: guard}
spec:
  schema: schema.yaml
  steps:
    - name: outlier
      detector: {type: isolation_forest, params: {n_estimators: 20}, artifact: artifacts/outlier}
    - name: drift
      detector: {type: tabular, artifact: artifacts/drift}
    - name: strange
      transformer: {callable: "builtins:dict"}
      inputs: [outlier.outputs.outliers]
  output: {steps: [outlier, strange], stepsJoin: outer, tensorMap: {strange.outputs.outliers: rows}}
"""


async def test_a_detector_emits_what_triggers_wait_for(fitted: Fitted, tmp_path: Path) -> None:
    file = fitted.write(tmp_path / "pipeline", "default")
    file.write_text(WATCHED)
    (guard,) = load_models(file)
    assert guard.flow.idle == {"drift"}
    seen = set()
    for at in range(200):
        outcome = await guard.outcome(to_tensors(fitted.replay.take([at, at + 1])))
        said = {one.name: one.data for one in outcome.outputs}
        flagged = np.flatnonzero(said["is_outlier"]).tolist()
        assert said["instance_score"].shape == (2,)
        assert (said["rows"].tolist() if "rows" in said else []) == flagged
        assert ("strange" in outcome.visits) == bool(flagged)
        seen.add(bool(flagged))
    assert seen == {True, False}
    file.write_text(WATCHED.replace("strange], stepsJoin", "strange, drift], stepsJoin"))
    with pytest.raises(ConfigError, match="its output reads drift"):
        load_models(file)
