"""The OpenAI API's chat completions, completions and embeddings, as OpenAI, vLLM and others serve them.

https://platform.openai.com/docs/api-reference. A response may be one JSON document or a stream of chunks
(`event_stream`), which is put together again to the response that it stands for.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from govern.codecs import event_stream, openai_stream
from govern.codecs import openai_wire as wire
from govern.codecs.json_body import parse
from govern.errors import DecodeError

Kind = Literal["chat", "completions", "embeddings"]

_REQUEST: Final = "OpenAI request"
_RESPONSE: Final = "OpenAI response"


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call of a tool that the model asks for; `arguments` is JSON, as the model wrote it."""

    id: str
    name: str
    arguments: str


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """A message of a conversation. `text` joins the text parts of a message that has other parts too."""

    role: str
    text: str
    tool_calls: tuple[ToolCall, ...] = ()


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A request.

    Attributes:
        messages: of a chat.
        inputs: the prompts of completions, the inputs of embeddings; token ids where the caller sent these.
    """

    kind: Kind
    model: str
    messages: tuple[Turn, ...] = ()
    inputs: tuple[str | tuple[int, ...], ...] = ()
    stream: bool = False


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One generated answer; `finish_reason` is "" while there is none (a stream that was cut)."""

    index: int
    text: str
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str = ""


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """A response.

    Attributes:
        usage: None when the server did not say (streams without `stream_options.include_usage`).
        embeddings: in the order of the inputs.
        complete: False for a stream that ended before `[DONE]` or in an error.
        error: what a stream that ended in an error said.
    """

    model: str
    choices: tuple[Choice, ...] = ()
    usage: wire.Usage | None = None
    embeddings: tuple[tuple[float, ...], ...] = ()
    complete: bool = True
    error: str = ""


def decode_request(body: bytes) -> Request:
    """Read a request; its kind is known by its field `messages`, `prompt` or `input`.

    Raises:
        DecodeError: no JSON, none of the three fields, a field of the wrong type.
    """
    sent = parse(body, wire.Request, what=_REQUEST)
    model, stream = sent.model or "", bool(sent.stream)
    if sent.messages is not None:
        turns = tuple(_turn(message) for message in sent.messages)
        return Request(kind="chat", model=model, messages=turns, stream=stream)
    if sent.prompt is not None:
        return Request(kind="completions", model=model, inputs=_inputs(sent.prompt, "prompt"), stream=stream)
    if sent.input is not None:
        return Request(kind="embeddings", model=model, inputs=_inputs(sent.input, "input"))
    raise DecodeError(
        f"{_REQUEST}: fields",
        why="it has none of `messages`, `prompt` and `input`",
        fix="send chat completions, completions or embeddings",
    )


def decode_response(body: bytes, content_type: str = "") -> Response:
    """Read a response: one JSON document, or as much of a stream as was captured.

    Raises:
        DecodeError: neither, a field of the wrong type, an answer that is an error.
    """
    if event_stream.is_event_stream(body, content_type):
        stream = openai_stream.assemble(body, what=_RESPONSE)
        return _response(stream.response, complete=stream.complete, error=stream.error)
    answer = parse(body, wire.Response, what=_RESPONSE)
    if answer.error is not None:
        raise DecodeError(
            f"{_RESPONSE} is an error",
            why=wire.error_text(answer.error),
            fix="see the model server's log; the request has no outputs",
        )
    if answer.choices is None and answer.data is None:
        raise DecodeError(
            f"{_RESPONSE}: fields",
            why="it has neither `choices` nor `data`",
            fix="answer as chat completions, completions or embeddings do",
        )
    return _response(answer, complete=True, error="")


def _response(answer: wire.Response, *, complete: bool, error: str) -> Response:
    embeddings = sorted(answer.data or (), key=lambda one: one.index)
    return Response(
        model=answer.model or "",
        choices=tuple(_choice(choice) for choice in answer.choices or ()),
        usage=answer.usage,
        embeddings=tuple(_vector(one.embedding, position) for position, one in enumerate(embeddings)),
        complete=complete,
        error=error,
    )


def _turn(message: wire.Message) -> Turn:
    return Turn(role=message.role or "", text=message.text, tool_calls=_calls(message.tool_calls or ()))


def _choice(choice: wire.Choice) -> Choice:
    message = choice.message or wire.Message()
    return Choice(
        index=choice.index,
        text=message.text if choice.text is None else choice.text,
        tool_calls=_calls(message.tool_calls or ()),
        finish_reason=choice.finish_reason or "",
    )


def _calls(calls: Sequence[wire.ToolCall]) -> tuple[ToolCall, ...]:
    named = [(call.id or "", call.function or wire.Function()) for call in calls]
    return tuple(ToolCall(id=one, name=call.name or "", arguments=call.arguments or "") for one, call in named)


def _inputs(given: wire.Inputs, field: str) -> tuple[str | tuple[int, ...], ...]:
    if isinstance(given, str):
        return (given,)
    kinds = set(map(type, given))
    if len(kinds) != 1:
        raise DecodeError(
            f"{_REQUEST}: field `{field}`",
            why="it is empty" if not given else "texts, token ids and lists of token ids are mixed in it",
            fix="send one text, a list of texts, a list of token ids, or a list of such lists",
        )
    if kinds == {int}:
        return (tuple(item for item in given if isinstance(item, int)),)
    return tuple(tuple(item) if isinstance(item, list) else item for item in given if not isinstance(item, int))


def _vector(packed: list[float] | str, position: int) -> tuple[float, ...]:
    if isinstance(packed, list):
        return tuple(packed)
    try:
        data = base64.b64decode(packed, validate=True)
        return struct.unpack(f"<{len(data) // 4}f", data)
    except (ValueError, struct.error) as error:
        raise DecodeError(
            f"{_RESPONSE}: `data[{position}].embedding`",
            why=f"it is no base64 of little-endian FP32: {error}",
            fix="send a list of numbers, or encoding_format base64 as the API has it",
        ) from error
