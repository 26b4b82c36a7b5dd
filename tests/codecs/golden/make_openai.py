"""OpenAI streams and embeddings, and what OpenAI's own client makes of them.

    python3.11 -m venv /tmp/oracle
    /tmp/oracle/bin/pip install openai==3.57.0
    /tmp/oracle/bin/python tests/codecs/golden/make_openai.py

`openai.json` says of each body the choices, token counts or embeddings that the client gives for it.
"""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import httpx2
from openai import OpenAI
from openai.lib.streaming.chat import ChatCompletionStreamState

HERE = Path(__file__).parent


def delta(index: int, finish: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"index": index, "delta": fields, "finish_reason": finish, "logprobs": None}


def call(index: int, arguments: str, **fields: Any) -> dict[str, Any]:
    named = {"name": fields.pop("name")} if "name" in fields else {}
    return {"index": index, **fields, "function": {"arguments": arguments, **named}}


CHOICES = [
    [delta(0, role="assistant", content="")],
    [delta(0, content="Guten "), delta(1, role="assistant", content=None)],
    [delta(1, tool_calls=[call(0, "", id="call_a", type="function", name="weather")])],
    [delta(1, tool_calls=[call(0, '{"city": "K')]), delta(0, content="Tag, K")],
    [delta(1, tool_calls=[call(1, "{}", id="call_b", type="function", name="clock")])],
    [delta(0, content="öln 🌧"), delta(1, tool_calls=[call(0, 'öln"}')])],
    [delta(0, "stop"), delta(1, "tool_calls")],
    [],
]
USAGE = {"prompt_tokens": 11, "completion_tokens": 23, "total_tokens": 34}
BASE = {"id": "chatcmpl-1", "created": 1, "model": "m"}


def client(body: bytes, content_type: str) -> OpenAI:
    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, content=body, headers={"content-type": content_type})

    return OpenAI(api_key="none", http_client=httpx2.Client(transport=httpx2.MockTransport(answer)))


def stream() -> dict[str, Any]:
    chunks = [{**BASE, "object": "chat.completion.chunk", "choices": choices, "usage": None} for choices in CHOICES]
    chunks[-1]["usage"] = USAGE
    events = [json.dumps(chunk, ensure_ascii=False) for chunk in chunks] + ["[DONE]"]
    body = ": keep-alive\n\n" + "".join(f"data: {event}\n\n" for event in events)
    (HERE / "openai-chat-stream.response").write_text(body, encoding="utf-8")
    state = ChatCompletionStreamState()
    opened = client(body.encode(), "text/event-stream").chat.completions.create(
        model="m", messages=[{"role": "user", "content": "hi"}], stream=True
    )
    for chunk in opened:
        state.handle_chunk(chunk)
    final = state.get_final_completion()
    choices = [
        {
            "text": choice.message.content or "",
            "tool_calls": [
                [one.id, one.function.name, one.function.arguments] for one in choice.message.tool_calls or ()
            ],
            "finish_reason": choice.finish_reason,
        }
        for choice in final.choices
    ]
    assert final.usage is not None
    return {"choices": choices, "usage": [final.usage.prompt_tokens, final.usage.completion_tokens]}


def embeddings() -> dict[str, Any]:
    vectors = [[0.1, -2.5, 3e-8], [1.0, 0.0, -1.0]]
    packed = [base64.b64encode(struct.pack("<3f", *one)).decode() for one in vectors]
    data = [{"object": "embedding", "index": index, "embedding": one} for index, one in enumerate(packed)]
    body = json.dumps({"object": "list", "model": "m", "data": data, "usage": {"prompt_tokens": 2, "total_tokens": 2}})
    (HERE / "openai-embeddings.response").write_text(body, encoding="utf-8")
    read = client(body.encode(), "application/json").embeddings.create(model="m", input=["a", "b"])
    return {"embeddings": [[float(number) for number in one.embedding] for one in read.data]}


if __name__ == "__main__":
    manifest = {"openai-chat-stream.response": stream(), "openai-embeddings.response": embeddings()}
    (HERE / "openai.json").write_text(json.dumps(manifest, ensure_ascii=False) + "\n", encoding="utf-8")
