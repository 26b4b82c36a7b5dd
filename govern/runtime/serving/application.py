"""All that is served over HTTP: V2, and the judgements beside it."""

from __future__ import annotations

from fastapi import FastAPI

from govern.runtime.serving import judge_api, repository_rest, rest
from govern.runtime.serving.calls import Calls
from govern.runtime.serving.repository import EXTENSION, Repository


def create_app(repository: Repository, calls: Calls) -> FastAPI:
    """The ASGI application."""
    app = rest.create_app(repository, title="govern serve", calls=calls, extensions=(EXTENSION,))
    repository_rest.add_routes(app, repository, calls)
    app.mount("/v1", judge_api.create_app(repository, calls))
    return app
