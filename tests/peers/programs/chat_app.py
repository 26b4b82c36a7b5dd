"""A server of OpenAI's chat protocol that says the same words every time, whole or as server-sent events."""

import json

WORDS = ["Income", " is", " above", " 50K", "."]
COMMON = {"id": "chatcmpl-1", "created": 1_700_000_000, "model": "clerk"}
USAGE = {"prompt_tokens": 3, "completion_tokens": len(WORDS), "total_tokens": 3 + len(WORDS)}


def whole() -> bytes:
    message = {"role": "assistant", "content": "".join(WORDS)}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return json.dumps({**COMMON, "object": "chat.completion", "choices": [choice], "usage": USAGE}).encode()


def events() -> list[bytes]:
    deltas = [{"role": "assistant", "content": ""}, *({"content": word} for word in WORDS), {}]
    chunks = [
        {
            **COMMON,
            "object": "chat.completion.chunk",
            "choices": [{"index": 0, "delta": delta, "finish_reason": None if delta else "stop"}],
        }
        for delta in deltas
    ]
    return [b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks] + [b"data: [DONE]\n\n"]


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    data, more = b"", True
    while more:
        message = await receive()
        data += message.get("body", b"")
        more = message.get("more_body", False)
    stream = json.loads(data).get("stream", False)
    pieces = events() if stream else [whole()]
    kind = b"text/event-stream" if stream else b"application/json"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    for piece in pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body"})
