from __future__ import annotations

import gzip
import json
import struct
import threading
from collections.abc import AsyncIterator, Iterator
from http.client import HTTPConnection

import httpx
import numpy as np
import pytest
import uvicorn

from govern.codecs import v2
from govern.codecs.tensor import Tensor
from govern.errors import BadInput, Unavailable
from govern.runtime.serving.model import ModelMetadata, TensorMetadata
from govern.runtime.serving.rest import create_app


class Adder:
    """x + y and x - y; a negative x is refused, x = 500 is a defect, x = 503 an absent peer."""

    metadata = ModelMetadata(
        name="adder",
        inputs=(
            TensorMetadata(name="x", datatype="FP64", shape=(-1,)),
            TensorMetadata(name="y", datatype="FP64", shape=(-1,)),
        ),
        outputs=(
            TensorMetadata(name="sum", datatype="FP64", shape=(-1,)),
            TensorMetadata(name="difference", datatype="FP64", shape=(-1,)),
        ),
        versions=("1", "2"),
    )

    def infer(self, inputs: list[Tensor], /) -> list[Tensor]:
        named = {tensor.name: tensor.data.astype(np.float64) for tensor in inputs}
        x, y = named["x"], named["y"]
        if (x < 0).any():
            raise BadInput("x is negative", why="the model was not trained on that", fix="send x >= 0")
        if (x == 503).any():
            raise Unavailable("weights", why="the store is away", fix="try again")
        if (x == 500).any():
            raise ZeroDivisionError("a defect")
        return [Tensor("sum", "FP64", x + y), Tensor("difference", "FP64", x - y)]


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app({"adder": Adder()}), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://model") as client:
        yield client


def body(x: float = 1.0, y: float = 2.0, **options: object) -> bytes:
    tensors = [Tensor("x", "FP64", np.array([x])), Tensor("y", "FP64", np.array([y]))]
    return v2.encode_request(tensors, **options)  # type: ignore[arg-type]


async def test_metadata_and_health(client: httpx.AsyncClient) -> None:
    for path, answer in {
        "/v2/health/live": {"live": True},
        "/v2/health/ready": {"ready": True},
        "/v2/models/adder/ready": {"name": "adder", "ready": True},
        "/v2/models/adder/versions/2/ready": {"name": "adder", "ready": True},
    }.items():
        response = await client.get(path)
        assert (response.status_code, response.json()) == (200, answer)
    assert (await client.get("/v2")).json()["name"] == "govern"
    for path in ("/v2/models/adder", "/v2/models/adder/versions/1"):
        described = (await client.get(path)).json()
        assert described["inputs"][1] == {"name": "y", "datatype": "FP64", "shape": [-1]}
        assert described["versions"] == ["1", "2"]


@pytest.mark.parametrize(("path", "version"), [("", "2"), ("/versions/1", "1")])
async def test_inference(client: httpx.AsyncClient, path: str, version: str) -> None:
    response = await client.post(f"/v2/models/adder{path}/infer", content=body(request_id="r-1"))
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    answer = v2.decode_response(response.content)
    assert (answer.model_name, answer.model_version, answer.id) == ("adder", version, "r-1")
    assert [(tensor.name, tensor.data.tolist()) for tensor in answer.outputs] == [
        ("sum", [3.0]),
        ("difference", [-1.0]),
    ]


async def test_only_the_outputs_asked_for(client: httpx.AsyncClient) -> None:
    response = await client.post("/v2/models/adder/infer", content=body(outputs=["difference"]))
    assert [tensor.name for tensor in v2.decode_response(response.content).outputs] == ["difference"]


async def test_a_packed_request(client: httpx.AsyncClient) -> None:
    response = await client.post(
        "/v2/models/adder/infer", content=gzip.compress(body()), headers={"content-encoding": "gzip"}
    )
    assert response.status_code == 200


async def test_a_request_with_binary_tensor_data(client: httpx.AsyncClient) -> None:
    heads = [
        {"name": name, "shape": [1], "datatype": "FP64", "parameters": {"binary_data_size": 8}} for name in ("x", "y")
    ]
    head = json.dumps({"inputs": heads}).encode()
    response = await client.post(
        "/v2/models/adder/infer",
        content=head + struct.pack("<dd", 1.0, 2.0),
        headers={"inference-header-content-length": str(len(head))},
    )
    assert response.json()["outputs"][0]["data"] == [3.0]


def without_y() -> bytes:
    return v2.encode_request([Tensor("x", "FP64", np.array([1.0]))])


def with_z() -> bytes:
    return v2.encode_request([Tensor("z", "FP64", np.array([1.0]))])


@pytest.mark.parametrize(
    ("path", "content", "headers", "status", "message"),
    [
        ("adder", b"{", {}, 400, "V2 request is no JSON"),
        ("adder", b"{}", {}, 400, "missing required field `inputs`"),
        ("adder", without_y(), {}, 400, "input tensor 'y' is absent"),
        ("adder", with_z(), {}, 400, "input tensor 'z' is unknown"),
        ("adder", body(outputs=["product"]), {}, 400, "output tensor 'product' is unknown"),
        ("adder", body(x=-1), {}, 400, "x is negative: the model was not trained on that (send x >= 0)"),
        ("adder", body(x=503), {}, 503, "the store is away"),
        ("adder", body(x=500), {}, 500, "the model failed: ZeroDivisionError: a defect"),
        ("adder", body(), {"inference-header-content-length": "10"}, 400, "V2 request is no JSON"),
        ("adder", body(), {"content-encoding": "lzma"}, 400, "content-encoding 'lzma'"),
        ("adder", body(), {"content-encoding": "gzip"}, 400, "is no gzip"),
        ("added", body(), {}, 404, "model 'added': served are adder"),
        ("adder/versions/9", body(), {}, 404, "version '9' of model 'adder'"),
    ],
)
async def test_errors_are_the_protocols(
    client: httpx.AsyncClient, path: str, content: bytes, headers: dict[str, str], status: int, message: str
) -> None:
    response = await client.post(f"/v2/models/{path}/infer", content=content, headers=headers)
    assert response.status_code == status
    assert list(response.json()) == ["error"]
    assert message in response.json()["error"]


async def test_an_unknown_path_and_method(client: httpx.AsyncClient) -> None:
    response = await client.get("/v3")
    assert (response.status_code, response.json()) == (404, {"error": "Not Found"})
    response = await client.get("/v2/models/adder/infer")
    assert (response.status_code, response.json()) == (405, {"error": "Method Not Allowed"})


@pytest.fixture
def served() -> Iterator[int]:
    """The port of a real uvicorn that serves the adder."""
    config = uvicorn.Config(
        create_app({"adder": Adder()}), host="127.0.0.1", port=0, log_level="warning", lifespan="off"
    )
    server = uvicorn.Server(config)
    bound = config.bind_socket()
    bound.listen()  # so that a call made before the server runs waits for it
    thread = threading.Thread(target=server.run, args=([bound],))
    thread.start()
    try:
        yield int(bound.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(timeout=60)
        bound.close()
        assert not thread.is_alive()


def test_over_a_real_socket(served: int) -> None:
    connection = HTTPConnection("127.0.0.1", served, timeout=60)
    try:
        for x in range(20):
            connection.request("POST", "/v2/models/adder/infer", body=body(x=x))
            answer = json.loads(connection.getresponse().read())
            assert answer["outputs"][0] == {"name": "sum", "datatype": "FP64", "shape": [1], "data": [x + 2.0]}
    finally:
        connection.close()
