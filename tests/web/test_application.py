"""The page at /docs in a real browser that reaches nothing but us, and the errors of an API."""

from __future__ import annotations

import asyncio
import re
import subprocess
from pathlib import Path

import httpx
import pytest

from govern.errors import NotFound, Unavailable
from govern.web.application import application
from govern.web.listening import listen, serve
from tests.services.process import require


def make() -> object:
    app = application("greetings", description="Says hello.", version="1")

    @app.get("/hello/{name}", summary="Greet somebody")
    async def hello(name: str, times: int = 1) -> str:
        if name == "nobody":
            raise NotFound("nobody", why="there is nobody", fix="greet somebody")
        if name == "bug":
            raise ZeroDivisionError("secret detail")
        return f"hello {name}" * times

    return app


async def test_every_error_is_a_problem_document() -> None:
    transport = httpx.ASGITransport(app=make(), raise_app_exceptions=False)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        missing = await client.get("/hello/nobody")
        wrong = await client.get("/hello/you?times=many")
        unknown = await client.get("/nowhere")
        bug = await client.get("/hello/bug")
        health = await client.get("/healthz")
    assert (health.status_code, health.text) == (200, "ok\n")
    for answer, status in ((missing, 404), (wrong, 422), (unknown, 404), (bug, 500)):
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == status
        assert answer.json()["fix"]
    assert missing.json()["title"] == "nobody"
    assert "times" in wrong.json()["title"]
    assert "secret" not in bug.text


def test_a_port_in_use_is_named() -> None:
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        first.listen()
        with pytest.raises(Unavailable, match=f"port {port}") as caught:
            listen("127.0.0.1", port)
    assert "--port" in caught.value.fix


@pytest.mark.browser
async def test_the_docs_page_renders_in_a_browser_without_the_internet(tmp_path: Path) -> None:
    stop = asyncio.Event()
    with listen("127.0.0.1", 0) as listening:
        listening.listen()  # so that a browser that comes before the server waits
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/docs"
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(serve(make(), listening, stop))  # type: ignore[arg-type]
            page = await asyncio.to_thread(rendered, url, tmp_path)
            stop.set()
    assert "Greet somebody" in page
    assert "Says hello." in page
    foreign = [
        address for address in re.findall(r'(?:src|href)="(https?://[^"]+)"', page) if "127.0.0.1" not in address
    ]
    assert foreign == []


def rendered(url: str, folder: Path) -> str:
    """The page's DOM once its scripts have run."""
    command = [
        require("chromium", package="chromium"),
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
        f"--user-data-dir={folder / 'profile'}",
        "--virtual-time-budget=10000",
        "--dump-dom",
        url,
    ]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=240).stdout
