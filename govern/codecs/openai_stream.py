"""An OpenAI stream, put together to the response that it stands for.

https://platform.openai.com/docs/api-reference/chat-streaming: events hold chunks, each with what it adds to a choice
(`delta`, of completions `text`); tool calls grow by their index; usage comes once, or grows; `[DONE]` ends it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from govern.codecs import event_stream
from govern.codecs import openai_wire as wire
from govern.codecs.json_body import parse
from govern.errors import DecodeError

_DONE: Final = b"[DONE]"


class Stream(NamedTuple):
    """What a stream was.

    Attributes:
        response: with whole messages; a choice that was cut has no `finish_reason`.
        complete: whether it came to its end.
        error: what it says that went wrong, "" for nothing.
    """

    response: wire.Response
    complete: bool
    error: str


def assemble(body: bytes, *, what: str) -> Stream:
    """Put the chunks of a body together, the last one perhaps cut.

    Raises:
        DecodeError: no event at all, an event that is no chunk.
    """
    events, rest = event_stream.split(body)
    if rest.strip() == _DONE:  # some servers leave out the last blank line
        events.append(rest)
    if not events:
        raise DecodeError(f"{what} has no event", why=f"{len(body)} bytes hold none whole", fix="send chunks as events")
    growing: dict[int, _Growing] = {}
    model, usage, error, complete = "", None, "", False
    for position, event in enumerate(events):
        if event.strip() == _DONE:
            complete = True
            break
        chunk = parse(event, wire.Response, what=f"{what}, event {position}")
        model, usage = chunk.model or model, chunk.usage or usage
        if chunk.error is not None:
            error = wire.error_text(chunk.error)
        for choice in chunk.choices or ():
            growing.setdefault(choice.index, _Growing()).add(choice)
    choices = [one.choice(index) for index, one in sorted(growing.items())]
    return Stream(wire.Response(model=model, choices=choices, usage=usage), complete and not error, error)


@dataclass(slots=True)
class _Call:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Growing:
    """A choice while its chunks come in."""

    texts: list[str] = field(default_factory=list)
    calls: dict[int, _Call] = field(default_factory=dict)
    finish_reason: str = ""

    def add(self, chunk: wire.Choice) -> None:
        delta = chunk.delta or wire.Message()
        self.texts.append(delta.text if chunk.text is None else chunk.text)
        self.finish_reason = chunk.finish_reason or self.finish_reason
        for position, piece in enumerate(delta.tool_calls or ()):
            call = self.calls.setdefault(position if piece.index is None else piece.index, _Call())
            function = piece.function or wire.Function()
            call.id = piece.id or call.id
            call.name = function.name or call.name
            call.arguments.append(function.arguments or "")

    def choice(self, index: int) -> wire.Choice:
        calls = [
            wire.ToolCall(number, call.id, wire.Function(call.name, "".join(call.arguments)))
            for number, call in sorted(self.calls.items())
        ]
        message = wire.Message(content="".join(self.texts), tool_calls=calls)
        return wire.Choice(index=index, message=message, finish_reason=self.finish_reason)
