"""The OpenAI API: typed values, and what of them a frame holds."""

from __future__ import annotations

import base64
import json
import re
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from govern.codecs import openai, openai_tensors
from govern.codecs.openai_wire import Usage
from govern.codecs.tensor import Tensor
from govern.errors import DecodeError
from govern.schema import Feature, FeatureSchema

GOLDEN = Path(__file__).parent / "golden"
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def schema(*names: str) -> FeatureSchema:
    features = tuple(Feature(name=name, kind="text", datatype="BYTES") for name in names)
    return FeatureSchema(format_version=1, model="chat", features=features)


def dump(**document: object) -> bytes:
    return json.dumps(document).encode()


def stream(*chunks: object, done: bool = True, end: str = "\n") -> bytes:
    events = [f"data: {json.dumps(chunk)}" for chunk in chunks] + (["data: [DONE]"] if done else [])
    return "".join(event + end + end for event in events).encode()


def delta(index: int = 0, finish: str | None = None, **fields: object) -> dict[str, object]:
    choice = {"index": index, "delta": fields, "finish_reason": finish}
    return {"object": "chat.completion.chunk", "model": "m", "choices": [choice], "usage": None}


def call(index: int, **fields: object) -> dict[str, object]:
    return {"index": index, "type": "function", **fields}


def test_a_chat_request() -> None:
    asked = call(0, id="c", function={"name": "f", "arguments": "{}"})
    parts = [{"type": "text", "text": "what is"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": None, "tool_calls": [asked]},
        {"role": "tool", "content": "42", "tool_call_id": "c"},
        {"role": "user", "content": [*parts, {"type": "text", "text": "this?"}]},
    ]
    body = dump(model="m", messages=messages, stream=True)
    request = openai.decode_request(body)
    assert (request.kind, request.model, request.stream) == ("chat", "m", True)
    assert [(turn.role, turn.text) for turn in request.messages] == [
        ("system", "be brief"),
        ("user", "hi"),
        ("assistant", ""),
        ("tool", "42"),
        ("user", "what is\nthis?"),
    ]
    assert request.messages[2].tool_calls == (openai.ToolCall(id="c", name="f", arguments="{}"),)
    tensors = openai_tensors.decode_request(body, schema("prompt", "system", "messages"))
    assert shown(tensors) == {"prompt": ["what is\nthis?"], "system": ["be brief"], "messages": [5]}


def shown(tensors: Sequence[Tensor]) -> dict[str, object]:
    return {tensor.name: tensor.data.tolist() for tensor in tensors}


@pytest.mark.parametrize(
    ("field", "given_inputs", "inputs"),
    [
        ("prompt", "a", ("a",)),
        ("prompt", ["a", "b"], ("a", "b")),
        ("input", [1, 2], ((1, 2),)),
        ("input", [[1], [2, 3]], ((1,), (2, 3))),
    ],
)
def test_completions_and_embeddings_requests(field: str, given_inputs: object, inputs: object) -> None:
    request = openai.decode_request(dump(model="m", **{field: given_inputs}))
    assert (request.kind, request.inputs) == ("completions" if field == "prompt" else "embeddings", inputs)


def test_each_prompt_and_input_is_a_row() -> None:
    assert shown(openai_tensors.decode_request(dump(prompt=["a", "b"]), schema("prompt"))) == {"prompt": ["a", "b"]}
    assert shown(openai_tensors.decode_request(dump(input="a"), schema("input"))) == {"input": ["a"]}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "none of `messages`, `prompt` and `input`"),
        ({"prompt": []}, "field `prompt`: it is empty"),
        ({"input": ["a", 1]}, "field `input`: texts, token ids.*mixed"),
        ({"messages": [{"content": 3}]}, r"\$\.messages\[0\]\.content"),
        ({"prompt": [1, 2]}, r"`prompt\[0\]` is a list of token ids"),
        ({"input": "a"}, "embeddings request has no feature of the schema of 'chat': it gives input; .* has prompt"),
    ],
)
def test_a_wrong_request_is_named(document: dict[str, object], message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        openai_tensors.decode_request(dump(**document), schema("prompt"))


USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10, "prompt_tokens_details": {"cached": 1}}


def test_a_chat_response() -> None:
    message = {"role": "assistant", "content": "hello"}
    choices = [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}]
    body = dump(id="x", object="chat.completion", model="m", choices=choices, usage=USAGE)
    response = openai.decode_response(body)
    assert response == openai.Response(
        model="m",
        choices=(openai.Choice(index=0, text="hello", finish_reason="stop"),),
        usage=Usage(prompt_tokens=7, completion_tokens=3, total_tokens=10),
    )
    counts = {"prompt_tokens": [7], "completion_tokens": [3], "total_tokens": [10]}
    assert shown(openai_tensors.decode_response(body, "application/json")) == counts


def test_a_completions_response_and_a_refusal() -> None:
    body = dump(choices=[{"index": 0, "text": "a"}, {"index": 1, "text": "", "finish_reason": "length"}])
    assert [(one.text, one.finish_reason) for one in openai.decode_response(body).choices] == [
        ("a", ""),
        ("", "length"),
    ]
    body = dump(choices=[{"message": {"content": None, "refusal": "no"}, "finish_reason": "stop"}])
    assert openai.decode_response(body).choices[0].text == "no"


@given(st.lists(WORDS, max_size=8), st.sampled_from(["\n", "\r\n", "\r"]), st.booleans())
def test_a_stream_is_the_response_that_it_stands_for(words: list[str], end: str, bom: bool) -> None:
    usage = {"object": "chat.completion.chunk", "model": "m", "choices": [], "usage": USAGE}
    chunks = [
        delta(role="assistant", content=""),
        *(delta(content=word) for word in words),
        delta(finish="stop"),
        usage,
    ]
    message = {"role": "assistant", "content": "".join(words)}
    whole = dump(model="m", choices=[{"index": 0, "message": message, "finish_reason": "stop"}], usage=USAGE)
    streamed = (b"\xef\xbb\xbf" if bom else b"") + stream(*chunks, end=end)
    assert openai.decode_response(streamed, "text/event-stream; charset=utf-8") == openai.decode_response(whole)


def test_tool_calls_and_choices_grow_side_by_side() -> None:
    body = stream(
        delta(0, tool_calls=[call(0, id="c0", function={"name": "f", "arguments": ""})]),
        delta(1, content="b"),
        delta(0, tool_calls=[call(1, id="c1", function={"name": "g", "arguments": '{"x'})]),
        delta(0, tool_calls=[call(0, function={"arguments": "{}"}), call(1, function={"arguments": '":1}'})]),
        delta(0, finish="tool_calls"),
    )
    first, second = openai.decode_response(body).choices
    assert first.tool_calls == (
        openai.ToolCall(id="c0", name="f", arguments="{}"),
        openai.ToolCall(id="c1", name="g", arguments='{"x":1}'),
    )
    assert (first.finish_reason, second.text, second.finish_reason) == ("tool_calls", "b", "")


def test_comments_other_fields_and_texts_of_completions() -> None:
    chunk = json.dumps({"choices": [{"index": 0, "text": "a"}]})
    body = f": ping\n\nevent: chunk\nid: 1\ndata:{chunk}\n\nretry: 3\n\ndata: {chunk}\n\ndata: [DONE]\n".encode()
    response = openai.decode_response(body)
    assert (response.choices[0].text, response.complete) == ("aa", True)


@given(st.integers(1, 400))
def test_a_stream_that_was_cut_is_marked(cut: int) -> None:
    body = stream(delta(content="one "), delta(content="two"), delta(finish="stop"))
    kept = body[: max(len(stream(delta(content="one "), done=False)), len(body) - 1 - cut)]
    response = openai.decode_response(kept)
    assert response.complete == kept.rstrip().endswith(b"[DONE]")
    assert response.choices[0].text in ("one ", "one two")


def test_a_stream_that_ends_in_an_error_is_marked() -> None:
    body = stream(delta(content="on"), {"error": {"message": "out of memory", "code": 500}})
    response = openai.decode_response(body)
    assert (response.complete, response.error, response.choices[0].text) == (False, "out of memory", "on")


@pytest.mark.parametrize("as_base64", [True, False])
def test_embeddings_are_in_the_order_of_their_inputs(as_base64: bool) -> None:
    def vector(*numbers: float) -> object:
        return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode() if as_base64 else numbers

    data = [{"index": 1, "embedding": vector(3, 4)}, {"index": 0, "embedding": vector(0.5, 2)}]
    body = dump(object="list", data=data, usage={"prompt_tokens": 2, "total_tokens": 2})
    assert openai.decode_response(body).embeddings == ((0.5, 2.0), (3.0, 4.0))
    assert shown(openai_tensors.decode_response(body, ""))["embedding"] == [[0.5, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (dump(error={"message": "rate limit"}), "OpenAI response is an error: rate limit"),
        (dump(error="bad"), "is an error: bad"),
        (dump(id="x"), "neither `choices` nor `data`"),
        (dump(data=[{"embedding": "AAA="}]), r"`data\[0\].embedding`: it is no base64"),
        (dump(data=[{"embedding": "ü"}]), r"`data\[0\].embedding`: it is no base64"),
        (dump(data=[{"embedding": [1]}, {"embedding": [1, 2]}]), "embeddings have 1 to 2 numbers"),
        (dump(choices=[], usage={"total_tokens": 2**60}), r"\$\.usage\.total_tokens"),
        (b"data: {}", "has no event"),
        (b"data: {}\n\ndata: {oops\n\n", "OpenAI response, event 1 is no JSON"),
        (b"<html>", "OpenAI response is no JSON"),
    ],
)
def test_a_wrong_response_is_named(body: bytes, message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        openai_tensors.decode_response(body, "")


def test_the_content_type_alone_makes_a_stream() -> None:
    with pytest.raises(DecodeError, match=re.escape("has no event: 2 bytes")):
        openai.decode_response(b"{}", "text/event-stream")


def test_openais_own_client_reads_the_same() -> None:
    """The oracle of `golden/make_openai.py`."""
    known = json.loads((GOLDEN / "openai.json").read_text(encoding="utf-8"))
    stream, embeddings = sorted(known)
    response = openai.decode_response((GOLDEN / stream).read_bytes())
    usage = response.usage
    assert response.complete
    assert usage is not None
    assert known[stream] == {
        "choices": [
            {
                "text": choice.text,
                "tool_calls": [[one.id, one.name, one.arguments] for one in choice.tool_calls],
                "finish_reason": choice.finish_reason,
            }
            for choice in response.choices
        ],
        "usage": [usage.prompt_tokens, usage.completion_tokens],
    }
    vectors = openai.decode_response((GOLDEN / embeddings).read_bytes()).embeddings
    assert [list(vector) for vector in vectors] == known[embeddings]["embeddings"]
