"""The model server of these tests: an ASGI application, run by a real uvicorn, that answers in every shape."""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict
from typing import Any

#: Held back until somebody asks for their release: so tests need no clock.
gates: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(0))


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    path = scope["path"]
    query = dict(pair.split("=") for pair in scope["query_string"].decode().split("&") if pair)

    async def start(status: int, **headers: str) -> None:
        fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": fields})

    async def body(data: bytes = b"", more: bool = False) -> None:
        await send({"type": "http.response.body", "body": data, "more_body": more})

    async def whole_request() -> bytes:
        parts = []
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ConnectionError
            parts.append(message.get("body", b""))
            if not message.get("more_body"):
                return b"".join(parts)

    kind = path.removesuffix("/infer").rpartition("/")[2]
    match kind:
        case "echo":
            data = await whole_request()
            await start(200, content_length=str(len(data)), content_type="application/json", x_method=scope["method"])
            await body(data)
        case "packed":
            data = await whole_request()
            await start(200, content_length=str(len(data)), content_encoding=query["coding"])
            await body(data)
        case "digest":
            digest, size = hashlib.sha256(), 0
            while True:
                message = await receive()
                digest.update(message.get("body", b""))
                size += len(message.get("body", b""))
                if not message.get("more_body"):
                    break
            answer = f"{size} {digest.hexdigest()}".encode()
            await start(200, content_length=str(len(answer)))
            await body(answer)
        case "chunked":
            data = await whole_request()
            await start(200, content_type="application/octet-stream")
            for at in range(0, len(data), 7):
                await body(data[at : at + 7], more=True)
            await body()
        case "large":
            await whole_request()
            piece = bytes(range(256)) * 256
            await start(200, content_length=str(len(piece) * int(query["pieces"])))
            for _ in range(int(query["pieces"])):
                await body(piece, more=True)
            await body()
        case "nothing":
            await whole_request()
            await start(204)
            await body()
        case "unchanged":
            await whole_request()
            await start(304, etag='"x"')
            await body()
        case "refuse":
            await whole_request()
            await start(int(query.get("status", "500")), content_length="5", retry_after="3")
            await body(b"sorry")
        case "early":
            await start(413, content_length="3", connection="close")
            await body(b"big")
        case "tokens":
            await whole_request()
            await start(200, content_type="text/event-stream")
            for number in range(int(query["n"])):
                await gates[query["gate"]].acquire()
                await body(f"data: token-{number}\n\n".encode(), more=True)
            await body()
        case "gate":
            gates[query["gate"]].release()
            await start(200, content_length="0")
            await body()
        case "wait":
            data = await whole_request()
            await gates[query["gate"]].acquire()
            await start(200, content_length=str(len(data)))
            await body(data)
        case _:
            await whole_request()
            await start(404, content_length="4")
            await body(b"none")
