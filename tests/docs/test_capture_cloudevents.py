"""The example of the page on the CloudEvents sink, run as it stands there, and its manifests."""

from __future__ import annotations

import asyncio
import shlex
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from govern.codecs.inference import decode
from govern.schema import Feature, FeatureSchema
from tests.backfill.conftest import published
from tests.mirror.conftest import govern
from tests.mirror.sink.events import send
from tests.services.process import Process, free_port, listening

PAGE = (Path(__file__).parents[2] / "docs" / "capture" / "cloudevents.md").read_text(encoding="utf-8")
DEADLINE_S = 60.0


def blocks(language: str) -> list[str]:
    pieces = (piece.partition("\n") for piece in PAGE.split("```")[1::2])
    return [text for found, _, text in pieces if found == language]


def manifests() -> dict[str, Any]:
    return {each["kind"]: each for block in blocks("yaml")[1:] for each in yaml.safe_load_all(block)}


def event(block: str) -> bytes:
    """The bytes of a request as the page shows it."""
    head, _, body = block.rstrip("\n").partition("\n\n")
    lines = [*head.split("\n"), f"Content-Length: {len(body)}"]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


@pytest.mark.e2e
async def test_the_example_as_the_page_shows_it(tmp_path: Path, unique: str) -> None:
    port = free_port()
    url = f"embedded://{tmp_path / 'bus.db'}"
    text = blocks("yaml")[0]
    for shown, here in (
        ("namespace: default ", f"namespace: {unique} "),
        ("0.0.0.0:8080", f"127.0.0.1:{port}"),
        ("/spool/govern", str(tmp_path / "spool")),
        ("kafka://kafka:9092", url),
    ):
        assert text.count(shown) == 1
        text = text.replace(shown, here)
    file = tmp_path / "mirror.yaml"
    file.write_text(text)
    taking, shipping = (shlex.split(line.replace("mirror.yaml", str(file)))[1:] for line in blocks("")[0].splitlines())
    sink = Process(govern(*taking), log=tmp_path / "sink.log")
    shipper = Process(govern(*shipping, "--metrics-listen", "127.0.0.1:0"), log=tmp_path / "ship.log")
    sink.start(lambda _: listening(port))
    try:
        shipper.start(lambda log: "shipping" in log)
        for block in blocks("http"):
            assert (await send(port, event(block))).status == 202
        async with asyncio.timeout(DEADLINE_S):
            while not (found := await published(url, unique)):
                await asyncio.sleep(0.1)
    finally:
        sink.stop()
        shipper.stop()
    (record,) = found
    assert (record.namespace, record.service, record.model, record.request_id) == (unique, "income", "income", "req-1")
    assert record.request.headers == {"x-tenant": "acme"}
    features = tuple(Feature(name=name, kind="numeric") for name in "abcd")
    frame = decode(record, FeatureSchema(format_version=1, model="income", features=features))
    assert frame.row(0) == {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}
    assert frame.outputs["p"].tolist() == [[0.1, 0.9]]


@pytest.mark.e2e
def test_the_loggers_of_the_manifests_call_the_service_that_leads_to_the_sink() -> None:
    found = manifests()
    service, pod = found["Service"], found["Deployment"]["spec"]["template"]
    host = f"{service['metadata']['name']}.{service['metadata']['namespace']}"
    loggers = [
        found["InferenceService"]["spec"]["predictor"]["logger"],
        found["SeldonDeployment"]["spec"]["predictors"][0]["graph"]["logger"],
    ]
    for logger in loggers:
        assert logger["mode"] == "all"
        parts = urlsplit(logger["url"])
        assert (parts.scheme, parts.hostname, parts.port or 80) == ("http", host, service["spec"]["ports"][0]["port"])
    sink, shipper = pod["spec"]["containers"]
    listen = yaml.safe_load(blocks("yaml")[0])["listen"]
    assert service["spec"]["ports"][0]["targetPort"] == sink["ports"][0]["containerPort"] == int(listen.split(":")[1])
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    for container in (sink, shipper):
        done = subprocess.run(govern(*container["args"], "--help"), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
