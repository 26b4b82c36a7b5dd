"""The proxy asks a real detector while the caller waits: what it flags is refused, with the score that it had."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import numpy as np
import pytest

from govern.codecs import v2
from govern.codecs.frames import to_tensors
from govern.runtime.loader import LoadedPipeline
from govern.runtime.serving.application import create_app
from govern.runtime.serving.calls import Calls
from govern.runtime.serving.repository import Repository
from govern.web.listening import listen, serve
from tests.mirror.conftest import Running, records, request
from tests.mirror.conftest import make_config as make_config
from tests.mirror.conftest import spool_dir as spool_dir
from tests.mirror.conftest import start_proxy as start_proxy
from tests.mirror.conftest import uvicorn as uvicorn
from tests.mirror.inline.test_turn import ECHO, LONG_MS, asked, parts
from tests.runtime.conftest import Fitted


@pytest.fixture
async def steps(repository: Repository) -> AsyncIterator[str]:
    """The URL of a server of the pipeline's steps."""
    stop = asyncio.Event()
    with listen("127.0.0.1", 0) as listening:
        listening.listen()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(serve(create_app(repository, Calls()), listening, stop))
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
            stop.set()


async def test_a_call_that_an_outlier_step_flags_is_blocked_and_another_one_is_not(
    start_proxy: Callable[..., Awaitable[Running]], uvicorn: int, steps: str, loaded: LoadedPipeline, fitted: Fitted
) -> None:
    people = fitted.replay.take(range(1000))
    scores = loaded.detectors["outlier"].score(people)
    by_score = np.argsort(scores.scores)
    calm, flagged = int(by_score[0]), int(by_score[-1])
    assert scores.flagged[[calm, flagged]].tolist() == [False, True]
    step = {"step": "outlier", "when": "request", "on_failure": "closed", "on_alarm": "block", "deadline_ms": LONG_MS}
    running = await start_proxy(uvicorn, inline={"url": steps, "pipeline": "watch", "steps": [step]})
    seen = {}
    for row in (calm, flagged):
        body = v2.encode_request(to_tensors(people.take([row])))
        status, fields, answer = parts(
            await asked(running.port, request(ECHO, body, headers=[f"X-Request-Id: r-{row}"]))
        )
        said = "alarm" if row == flagged else "ok"
        told = f'{said}; score="{scores.scores[row]}"; threshold="{scores.threshold}"'
        assert fields[b"govern-outlier"].decode() == told
        assert status == (403 if row == flagged else 200)
        assert answer == body or json.loads(answer)["type"] == "inline-alarm"
        seen[f"r-{row}"] = (status, told)
    found = {one.request_id: one for one in records([running.recorder.config.spool_dir])}
    assert {name: (one.status_code, one.response.headers["govern-outlier"]) for name, one in found.items()} == seen
    assert found[f"r-{flagged}"].error.startswith("the step outlier blocks this call")
