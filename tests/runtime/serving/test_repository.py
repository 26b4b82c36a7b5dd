"""Which models there are, over REST: listed, unloaded, read anew."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from detectors.outlier.online_mahalanobis import OnlineMahalanobisOutlier
from govern.codecs import v2, v2_binary
from govern.codecs.frames import to_tensors
from govern.codecs.tensor import Tensor
from govern.errors import ConfigError
from govern.runtime.flow.sources import sources
from govern.runtime.loader import LoadedPipeline
from govern.runtime.serving.application import create_app
from govern.runtime.serving.calls import Calls
from govern.runtime.serving.names import check_distinct, model_name
from govern.runtime.serving.repository import Repository
from tests.runtime.conftest import Fitted

STEPS = ("watch-drift", "watch-outlier", "watch-adversarial")


@pytest.fixture
async def client(repository: Repository) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(repository, Calls()))
    async with httpx.AsyncClient(transport=transport, base_url="http://serve") as client:
        yield client


async def states(client: httpx.AsyncClient, **asked: bool) -> dict[str, str]:
    answer = await client.post("/v2/repository/index", json=asked)
    assert answer.status_code == 200
    return {one["name"]: one["state"] for one in answer.json()}


async def test_a_model_is_unloaded_and_loaded_again(client: httpx.AsyncClient) -> None:
    assert "model_repository" in (await client.get("/v2")).json()["extensions"]
    assert await states(client) == dict.fromkeys(STEPS, "READY")
    assert (await client.post("/v2/repository/models/watch-drift/unload")).status_code == 200
    assert (await client.get("/v2/models/watch-drift/ready")).status_code == 404
    assert (await states(client))["watch-drift"] == "UNAVAILABLE"
    assert "watch-drift" not in await states(client, ready=True)
    assert (await client.post("/v2/repository/models/watch-drift/load")).status_code == 200
    assert (await client.get("/v2/models/watch-drift/ready")).json() == {"name": "watch-drift", "ready": True}
    assert await states(client) == dict.fromkeys(STEPS, "READY")


async def test_a_model_that_cannot_be_read_anew_stays_as_it_was(
    client: httpx.AsyncClient, repository: Repository, file: Path
) -> None:
    before = repository["watch-drift"]
    file.write_text(file.read_text().replace("type: tabular,", "type: ks,"))
    answer = await client.post("/v2/repository/models/watch-drift/load")
    assert answer.status_code == 400
    assert "detector.type is 'ks'" in answer.json()["error"]
    assert repository["watch-drift"] is before
    repository.unload("watch-drift")
    await client.post("/v2/repository/models/watch-drift/load")
    listed = {one.name: one for one in repository.index()}
    assert listed["watch-drift"].state == "UNAVAILABLE"
    assert "detector.type is 'ks'" in listed["watch-drift"].reason


@pytest.mark.parametrize("what", ["load", "unload"])
async def test_an_unknown_model(client: httpx.AsyncClient, what: str) -> None:
    answer = await client.post(f"/v2/repository/models/watch/{what}")
    assert (answer.status_code, list(answer.json())) == (404, ["error"])


async def test_a_pipeline_that_went_from_its_file_is_not_found(client: httpx.AsyncClient, file: Path) -> None:
    file.write_text(file.read_text().replace("watch", "guard"))
    answer = await client.post("/v2/repository/models/watch-drift/load")
    assert answer.status_code == 404
    assert str(file) in answer.json()["error"]


async def test_an_index_request_that_is_none(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v2/repository/index", content=b'{"ready": 1}')
    assert (answer.status_code, list(answer.json())) == (400, ["error"])


async def test_metadata_says_what_infer_takes_and_gives(
    client: httpx.AsyncClient, fitted: Fitted, loaded: LoadedPipeline
) -> None:
    people = fitted.replay.take(range(300))
    probability = Tensor("probability", "FP64", people.outputs["probability"])
    for name in STEPS:
        described = (await client.get(f"/v2/models/{name}")).json()
        inputs = to_tensors(people) + ([probability] if name == "watch-adversarial" else [])
        fits(described["inputs"], inputs)
        answer = await client.post(f"/v2/models/{name}/infer", content=v2.encode_request(inputs))
        assert answer.status_code == 200, answer.text
        decoded = v2.decode_response(answer.content)
        assert [decoded.model_version] == described["versions"]
        assert loaded.detectors[name.removeprefix("watch-")].digest.startswith(decoded.model_version)
        fits(described["outputs"], decoded.outputs)


def fits(described: list[dict[str, object]], tensors: list[Tensor] | tuple[Tensor, ...]) -> None:
    assert [(one["name"], one["datatype"]) for one in described] == [(one.name, one.datatype) for one in tensors]
    for one, tensor in zip(described, tensors, strict=True):
        shape = one["shape"]
        assert isinstance(shape, list)
        assert len(shape) == tensor.data.ndim
        assert all(size in (-1, found) for size, found in zip(shape, tensor.data.shape, strict=True))


async def test_a_step_judges_over_v2_as_it_does_anywhere(
    client: httpx.AsyncClient, fitted: Fitted, loaded: LoadedPipeline
) -> None:
    people = fitted.replay.take(range(50))
    body, size = v2.encode_binary_request(to_tensors(people))
    answer = await client.post("/v2/models/watch-outlier/infer", content=body, headers={v2_binary.HEADER: str(size)})
    decoded = v2.decode_response(answer.content, json_size=v2_binary.json_size(answer.headers))
    outputs = {one.name: one.data.tolist() for one in decoded.outputs}
    scores = loaded.detectors["outlier"].score(people)
    assert outputs == {
        "is_outlier": scores.flagged.tolist(),
        "instance_score": scores.scores.tolist(),
        "threshold": [scores.threshold],
        "instance_shares": scores.shares.tolist(),
    }


async def test_one_output_as_bytes_and_one_as_json(client: httpx.AsyncClient, fitted: Fitted) -> None:
    asked = {
        "inputs": [
            {
                "name": one.name,
                "shape": list(one.data.shape),
                "datatype": one.datatype,
                "data": one.data.ravel().tolist(),
            }
            for one in to_tensors(fitted.replay.take(range(2)))
        ],
        "outputs": [{"name": "instance_score", "parameters": {"binary_data": True}}, {"name": "is_outlier"}],
    }
    answer = await client.post("/v2/models/watch-outlier/infer", json=asked)
    size = v2_binary.json_size(answer.headers)
    assert size == len(answer.content) - 16
    first, second = v2.decode_response(answer.content, json_size=size).outputs
    assert (first.name, first.data.shape, second.name, second.data.shape) == (
        "instance_score",
        (2,),
        "is_outlier",
        (2,),
    )


async def test_a_wide_tensor_and_too_few_rows(client: httpx.AsyncClient, fitted: Fitted) -> None:
    rows = fitted.replay.take(range(5))
    wide = Tensor("x", "FP64", rows.matrix())
    answer = await client.post("/v2/models/watch-drift/infer", content=v2.encode_request([wide]))
    assert answer.status_code == 400
    assert (
        "step 'drift' of pipeline 'watch' was sent 5 rows" in answer.json()["error"] or "AGEP" in answer.json()["error"]
    )


def test_a_step_that_remembers_is_served_to_nobody(fitted: Fitted, file: Path, tmp_path: Path) -> None:
    """Neither as a step of a pipeline that watches a stream, nor within one that is called."""
    OnlineMahalanobisOutlier().fit(fitted.replay).save(tmp_path / "moving")
    moving = "detector: {type: online_mahalanobis, artifact: " + str(tmp_path / "moving") + "}"
    watching = re.sub(r"detector: \{type: isolation_forest.*\}", moving, file.read_text())
    called = f"""
apiVersion: govern.io/v1alpha1
kind: Pipeline
metadata: {{name: watch}}
spec:
  schema: schema.yaml
  steps:
    - name: outlier
      {moving}
      inputs: [watch.inputs]
  output: {{steps: [outlier]}}
"""
    for content in (watching, called):
        file.write_text(content)
        with pytest.raises(ConfigError, match="step 'outlier' of pipeline 'watch' cannot answer calls") as caught:
            asyncio.run(read_sources(file))
        assert "govern worker" in caught.value.fix


async def read_sources(file: Path) -> None:
    async with AsyncExitStack() as stack:
        _, found = sources(file, stack)
        Repository(found)


def test_names_that_say_two_things_are_refused() -> None:
    assert model_name("a-b", "c") == model_name("a", "b-c")
    with pytest.raises(ConfigError, match="'a-b-c'"):
        check_distinct([model_name("a-b", "c"), model_name("a", "b-c")])
