"""The model server of the benchmark: a FastAPI application, bare and with capture; uvicorn serves either factory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from govern.mirror.asgi import MirrorMiddleware
from govern.mirror.config import load
from tests.bench.capturing import people

#: Events of one streamed answer, each with one token.
N_EVENTS: Final = 20
EVENT: Final = b'data: {"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"token "}}]}\n\n'


class Tensor(BaseModel):
    name: str
    shape: list[int]
    datatype: str
    data: list[float]


class Inference(BaseModel):
    inputs: list[Tensor]


def bare() -> FastAPI:
    app = FastAPI()
    employment = people.model()

    @app.post("/v2/models/employment/infer")
    def predict(asked: Inference) -> dict[str, list[Tensor]]:
        """As such applications are written: what is asked is validated, and the model predicts in a thread."""
        (given,) = asked.inputs
        chances = employment.predict_proba(np.reshape(given.data, given.shape))[:, 1]
        return {"outputs": [Tensor(name="employed", shape=[len(chances)], datatype="FP64", data=chances.tolist())]}

    @app.post("/v2/models/{model}/infer")
    async def infer(model: str, request: Request) -> dict[str, Any]:
        """Does nearly nothing, so that capture weighs as much as it can."""
        (asked,) = (await request.json())["inputs"]
        output = {"name": "length", "shape": [1], "datatype": "INT64", "data": [len(asked["data"][0])]}
        return {"model_name": model, "outputs": [output]}

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> StreamingResponse:
        await request.json()
        return StreamingResponse(events(), media_type="text/event-stream")

    return app


def captured() -> FastAPI:
    """Configured by its environment."""
    app = bare()
    app.add_middleware(MirrorMiddleware, config=load())
    return app


async def events() -> AsyncIterator[bytes]:
    for _ in range(N_EVENTS):
        yield EVENT
    yield b"data: [DONE]\n\n"
