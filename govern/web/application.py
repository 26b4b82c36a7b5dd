"""The application that an API is built on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from fastapi_offline import FastAPIOffline

from govern.web import problems

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def application(title: str, *, description: str, version: str, lifespan: Lifespan | None = None) -> FastAPI:
    """An app with RFC 9457 errors, `/healthz`, and an OpenAPI page at `/docs` that needs no network.

    FastAPI's own page takes its scripts from a public CDN, which a cluster without a way out cannot reach.
    """
    app = FastAPIOffline(title=title, description=description, version=version, lifespan=lifespan)
    app.add_api_route("/healthz", _health, include_in_schema=False, response_class=PlainTextResponse)
    problems.install(app)
    return app


async def _health() -> str:
    return "ok\n"
