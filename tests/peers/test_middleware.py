"""The middleware in a FastAPI application that other people's servers run: uvicorn and hypercorn."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from govern.mirror.inspect import inspect_agents
from tests.mirror.conftest import DEADLINE_S, exchange, records, request, until
from tests.peers.conftest import HOST, PEERS, PROGRAMS, python, result
from tests.services.process import Process, free_port, listening

pytestmark = pytest.mark.peers

BODY = b'{"inputs": []}'
SERVERS = ["uvicorn", "hypercorn"]
Serve = Callable[..., tuple[int, Process]]


@pytest.fixture
def serve(spool_dir: Path, tmp_path: Path) -> Iterator[Serve]:
    """`serve(server, application)`: the port and process of `application.py`'s application."""
    config = tmp_path / "mirror.yaml"
    config.write_text(f"spool_dir: {spool_dir}\nservice: income\n")
    with ExitStack() as stack:

        def start(server: str, application: str, *options: str) -> tuple[int, Process]:
            port = free_port()
            where = (
                ["--port", str(port), "--log-level", "warning"] if server == "uvicorn" else ["--bind", f"{HOST}:{port}"]
            )
            process = Process(
                [
                    *("env", "-u", "PYTHONPATH", "-C", str(PROGRAMS), f"MIRROR_CONFIG={config}"),
                    *(python(PEERS), "-m", server, f"application:{application}", *where, *options),
                ],
                log=tmp_path / f"{server}-{application}.log",
            )
            process.start(lambda _: listening(port))
            stack.callback(process.stop)
            return port, process

        yield start


def undated(answer: bytes) -> bytes:
    return re.sub(rb"(?im)^date: .*\r\n", b"", answer)


@pytest.mark.parametrize("server", SERVERS)
def test_the_application_answers_as_ever_on_one_connection_and_is_captured(
    serve: Serve, spool_dir: Path, server: str
) -> None:
    bare, _ = serve(server, "bare")
    captured, process = serve(server, "captured")
    kinds = ["echo", "stream", "broken", "later", "nowhere"]
    for kind in kinds:
        last = [request(f"/v2/models/{kind}/infer", BODY, headers=[f"X-Request-Id: {kind}"])]
        assert undated(exchange(captured, last)) == undated(exchange(bare, last)), kind
    connection = http.client.HTTPConnection(HOST, captured, timeout=DEADLINE_S)
    for number in range(3):
        connection.request("POST", "/v2/models/echo/infer", BODY, {"x-request-id": f"kept-{number}"})
        assert connection.getresponse().read() == BODY

    def told() -> bool:
        connection.request("GET", "/done")
        return json.loads(connection.getresponse().read()) == ["later"]

    until(told, "the background task")
    connection.close()
    assert "no such luck" in process.log()
    found = {each.request_id: each for each in records([spool_dir])}
    assert list(found) == [*kinds, "kept-0", "kept-1", "kept-2"]
    # What answers 500 in the place of a broken application lies outside of its middleware.
    assert [found[kind].status_code for kind in kinds] == [200, 200, 0, 200, 404]
    assert found["broken"].error == "the application ended with RuntimeError"
    assert found["stream"].response.body == b"".join(b"data: %d %b\n\n" % (number, BODY) for number in range(5))
    assert {each.capture.source for each in found.values()} == {"middleware"}


@pytest.mark.parametrize("server", SERVERS)
def test_websockets_are_left_alone(serve: Serve, spool_dir: Path, server: str) -> None:
    port, _ = serve(server, "captured")
    assert result(PEERS, "websocket_client", f"{HOST}:{port}") == ["HELLO", "X" * 70_000, "ÄÖÜ"]
    assert records([spool_dir]) == []


@pytest.mark.parametrize("server", SERVERS)
def test_websockets_pass_the_proxy(
    serve: Serve, proxy_process: Callable[..., Process], spool_dir: Path, server: str
) -> None:
    port, _ = serve(server, "bare")
    proxied = free_port()
    proxy_process(proxied, port)
    assert result(PEERS, "websocket_client", f"{HOST}:{proxied}") == ["HELLO", "X" * 70_000, "ÄÖÜ"]
    assert records([spool_dir]) == []


@pytest.mark.parametrize("server", SERVERS)
def test_every_worker_is_an_agent_of_its_own(serve: Serve, spool_dir: Path, server: str) -> None:
    port, _ = serve(server, "captured", "--workers", "2")
    asked = 0
    seen: set[bytes] = set()

    def both() -> bool:
        nonlocal asked
        asked += 1
        seen.add(exchange(port, [request("/v2/models/who/infer", BODY)]).partition(b"\r\n\r\n")[2])
        return len(seen) == 2

    until(both, "an answer of each worker")
    agents = inspect_agents(spool_dir)
    assert sum(agent.counts.captured for agent in agents) == asked == len(records([spool_dir]))
    assert sum(agent.counts.captured > 0 for agent in agents) == 2
