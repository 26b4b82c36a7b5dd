"""The middleware inside an application that a real uvicorn runs, with modules named like our packages; and by itself
where it matters when exactly something happens."""

from __future__ import annotations

import http.client
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from govern.mirror.asgi import Message, MirrorMiddleware, Receive, Scope, Send
from govern.mirror.config import MirrorConfig
from govern.mirror.inspect import inspect_agents, inspect_segments
from tests.docs.test_readme import blocks
from tests.mirror.conftest import DEADLINE_S, HERE, exchange, read_all, records, request
from tests.services.process import Process, free_port, listening

BODY = b'{"inputs": []}'

MAIN = """
from pathlib import Path
import audit, detectors, explainers
from upstream_app import app as inner
from govern.mirror.asgi import MirrorMiddleware
from govern.mirror.config import load

assert audit.MINE and detectors.MINE and explainers.MINE

async def routes(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["path"].endswith("broken/infer"):
        await receive()
        raise RuntimeError("no such luck")
    if scope["path"].endswith("halfway/infer"):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
        await send({"type": "http.response.body", "body": b"12345", "more_body": True})
        raise RuntimeError("no such luck")
    await inner(scope, receive, send)

app = MirrorMiddleware(routes, load(Path(__file__).with_name("mirror.yaml")))
"""


@pytest.fixture
def served(tmp_path: Path, spool_dir: Path) -> Iterator[tuple[int, Process]]:
    """The port of the application and its process."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    for name in ("audit", "detectors", "explainers", "dashboards"):
        (folder / f"{name}.py").write_text("MINE = True\n")
    (folder / "main.py").write_text(MAIN)
    (folder / "upstream_app.py").write_text((HERE / "upstream_app.py").read_text())
    (folder / "mirror.yaml").write_text(f"spool_dir: {spool_dir}\nservice: income\npod: theirs\n")
    port = free_port()
    process = Process(
        [
            *(sys.executable, "-m", "uvicorn", "main:app", "--app-dir", str(folder), "--port", str(port)),
            *("--no-date-header", "--log-level", "warning"),
        ],
        log=tmp_path / "uvicorn.log",
    )
    process.start(lambda _: listening(port))
    yield port, process
    process.stop()


def test_the_application_answers_as_ever_and_its_inferences_are_captured(
    served: tuple[int, Process], uvicorn: int, spool_dir: Path
) -> None:
    port, _ = served
    for number, kind in enumerate(["echo", "chunked", "refuse", "nothing"]):
        data = [request(f"/v2/models/{kind}/infer", BODY, headers=[f"X-Request-Id: r{number}"])]
        assert exchange(port, data) == exchange(uvicorn, data)
    exchange(port, [request("/v2/health/ready", None, method="GET")])
    found = records([spool_dir])
    assert [(each.request_id, each.status_code) for each in found] == [
        ("r0", 200),
        ("r1", 200),
        ("r2", 500),
        ("r3", 204),
    ]
    assert [each.response.body for each in found] == [BODY, BODY, b"sorry", b""]
    assert {each.request.body for each in found} == {BODY}
    assert {(each.model, each.capture.pod) for each in found} >= {("echo", "theirs")}


def test_the_record_is_there_when_the_answer_arrives(served: tuple[int, Process], spool_dir: Path) -> None:
    port, _ = served
    connection = http.client.HTTPConnection("127.0.0.1", port)
    for number in range(10):
        connection.request("POST", "/v2/models/echo/infer", BODY, {"x-request-id": f"r{number}"})
        assert connection.getresponse().read() == BODY
        assert records([spool_dir])[-1].request_id == f"r{number}"
    connection.close()


def test_tokens_are_not_held_back(served: tuple[int, Process], spool_dir: Path) -> None:
    port, _ = served
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as connection:
        connection.sendall(request("/v2/models/tokens/infer?n=5&gate=g", BODY))
        received = b""
        for number in range(5):
            exchange(port, [request("/gate?gate=g", None, method="GET")])
            while f"token-{number}\n".encode() not in received:
                received += connection.recv(4096)
        read_all(connection)
    assert records([spool_dir])[0].response.body == b"".join(f"data: token-{n}\n\n".encode() for n in range(5))


@pytest.mark.parametrize(("kind", "status"), [("broken", 0), ("halfway", 200)])
def test_an_application_that_raises_is_captured_and_raises(
    served: tuple[int, Process], spool_dir: Path, kind: str, status: int
) -> None:
    port, process = served
    answer = exchange(port, [request(f"/v2/models/{kind}/infer", BODY)])
    assert answer.startswith(b"HTTP/1.1 500" if kind == "broken" else b"HTTP/1.1 200")
    assert "no such luck" in process.log()
    (found,) = records([spool_dir])
    assert (found.status_code, found.error) == (status, "the application ended with RuntimeError")


@pytest.mark.parametrize("end", [Process.stop, Process.kill])
def test_however_the_server_ends_its_spool_is_whole(
    served: tuple[int, Process], spool_dir: Path, end: Callable[[Process], None]
) -> None:
    port, process = served
    exchange(port, [request("/v2/models/echo/infer", BODY)])
    (agent,) = inspect_agents(spool_dir)
    assert (agent.alive, agent.counts) == (True, (1, 0, 0))
    end(process)
    (agent,) = inspect_agents(spool_dir)
    assert (agent.alive, agent.counts) == (False, (1, 0, 0))
    assert len(records([spool_dir])) == 1
    (segment,) = inspect_segments([spool_dir])
    assert segment.header.sealed is (end is Process.stop)


def test_without_a_usable_spool_the_application_serves_all_the_same(
    served: tuple[int, Process], spool_dir: Path
) -> None:
    port, process = served
    process.stop()
    shutil.rmtree(spool_dir)
    spool_dir.write_text("in the way")
    process.start(lambda _: listening(port))
    assert exchange(port, [request("/v2/models/echo/infer", BODY)]).endswith(BODY)
    assert "inferences are not captured: spool folder" in process.log()


def test_capture_imports_nothing_heavy_and_nothing_of_ours_but_govern(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, govern.mirror.asgi, govern.mirror.proxy\n"
            "tops = {name.partition('.')[0] for name in sys.modules}\n"
            "heavy = {'numpy', 'scipy', 'sklearn', 'pandas', 'fastapi', 'starlette', 'uvicorn', 'sqlalchemy', 'shap',\n"
            "  'numba', 'pyarrow', 'aiokafka', 'google', 'opentelemetry', 'prometheus_client', 'rich',\n"
            "  'typer', 'grpc', 'detectors', 'explainers', 'audit', 'dashboards'}\n"
            "print(sorted(tops & heavy))",
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=240,
    )
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_the_pages_application_is_captured(tmp_path: Path, spool_dir: Path) -> None:
    page = (HERE.parents[1] / "docs" / "capture" / "middleware.md").read_text(encoding="utf-8")
    (code,), (settings,) = blocks("python", page), blocks("yaml", page)
    (tmp_path / "page.py").write_text(code)
    (tmp_path / "mirror.yaml").write_text(settings)
    port = free_port()
    where = ["--app-dir", str(tmp_path), "--port", str(port), "--log-level", "warning"]
    process = Process(
        [
            *("env", "-C", str(tmp_path), f"GOVERN_MIRROR_SPOOL_DIR={spool_dir}"),
            *(sys.executable, "-m", "uvicorn", "page:app", *where),
        ],
        log=tmp_path / "uvicorn.log",
    )
    process.start(lambda _: listening(port))
    try:
        assert exchange(port, [request("/v2/models/income/infer", BODY)]).endswith(b'"outputs":[]}')
    finally:
        process.stop()
    (found,) = records([spool_dir])
    assert (found.service, found.model, found.request.body) == ("income", "income", BODY)


@pytest.mark.parametrize("values", [{"sampling_rate": 0}, {"sampling_rate": 0, "sampling": {"errors_rate": 1}}, {}])
async def test_a_request_that_outlives_the_shutdown_is_answered(
    make_config: Callable[..., MirrorConfig], caplog: pytest.LogCaptureFixture, values: dict[str, object]
) -> None:
    app = MirrorMiddleware(shut_down_within, make_config(**values))
    assert await answer(app) == [200, BODY]
    assert "an inference ended after the spool was closed" in caplog.text


async def test_whatever_keeps_the_spool_from_opening_the_application_serves(
    make_config: Callable[..., MirrorConfig], caplog: pytest.LogCaptureFixture
) -> None:
    app = MirrorMiddleware(echo, make_config(spool_dir="/dev/shm/a\0b"))
    for _ in range(2):
        assert await answer(app) == [200, BODY]
    assert caplog.text.count("inferences are not captured: ") == 1
    assert "Traceback" in caplog.text


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    body = (await receive())["body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def shut_down_within(scope: Scope, receive: Receive, send: Send) -> None:
    """An application whose server shuts it down while its request is under way."""
    if scope["type"] == "lifespan":
        await send({"type": "lifespan.shutdown.complete"})
        return
    await scope["app"]({"type": "lifespan"}, receive, ignored)
    await echo(scope, receive, send)


async def ignored(message: Message) -> None:
    """A server's ear for what the lifespan says."""


async def answer(app: MirrorMiddleware) -> list[object]:
    """Status and body of the answer to one inference."""
    said: list[object] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": BODY}

    async def send(message: Message) -> None:
        said.append(message["status"] if "status" in message else message["body"])

    scope = {"type": "http", "method": "POST", "path": "/v2/models/echo/infer", "headers": [], "app": app}
    await app(scope, receive, send)
    return said
