"""What a proxy is told of one inference."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from govern import record as records
from govern.codecs.inference import decode
from govern.record import Inference, Payload
from govern.runtime.loader import LoadedPipeline
from govern.runtime.serving.application import create_app
from govern.runtime.serving.calls import Calls
from govern.runtime.serving.repository import Repository
from tests.runtime.conftest import Make

UNANSWERED = {"status_code": 0, "response": Payload(), "missing": ("response",)}


@pytest.fixture
async def client(repository: Repository) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(repository, Calls(max_bytes=100_000))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://serve") as client:
        yield client


async def judged(client: httpx.AsyncClient, step: str, inference: Inference) -> httpx.Response:
    return await client.post(
        f"/v1/pipelines/watch/steps/{step}/judge",
        content=records.encode(inference),
        headers={"content-type": "application/x-protobuf"},
    )


async def test_an_outlier_step_says_of_an_unanswered_request_what_a_worker_would(
    client: httpx.AsyncClient, loaded: LoadedPipeline, make_inference: Make
) -> None:
    inference = make_inference(3, rows=40, **UNANSWERED)
    detector = loaded.detectors["outlier"]
    scores = detector.score(decode(inference, loaded.schema))
    answer = await judged(client, "outlier", inference)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {
        "pipeline": "watch",
        "step": "outlier",
        "kind": "outlier",
        "alarm": bool(scores.flagged.any()),
        "n_instances": 40,
        "flagged": scores.flagged.nonzero()[0].tolist(),
        "score": scores.scores.max(),
        "threshold": scores.threshold,
        "detector_digest": detector.digest,
        "plan_digest": loaded.plan.digest,
    }


async def test_a_drift_step_judges_the_rows_of_one_call(
    client: httpx.AsyncClient, loaded: LoadedPipeline, make_inference: Make
) -> None:
    inference = make_inference(0, rows=300, **UNANSWERED)
    scores = loaded.detectors["drift"].score(decode(inference, loaded.schema))
    answer = (await judged(client, "drift", inference)).json()
    assert answer["alarm"] is scores.alarm
    assert (answer["score"] > answer["threshold"]) is scores.alarm
    assert answer["score"] == 1 - min(one.p_value for one in scores.features)
    assert answer["flagged"] == []


async def test_an_adversarial_step_needs_the_response(client: httpx.AsyncClient, make_inference: Make) -> None:
    answer = await judged(client, "adversarial", make_inference(0))
    assert answer.status_code == 200
    assert answer.json()["kind"] == "adversarial"
    refused = await judged(client, "adversarial", make_inference(0, **UNANSWERED))
    assert refused.status_code == 422
    assert refused.json()["title"] == "response has no output tensor 'probability'"


@pytest.mark.parametrize(
    ("step", "content", "status", "code", "title"),
    [
        ("outlie", b"", 404, "not-found", "pipeline 'watch' has no detector step 'outlie' here"),
        ("explain", b"", 404, "not-found", "pipeline 'watch' has no detector step 'explain' here"),
        ("outlier", b"", 422, "bad-input", "the request has no body"),
        ("outlier", b"\xff", 422, "bad-input", "record of type Inference cannot be read"),
        ("outlier", records.encode(Inference(id="i", protocol="v2")), 422, "undecodable-payload", "request body of"),
        ("outlier", bytes(100_001), 413, "too-long", "the request's body is too long"),
    ],
    ids=["no such step", "no detector", "no body", "no record", "no request in it", "too long"],
)
async def test_what_cannot_be_judged_is_a_problem(
    client: httpx.AsyncClient, step: str, content: bytes, status: int, code: str, title: str
) -> None:
    answer = await client.post(f"/v1/pipelines/watch/steps/{step}/judge", content=content)
    assert answer.status_code == status
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["type"] == f"urn:govern:error:{code}"
    assert problem["title"].startswith(title)
    assert problem["detail"]
    assert problem["fix"]
    assert problem["instance"] == f"/v1/pipelines/watch/steps/{step}/judge"


async def test_too_few_rows_for_drift_are_refused(client: httpx.AsyncClient, make_inference: Make) -> None:
    answer = await judged(client, "drift", make_inference(0, rows=1))
    assert answer.status_code == 422
    assert answer.json()["title"] == "step 'drift' of pipeline 'watch' was sent 1 rows"


async def test_an_unloaded_step_is_not_found(repository: Repository, make_inference: Make) -> None:
    repository.unload("watch-outlier")
    transport = httpx.ASGITransport(create_app(repository, Calls()))
    async with httpx.AsyncClient(transport=transport, base_url="http://serve") as client:
        answer = await judged(client, "outlier", make_inference(0))
    assert (answer.status_code, answer.json()["detail"]) == (404, "it is unloaded")
