"""`govern serve` as a process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from govern import record as records
from govern.codecs import v2
from govern.codecs.frames import to_tensors
from tests.runtime.conftest import Fitted, Make
from tests.runtime.serving.conftest import address, served
from tests.services.process import Process


@pytest.fixture
def serving(fitted: Fitted, tmp_path: Path) -> Iterator[Process]:
    with served(fitted.write(tmp_path / "pipeline", "default"), tmp_path / "serve.log") as process:
        yield process


def test_steps_are_served_judged_and_drained(serving: Process, fitted: Fitted, make_inference: Make) -> None:
    with httpx.Client(base_url=address(serving), timeout=60) as client:
        assert client.get("/v2/health/ready").json() == {"ready": True}
        judged = client.post(
            "/v1/pipelines/watch/steps/outlier/judge", content=records.encode(make_inference(0, rows=5))
        ).json()
        people = fitted.replay.take(range(5))
        answer = client.post("/v2/models/watch-outlier/infer", content=v2.encode_request(to_tensors(people)))
        outputs = {one.name: one.data.tolist() for one in v2.decode_response(answer.content).outputs}
    assert judged["n_instances"] == 5
    assert max(outputs["instance_score"]) == judged["score"]
    serving.terminate()
    assert serving.wait() == 0
