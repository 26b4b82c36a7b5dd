"""The proxy's question: what does this step say of this inference?"""

from __future__ import annotations

from typing import Final, Protocol

import msgspec
from fastapi import FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool

from govern import record as records
from govern.errors import BadInput
from govern.record import Inference
from govern.runtime.serving.calls import Calls
from govern.runtime.serving.judgement import Judgement, judge
from govern.runtime.serving.step import DetectorStep
from govern.web import problems
from govern.web.application import application

#: One `Inference` record, the same bytes as a message on the bus.
MEDIA_TYPE: Final = "application/x-protobuf"

_DESCRIPTION: Final = """
Judgements of single inferences by the detector steps of pipelines.

The body is one `Inference` of `govern/record.proto`, as it is on the bus; its response may be missing.
"""


class Steps(Protocol):
    """Where steps are found."""

    def step(self, pipeline: str, step: str) -> DetectorStep:
        """
        Raises:
            NotFound: no such pipeline, no detector step of this name in it, or it was unloaded.
        """
        ...


def create_app(steps: Steps, calls: Calls) -> FastAPI:
    """The application, to be mounted at `/v1`. Errors are answered as problem documents.

    Args:
        calls: bound what is under way, here and over V2 together.
    """
    app = application("govern judgements", version="1", description=_DESCRIPTION)

    @app.post(
        "/pipelines/{pipeline}/steps/{step}/judge",
        responses=problems.documented(404, 422, 503),
        openapi_extra={"requestBody": {"content": {MEDIA_TYPE: {}}, "required": True}},
        summary="Judge an inference",
        response_class=Response,
    )
    async def judge_one(pipeline: str, step: str, request: Request) -> Response:
        found = steps.step(pipeline, step)
        body = await calls.body(request.stream(), request.headers.get("content-length"))
        async with calls.place(found.labels):
            judgement = await run_in_threadpool(_judge, found, body)
        return Response(msgspec.json.encode(judgement), media_type="application/json")

    return app


def _judge(step: DetectorStep, body: bytes) -> Judgement:
    if not body:
        raise BadInput("the request has no body", why="it is empty", fix=f"send one Inference as {MEDIA_TYPE}")
    return judge(step, records.decode(Inference, body))
