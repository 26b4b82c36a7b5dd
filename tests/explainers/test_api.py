"""The API with a real worker behind a real bus."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from explainers.anchors import AnchorTabular
from explainers.answer import Answerer
from explainers.api import create_app
from explainers.artifacts import folders, load
from explainers.catalogue import Catalogue
from explainers.jobs import ExplainWorker
from explainers.predictor import SklearnPredictor
from explainers.shap import TreeShap
from govern.bus import Bus, Partition, open_bus
from govern.bus.protocol import BusError
from govern.bus.topics import specs, topic
from govern.codecs import cloudevents, v2
from govern.codecs.frames import to_tensors
from govern.errors import ConfigError
from govern.frame import Frame
from govern.record import Access, Inference, Payload
from govern.telemetry.metrics import Metrics

WAIT_S = 30.0
PARTITIONS = 2


@pytest.fixture(scope="module")
def folder(acs: Frame, acs_model: SklearnPredictor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explainers")
    TreeShap(background_rows=10).fit(acs, acs_model).save(folder / "shap")
    AnchorTabular(background_rows=500).fit(acs).save(folder / "rule")
    return folder


@pytest.fixture
async def bus(bus_url: str, unique: str) -> AsyncIterator[Bus]:
    async with open_bus(bus_url) as bus:
        await bus.ensure_topics(specs(unique, partitions=PARTITIONS))
        yield bus


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
            yield client


@asynccontextmanager
async def working(bus: Bus, namespace: str, folder: Path, model: SklearnPredictor) -> AsyncIterator[None]:
    answerer = Answerer({name: load(path, predictor=model) for name, path in folders(folder).items()})
    worker = ExplainWorker(bus=bus, namespace=namespace, answerer=answerer, metrics=Metrics(CollectorRegistry()))
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(worker.run(stop))
        try:
            async with asyncio.timeout(2 * WAIT_S):
                while len(worker.partitions) < PARTITIONS:
                    await asyncio.sleep(0.05)
            yield
        finally:
            stop.set()


def api(bus: Bus, namespace: str, folder: Path) -> FastAPI:
    return create_app(bus=bus, namespace=namespace, catalogue=Catalogue.read(folder))


def captured(frame: Frame, namespace: str, **changes: Any) -> Inference:
    body = v2.encode_request(to_tensors(frame))
    return Inference(
        **{
            "schema_version": 1,
            "id": "0190c1f0-0000-7000-8000-000000000001",
            "request_id": "loan-77",
            "namespace": namespace,
            "service": "placement",
            "model": "employment",
            "revision": "2015",
            "endpoint": "default",
            "protocol": "v2",
            "status_code": 200,
            "request": Payload(content_type="application/json", body=body, size=len(body)),
            **changes,
        }
    )


async def capture(bus: Bus, namespace: str, *inferences: Inference) -> None:
    messages = [cloudevents.to_message(one, source="/test") for one in inferences]
    await bus.publish(topic(namespace, "inferences"), messages)


async def accesses(bus: Bus, namespace: str) -> list[Access]:
    messages = await bus.read(Partition(topic(namespace, "access"), 0), 0)
    return [cloudevents.from_message(message) for message in messages]  # type: ignore[misc]


async def test_a_captured_request_is_explained_by_its_id(
    bus: Bus, unique: str, folder: Path, acs: Frame, acs_model: SklearnPredictor
) -> None:
    await capture(
        bus,
        unique,
        captured(acs.take([1]), unique, id="old"),
        captured(acs.take([2, 3]), unique, id="new"),
        captured(acs.take([4]), unique, id="probe", synthetic=True),
        captured(acs.take([5]), unique, id="other", request_id="other"),
    )
    async with serving(api(bus, unique, folder)) as client, working(bus, unique, folder, acs_model):
        ask = {"request_id": "loan-77", "row": 1, "explainer": "shap", "wait_s": WAIT_S}
        answer = await client.post("/v1/explanations", json=ask, headers={"x-govern-actor": "anna"})
        assert answer.status_code == 200, answer.text
        told = answer.json()
        assert told["status"] == "ok"
        assert told["instance_id"] == "new/1", "the newest capture by a caller"
        assert (told["request_id"], told["service"], told["revision"]) == ("loan-77", "placement", "2015")
        assert told["prediction"] == pytest.approx(acs_model.predict(acs.take([3]))[0, 1])
        assert told["reasons"]
        assert told["anchor"] is None
        fetched = await client.get(answer.headers["content-location"], headers={"x-govern-actor": "bert"})
        assert fetched.json() == told
        again = await client.post("/v1/explanations", json=ask)
        assert again.json() == told, "the same question is not computed anew"
        rule = await client.post("/v1/explanations", json={**ask, "explainer": "rule"})
        assert rule.json()["anchor"]["precision"] > 0.5
        beyond = await client.post("/v1/explanations", json={**ask, "row": 2})
        assert (beyond.status_code, beyond.json()["title"]) == (404, "row 2")
    seen = await accesses(bus, unique)
    assert [one.actor for one in seen] == ["anna", "bert", "anonymous", "anonymous", "anonymous"]
    assert {one.action for one in seen} == {"explain"}
    assert seen[0].subject == "loan-77"
    assert len(await bus.read(Partition(topic(unique, "explanations"), 0), 0)) == 2


async def test_raw_inputs_as_a_row_and_as_a_v2_request(
    bus: Bus, unique: str, folder: Path, acs: Frame, acs_model: SklearnPredictor
) -> None:
    row = acs.row(9)
    v2_request = json.loads(v2.encode_request(to_tensors(acs.take([9]))))
    async with serving(api(bus, unique, folder)) as client, working(bus, unique, folder, acs_model):
        asks = [{"inputs": one, "explainer": "shap", "wait_s": WAIT_S} for one in ([row], v2_request)]
        first, second = [(await client.post("/v1/explanations", json=ask)).json() for ask in asks]
    assert first["id"] == second["id"]
    assert first["model"] == "employment"
    assert {one["feature"] for one in first["attributions"]} == set(acs.schema.names)


async def test_202_then_200_and_the_api_may_be_restarted_in_between(
    bus: Bus, unique: str, folder: Path, acs: Frame, acs_model: SklearnPredictor
) -> None:
    ask = {"inputs": [acs.row(3)], "explainer": "shap", "wait_s": 0}
    async with serving(api(bus, unique, folder)) as client:
        pending = await client.post("/v1/explanations", json=ask)
        assert pending.status_code == 202
        assert pending.json()["status"] == "pending"
        address = pending.headers["location"]
        assert (await client.get(address)).status_code == 202
    async with serving(api(bus, unique, folder)) as client:
        still = await client.get(address)
        assert (still.status_code, still.headers["location"]) == (202, address)
        async with working(bus, unique, folder, acs_model):
            told = await client.post("/v1/explanations", json={**ask, "wait_s": WAIT_S})
            assert told.status_code == 200
            assert told.json()["id"] == pending.json()["id"]
    async with serving(api(bus, unique, folder)) as client:
        assert (await client.get(address)).json() == told.json()
    assert len(await bus.read(Partition(topic(unique, "explanations"), 0), 0)) == 1


async def test_a_failed_explanation_is_told_and_may_be_asked_again(
    bus: Bus, unique: str, folder: Path, acs: Frame, acs_model: SklearnPredictor
) -> None:
    ask = {"inputs": [acs.row(3)], "explainer": "rule", "wait_s": WAIT_S}
    async with serving(api(bus, unique, folder)) as client, working(bus, unique, folder, acs_model):
        failed = await client.post("/v1/explanations", json={**ask, "deadline_s": 1e-6})
        assert (failed.status_code, failed.json()["status"]) == (200, "failed")
        assert "in time" in failed.json()["error"]
        told = await client.post("/v1/explanations", json=ask)
        assert told.json()["status"] == "ok"
        assert told.json()["id"] != failed.json()["id"]


@pytest.mark.parametrize(
    ("ask", "status", "title"),
    [
        ({"explainer": "shap"}, 422, "body"),
        ({"explainer": "shap", "request_id": "a", "inputs": []}, 422, "body"),
        ({"explainer": "shap", "request_id": "a", "colour": "red"}, 422, "body.colour"),
        ({"explainer": "shap", "request_id": "a", "wait_s": 1e9}, 422, "body.wait_s"),
        ({"explainer": "shap", "request_id": "nobody"}, 404, "request 'nobody'"),
        ({"explainer": "lime", "request_id": "a"}, 404, "explainer 'lime'"),
        ({"explainer": "shap", "inputs": []}, 422, "rows are empty"),
        ({"explainer": "shap", "inputs": [{"AGE": 3}]}, 422, "'AGE' is no feature"),
        ({"explainer": "shap", "inputs": {"inputs": []}}, 422, "V2 message has no input tensor"),
    ],
)
async def test_what_is_wrong_is_a_problem_document(
    embedded_url: str, unique: str, folder: Path, ask: dict[str, Any], status: int, title: str
) -> None:
    async with open_bus(embedded_url) as bus:
        await bus.ensure_topics(specs(unique))
        async with serving(api(bus, unique, folder)) as client:
            answer = await client.post("/v1/explanations", json=ask)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["title"] == title
    assert document["status"] == status
    assert document["detail"]
    assert document["fix"]
    assert document["type"].startswith("urn:govern:error:")


async def test_unknown_addresses(embedded_url: str, unique: str, folder: Path) -> None:
    async with open_bus(embedded_url) as bus:
        await bus.ensure_topics(specs(unique))
        async with serving(api(bus, unique, folder)) as client:
            nobody = await client.get("/v1/explanations/0123")
            nowhere = await client.get("/v1/nowhere")
    assert (nobody.status_code, nobody.json()["title"]) == (404, "explanation '0123'")
    assert (nowhere.status_code, nowhere.headers["content-type"]) == (404, "application/problem+json")


async def test_which_explainers_there_are(embedded_url: str, unique: str, folder: Path) -> None:
    async with open_bus(embedded_url) as bus:
        await bus.ensure_topics(specs(unique))
        async with serving(api(bus, unique, folder)) as client:
            listed = (await client.get("/v1/explainers")).json()
            schema = (await client.get("/openapi.json")).json()
            assert (await client.get("/healthz")).is_success
    assert [(one["name"], one["method"]) for one in listed] == [("rule", "anchors"), ("shap", "shap_tree")]
    assert {"name": "AGEP", "kind": "numeric", "title": "age", "protected": True} in listed[0]["features"]
    assert schema["components"]["schemas"]["Ask"]["examples"][0]["request_id"]
    assert set(schema["paths"]) == {"/v1/explanations", "/v1/explanations/{explanation_id}", "/v1/explainers"}
    assert set(schema["paths"]["/v1/explanations"]["post"]["responses"]) == {"200", "202", "404", "422", "503"}


def token(claims: object) -> str:
    parts = (json.dumps({"alg": "none"}), json.dumps(claims), "signature")
    return "Bearer " + ".".join(base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts)


@pytest.mark.parametrize(
    ("headers", "actor"),
    [
        ({}, "anonymous"),
        ({"x-govern-actor": "anna"}, "anna"),
        ({"authorization": token({"sub": "bert"})}, "bert"),
        ({"authorization": token(["bert"])}, "anonymous"),
        ({"authorization": "Bearer a.%%%.c"}, "anonymous"),
        ({"authorization": "Basic YTpi"}, "anonymous"),
        ({"authorization": token({"sub": "bert"}), "x-govern-actor": "anna"}, "anna"),
    ],
)
async def test_who_asked_is_on_record(
    embedded_url: str, unique: str, folder: Path, headers: dict[str, str], actor: str
) -> None:
    async with open_bus(embedded_url) as bus:
        await bus.ensure_topics(specs(unique))
        async with serving(api(bus, unique, folder)) as client:
            await client.get("/v1/explainers", headers={**headers, "x-govern-purpose": "appeal"})
        (seen,) = await accesses(bus, unique)
    assert (seen.actor, seen.role, seen.purpose, seen.subject) == (actor, "claimed", "appeal", "explainers")


class Deaf:
    """A bus that takes no access record."""

    def __init__(self, inner: Bus) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def publish(self, topic: str, messages: object) -> None:
        raise BusError("bus", why="it is away", fix="wait")


async def test_nothing_is_shown_that_is_not_recorded(embedded_url: str, unique: str, folder: Path) -> None:
    async with open_bus(embedded_url) as bus:
        await bus.ensure_topics(specs(unique))
        async with serving(api(Deaf(bus), unique, folder)) as client:  # type: ignore[arg-type]
            for answer in (await client.get("/v1/explainers"), await client.get("/v1/explanations/1")):
                assert (answer.status_code, answer.json()["type"]) == (503, "urn:govern:error:bus-error")


def test_a_folder_without_explainers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no explainer"):
        Catalogue.read(tmp_path)
