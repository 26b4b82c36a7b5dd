"""A FastAPI application with a stream, an error, a background task and a WebSocket: `bare`, and `captured` as well."""

import os
from pathlib import Path

from fastapi import BackgroundTasks, FastAPI, Request, WebSocket
from fastapi.responses import Response, StreamingResponse

from govern.mirror.asgi import MirrorMiddleware
from govern.mirror.config import load


def application() -> FastAPI:
    app = FastAPI()
    done: list[str] = []

    @app.post("/v2/models/echo/infer")
    async def echo(request: Request) -> Response:
        return Response(await request.body(), media_type="application/json")

    @app.post("/v2/models/stream/infer")
    async def stream(request: Request) -> StreamingResponse:
        body = await request.body()

        async def events():
            for number in range(5):
                yield b"data: %d %b\n\n" % (number, body)

        return StreamingResponse(events(), media_type="text/event-stream")

    @app.post("/v2/models/broken/infer")
    async def broken() -> Response:
        raise RuntimeError("no such luck")

    @app.post("/v2/models/later/infer")
    async def later(request: Request, tasks: BackgroundTasks) -> dict[str, str]:
        tasks.add_task(done.append, request.headers["x-request-id"])
        return {"status": "accepted"}

    @app.post("/v2/models/who/infer")
    async def who() -> dict[str, int]:
        return {"pid": os.getpid()}

    @app.get("/done")
    async def told() -> list[str]:
        return done

    @app.websocket("/chat")
    async def chat(socket: WebSocket) -> None:
        await socket.accept()
        async for text in socket.iter_text():
            await socket.send_text(text.upper())

    return app


bare = application()
captured = application()
if "MIRROR_CONFIG" in os.environ:
    captured.add_middleware(MirrorMiddleware, config=load(Path(os.environ["MIRROR_CONFIG"])))
