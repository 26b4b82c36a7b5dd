"""Served steps asked by Triton's clients, and as a model of a real MLServer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from govern.codecs import v2
from govern.codecs.frames import to_tensors
from govern.plugins import DETECTORS, load
from tests.docs.test_readme import ROOT, blocks
from tests.mirror.conftest import govern
from tests.peers.conftest import HOST, PEERS, MLServer, post, result
from tests.runtime.conftest import Fitted, fitted
from tests.services.process import Process

__all__ = ["fitted"]

pytestmark = pytest.mark.peers

ROWS = 20


@pytest.fixture
def served(fitted: Fitted, tmp_path: Path) -> Iterator[tuple[int, int]]:
    """The ports of `govern serve`, REST and gRPC."""
    file = fitted.write(tmp_path / "pipeline", "default")
    file.write_text(file.read_text().replace("watch", "guard"))
    process = Process(
        govern("serve", str(file), "--http", f"{HOST}:0", "--grpc", f"{HOST}:0"), log=tmp_path / "serve.log"
    )
    process.start(lambda log: "serving guard-" in log)
    rpc, http = (int(found) for found in re.findall(rf"{HOST}:(\d+)", process.log()))
    yield http, rpc
    process.stop()


@pytest.fixture
def request_file(fitted: Fitted, tmp_path: Path) -> Path:
    file = tmp_path / "request.json"
    file.write_bytes(v2.encode_request(to_tensors(fitted.replay.take(range(ROWS)))))
    return file


def expected(fitted: Fitted) -> dict[str, list[object]]:
    scores = (
        load(DETECTORS, "isolation_forest")
        .load(fitted.folder / "artifacts" / "outlier")
        .score(fitted.replay.take(range(ROWS)))
    )
    return {
        "is_outlier": scores.flagged.tolist(),
        "instance_score": scores.scores.tolist(),
        "threshold": [scores.threshold],
        "instance_shares": scores.shares.tolist(),
    }


def test_tritons_clients_ask_a_step(served: tuple[int, int], request_file: Path, fitted: Fitted) -> None:
    http, rpc = served
    answers = result(PEERS, "triton_step", "guard-outlier", request_file, f"{HOST}:{http}", f"{HOST}:{rpc}")
    for answer, status in zip(answers, ("404", "StatusCode.NOT_FOUND"), strict=True):
        assert answer["live"]
        assert answer["values"] == expected(fitted)
        assert answer["ready"] == [False, True]
        assert answer["index"] == [[f"guard-{step}", "READY"] for step in ("drift", "outlier", "adversarial")]
        assert answer["refused"][0] == status
        assert "model 'nowhere'" in answer["refused"][1]


def test_mlserver_has_a_step_as_its_model(
    served: tuple[int, int], request_file: Path, fitted: Fitted, tmp_path: Path
) -> None:
    page = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")
    (runtime,) = blocks("python", page)
    settings = json.loads(blocks("json", page)[1])
    settings["parameters"]["extra"]["address"] = f"{HOST}:{served[1]}"
    folder = tmp_path / "mlserver"
    step = folder / "step"
    step.mkdir(parents=True)
    (step / "govern_step.py").write_text(runtime)
    (step / "model-settings.json").write_text(json.dumps(settings))
    server = MLServer(folder)
    server.start()
    try:
        answer = post(
            server.http,
            "/v2/models/guard-outlier/infer",
            request_file.read_bytes(),
            {"content-type": "application/json"},
        )
    finally:
        server.process.stop()
    outputs = {one.name: one.data.tolist() for one in v2.decode_response(answer).outputs}
    assert outputs == expected(fitted)
