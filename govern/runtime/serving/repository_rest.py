"""The model repository over REST.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_model_repository.md
"""

from __future__ import annotations

import msgspec
from fastapi import FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool

from govern.errors import BadInput
from govern.runtime.serving.calls import Calls
from govern.runtime.serving.repository import Repository


class _Index(msgspec.Struct, frozen=True):
    ready: bool = False


def add_routes(app: FastAPI, repository: Repository, calls: Calls) -> None:
    """Let the app answer for the repository, with the errors that it has for all V2."""

    @app.post("/v2/repository/index")
    async def index(request: Request) -> Response:
        body = await calls.body(request.stream(), request.headers.get("content-length"))
        try:
            asked = msgspec.json.decode(body or b"{}", type=_Index)
        except msgspec.MsgspecError as error:
            raise BadInput("index request", why=str(error), fix='send {"ready": true}, or {} for all') from error
        listed = repository.index(only_ready=asked.ready)
        return Response(msgspec.json.encode(listed), media_type="application/json")

    @app.post("/v2/repository/models/{name}/load")
    async def load(name: str) -> Response:
        await run_in_threadpool(repository.load, name)
        return Response(b"{}", media_type="application/json")

    @app.post("/v2/repository/models/{name}/unload")
    async def unload(name: str) -> Response:
        repository.unload(name)
        return Response(b"{}", media_type="application/json")
