"""How much is under way at once."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from prometheus_client import CollectorRegistry

from govern.codecs import v2
from govern.codecs.tensor import Tensor, objects
from govern.errors import BadInput
from govern.runtime.serving.calls import Busy, Calls
from govern.runtime.serving.model import ModelMetadata
from govern.runtime.serving.rest import create_app
from govern.telemetry.metrics import Metrics, labels

LABELS = labels(pipeline="p", step="s")


class Slow:
    """Answers when it may."""

    metadata = ModelMetadata(name="slow", inputs=(), outputs=())

    def __init__(self) -> None:
        self.may = asyncio.Event()
        self.inside = 0
        self.most = 0

    async def infer(self, inputs: list[Tensor], /, *, request_id: str = "") -> list[Tensor]:
        self.inside += 1
        self.most = max(self.most, self.inside)
        await self.may.wait()
        self.inside -= 1
        return inputs


async def test_so_many_are_answered_at_once_so_many_wait_and_one_more_is_refused() -> None:
    metrics = Metrics(CollectorRegistry())
    slow = Slow()
    app = create_app({"slow": slow}, calls=Calls(at_once=2, waiting=3, metrics=metrics))
    body = v2.encode_request([Tensor("x", "BYTES", objects(["a"]))])
    async with (
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://serve") as client,
        asyncio.timeout(60),
    ):
        under_way = {asyncio.create_task(client.post("/v2/models/slow/infer", content=body)) for _ in range(6)}
        done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
        (refused,) = [await one for one in done]
        assert refused.status_code == 503
        assert "the server is busy" in refused.json()["error"]
        slow.may.set()
        assert [(await one).status_code for one in under_way] == [200] * 5
    assert slow.most == 2
    count = metrics.registry.get_sample_value
    named = dict(
        zip(("namespace", "service", "model", "revision", "endpoint", "pipeline", "step"), [""] * 7, strict=True)
    )
    named["model"] = "slow"
    assert count("govern_serve_refused_total", named) == 1
    assert count("govern_serve_duration_seconds_count", named) == 5


async def test_a_failure_is_counted_and_gives_its_place_back() -> None:
    metrics = Metrics(CollectorRegistry())
    calls = Calls(at_once=1, waiting=0, metrics=metrics)
    for _ in range(3):
        with pytest.raises(BadInput):
            async with calls.place(LABELS):
                raise BadInput("x", why="y", fix="z")
    assert metrics.serve_failures.labels(*LABELS)._value.get() == 3
    async with calls.place(LABELS):
        with pytest.raises(Busy):
            async with calls.place(LABELS):
                pass


@pytest.mark.parametrize("declared", [True, False])
async def test_a_long_body_is_refused_whether_it_says_so_or_not(declared: bool) -> None:
    app = create_app({"slow": Slow()}, calls=Calls(max_bytes=100))
    content: bytes | object = bytes(101)

    async def chunks() -> object:
        for _ in range(101):
            yield b" "

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://serve") as client:
        answer = await client.post("/v2/models/slow/infer", content=content if declared else chunks())  # type: ignore[arg-type]
    assert answer.status_code == 413
    assert "the limit is 100 bytes" in answer.json()["error"]
