"""`govern explain`, as a user types it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from explainers.predictor import SklearnPredictor
from govern.bus import open_bus
from govern.bus.topics import specs
from govern.cli.explain import app
from govern.errors import BadInput, ConfigError, GovernError
from govern.frame import Frame
from tests.services.process import free_port

SAMPLE = Path(__file__).parents[1] / "data" / "acs_sample.parquet"


@pytest.fixture
def place(tmp_path: Path, acs: Frame, acs_model: SklearnPredictor) -> Path:
    """A folder with the schema, the model and a row."""
    (tmp_path / "schema.yaml").write_text(acs.schema.to_yaml())
    (tmp_path / "model.skops").write_bytes(acs_model.stored)
    (tmp_path / "row.json").write_text(json.dumps(acs.row(17)))
    return tmp_path


def explain(*arguments: str, stdin: str | None = None) -> str:
    result = CliRunner().invoke(app, arguments, input=stdin, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def fit(place: Path, method: str, name: str, *options: str) -> Path:
    out = place / "explainers" / name
    said = explain(
        *("fit", method, str(SAMPLE), "--schema", str(place / "schema.yaml"), "--out", str(out)),
        *("--model", str(place / "model.skops"), *options),
    )
    assert f"Fitted {method}" in said
    return out


def test_fit_then_row(place: Path) -> None:
    artifact = fit(place, "shap_tree", "shap", "--param", "background_rows=20", "--words", "chance of work")
    row = (place / "row.json").read_text()
    said = explain("row", str(artifact), row)
    assert said.splitlines()[0].startswith("chance of work: 0.")
    assert "raised the chance of work by" in said
    assert "is a protected characteristic" in said
    assert explain("row", str(artifact), "-", stdin=row) == said
    whole = json.loads(explain("row", str(artifact), row, "--json"))
    assert (whole["method"], whole["status"]) == ("shap_tree", "ok")


def test_a_row_asked_over_http(place: Path, model_server: Any) -> None:
    artifact = fit(place, "anchors", "rule", "--output", "probability", "--param", "background_rows=300")
    said = explain("row", str(artifact), (place / "row.json").read_text(), "--model-url", model_server.url)
    assert "the answer is the same in" in said
    assert set(model_server.seen) == {"1"}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--param", "speed"), "NAME=VALUE"),
        (("--param", "speed=1"), "unexpected keyword argument 'speed'"),
        (("--unit", "metres"), "probability or raw"),
        (("--model", "absent.skops"), "absent.skops"),
        (("--schema", "absent.yaml"), "absent.yaml"),
    ],
)
def test_wrong_options_are_named(place: Path, options: tuple[str, ...], told: str) -> None:
    with pytest.raises(GovernError, match=told):
        fit(place, "shap_tree", "shap", *options)


def test_wrong_rows_are_named(place: Path) -> None:
    artifact = fit(place, "shap_tree", "shap", "--param", "background_rows=5")
    for values, told in (("{", "inputs_json"), ('{"x": 1}', "'x' is no feature")):
        with pytest.raises(BadInput, match=told):
            explain("row", str(artifact), values)


def test_a_black_box_without_a_model_is_refused_at_the_start(place: Path) -> None:
    fit(place, "anchors", "rule", "--param", "background_rows=50")
    with pytest.raises(ConfigError, match="no model to ask"):
        explain("worker", str(place / "explainers"), "--bus", f"embedded://{place / 'bus.db'}")


@pytest.mark.parametrize("command", [("worker",), ("serve", "--port", "0")])
def test_its_name_in_the_group_is_handed_to_the_bus_and_the_embedded_one_has_none(
    place: Path, embedded_url: str, command: tuple[str, ...]
) -> None:
    fit(place, "shap_tree", "shap", "--param", "background_rows=5")
    with pytest.raises(ConfigError, match="members of the embedded bus have neither"):
        explain(*command, str(place / "explainers"), "--bus", embedded_url, "--group-instance-id", "explainer-0")


def test_a_port_in_use_is_named(place: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with pytest.raises(GovernError, match=f"port {port}"):
            explain("serve", str(place), "--bus", f"embedded://{place / 'bus.db'}", "--port", port)


async def make_topics(url: str, namespace: str) -> None:
    async with open_bus(url) as bus:
        await bus.ensure_topics(specs(namespace))


def test_serve_answers_and_ends_with_sigterm(place: Path, embedded_url: str, unique: str) -> None:
    fit(place, "shap_tree", "shap", "--param", "background_rows=20")
    asyncio.run(make_topics(embedded_url, unique))
    port, metrics_port = free_port(), free_port()
    command = [sys.executable, "-P", "-W", "ignore", "-m", "govern.cli.main", "explain", "serve"]
    command += [str(place / "explainers"), "--bus", embedded_url, "--namespace", unique, "--port", str(port)]
    command += ["--metrics-port", str(metrics_port)]
    log = place / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        give_up = time.monotonic() + 90
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            while True:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < give_up, log.read_text()
                try:
                    if client.get("/healthz").is_success:
                        break
                except httpx.TransportError:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(0.05)
            row = json.loads((place / "row.json").read_text())
            ask = {"inputs": [row], "explainer": "shap", "wait_s": 30}
            answer = client.post("/v1/explanations", json=ask)
            assert answer.json()["status"] == "ok", answer.text
        metrics = httpx.get(f"http://127.0.0.1:{metrics_port}/metrics", timeout=60).text
        assert "govern_explanations_total{" in metrics
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, log.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    assert "Traceback" not in log.read_text()
