"""The OpenAI API's JSON, as far as it is read. What some servers leave out or send as null may be either."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

#: Enough for a sentence; some servers send a traceback.
_ERROR_CHARACTERS: Final = 500

#: More tokens than any call has, and a number that float64 holds exactly.
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """How many tokens a call took."""

    prompt_tokens: Count = 0
    completion_tokens: Count = 0
    total_tokens: Count = 0


class Function(msgspec.Struct, frozen=True):
    name: str | None = None
    arguments: str | None = None


class ToolCall(msgspec.Struct, frozen=True):
    index: int | None = None
    id: str | None = None
    function: Function | None = None


class Part(msgspec.Struct, frozen=True):
    text: str | None = None


class Message(msgspec.Struct, frozen=True):
    """A message, or what a chunk of a stream adds to one."""

    role: str | None = None
    content: str | list[Part] | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content if part.text is not None)
        return self.content or self.refusal or ""


#: Texts or token ids, one input or several.
Inputs = str | list[str | int | list[int]]


class Request(msgspec.Struct, frozen=True):
    model: str | None = None
    messages: list[Message] | None = None
    prompt: Inputs | None = None
    input: Inputs | None = None
    stream: bool | None = None


class Choice(msgspec.Struct, frozen=True):
    index: int = 0
    message: Message | None = None
    delta: Message | None = None
    text: str | None = None
    finish_reason: str | None = None


class Embedding(msgspec.Struct, frozen=True):
    embedding: list[float] | str
    index: int = 0


class Response(msgspec.Struct, frozen=True):
    """A response, or a chunk of a stream."""

    model: str | None = None
    choices: list[Choice] | None = None
    data: list[Embedding] | None = None
    usage: Usage | None = None
    error: object = None


def error_text(error: object) -> str:
    """What an answer's field `error` says."""
    message = error.get("message") if isinstance(error, dict) else error
    return str(message)[:_ERROR_CHARACTERS]
