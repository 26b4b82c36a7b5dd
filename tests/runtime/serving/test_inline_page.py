"""The example of the page on inline steps, with a real server of steps that hangs and dies under load."""

from __future__ import annotations

import http.client
import os
import shlex
import signal
import threading
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from govern import record as encoding
from govern.codecs import v2
from govern.codecs.frames import to_tensors
from govern.mirror.agent import AgentView, Counts
from tests.mirror.conftest import DEADLINE_S, govern, records, until
from tests.mirror.conftest import spool_dir as spool_dir
from tests.mirror.conftest import uvicorn as uvicorn
from tests.runtime.conftest import Fitted
from tests.services.process import Process, free_port, listening

PAGE = (Path(__file__).parents[3] / "docs" / "capture" / "inline.md").read_text(encoding="utf-8")
PATH = "/v2/models/echo/infer"


def blocks(language: str) -> list[str]:
    pieces = (piece.partition("\n") for piece in PAGE.split("```")[1::2])
    return [text for found, _, text in pieces if found == language]


class Answer(NamedTuple):
    status: int
    said: str
    body: bytes


class Callers:
    """Threads that call the proxy one time after the other, each over a connection that it keeps."""

    def __init__(self, port: int, body: bytes) -> None:
        self.answers: dict[str, Answer] = {}
        self._port = port
        self._body = body
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(number,)) for number in range(3)]
        for thread in self._threads:
            thread.start()

    def until_told(self, word: str) -> None:
        """Until a call that was answered from now on was told this."""
        before = len(self.answers)
        until(lambda: any(one.said.startswith(word) for one in list(self.answers.values())[before:]), word)

    def end(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _call(self, number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=DEADLINE_S)
        serial = 0
        while not self._ended.is_set():
            name = f"{number}-{serial}"
            connection.request("POST", PATH, self._body, {"X-Request-Id": name})
            response = connection.getresponse()
            said = response.headers["govern-outlier"]
            self.answers[name] = Answer(response.status, said, response.read())
            serial += 1
        connection.close()


@pytest.mark.e2e
def test_the_example_as_the_page_shows_it(uvicorn: int, spool_dir: Path, tmp_path: Path, fitted: Fitted) -> None:
    serving, listen = free_port(), free_port()
    text = blocks("yaml")[0]
    for shown, here in (
        ("0.0.0.0:8080", f"127.0.0.1:{listen}"),
        ("127.0.0.1:8000", f"127.0.0.1:{uvicorn}"),
        ("127.0.0.1:8085", f"127.0.0.1:{serving}"),
        ("deadline_ms: 50", "deadline_ms: 1000"),  # the machine may be busy
    ):
        assert text.count(shown) == 1
        text = text.replace(shown, here)
    (tmp_path / "mirror.yaml").write_text(text)
    pipeline = fitted.write(tmp_path / "pipeline", "default")
    commands = blocks("")[0].replace("pipeline.yaml", str(pipeline)).replace(":8085", f":{serving}")
    serve, mirror = (
        shlex.split(line)[1:] for line in commands.replace("mirror.yaml", str(tmp_path / "mirror.yaml")).splitlines()
    )
    server = Process(govern(*serve), log=tmp_path / "serve.log")
    proxy = Process(govern(*mirror, "--spool-dir", str(spool_dir)), log=tmp_path / "proxy.log")
    server.start(lambda _: listening(serving))
    try:
        proxy.start(lambda _: listening(listen))
        callers = Callers(listen, v2.encode_request(to_tensors(fitted.replay.take([0]))))
        try:
            callers.until_told("ok")
            os.kill(server.pid, signal.SIGSTOP)
            callers.until_told("unjudged; reason=timeout")
            os.kill(server.pid, signal.SIGCONT)
            callers.until_told("ok")
            server.kill()
            callers.until_told("unjudged; reason=unavailable")
            server.start(lambda _: listening(serving))
            callers.until_told("ok")
        finally:
            callers.end()
        found = {each.request_id: each for each in records([spool_dir])}
        judged = next(each for each in found.values() if each.response.headers["govern-outlier"].startswith("ok"))
        said = httpx.post(
            f"http://127.0.0.1:{serving}/v1/pipelines/watch/steps/outlier/judge",
            content=encoding.encode(judged),
            timeout=DEADLINE_S,
        ).json()
    finally:
        proxy.stop()
        server.stop()
    assert judged.response.headers["govern-outlier"] == f'ok; score="{said["score"]}"; threshold="{said["threshold"]}"'
    told = {name: one.said for name, one in callers.answers.items()}
    assert {name: each.response.headers["govern-outlier"] for name, each in found.items()} == told
    assert {(one.status, one.body) for one in callers.answers.values()} == {(200, judged.request.body)}
    (agent,) = spool_dir.glob("*.agent")
    assert AgentView(agent).counts() == Counts(captured=len(told))
