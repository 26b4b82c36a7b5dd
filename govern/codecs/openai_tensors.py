"""What of an OpenAI exchange a frame can hold: texts as features, counts and embeddings as outputs."""

from __future__ import annotations

from typing import Final

import numpy as np

from govern.codecs import openai
from govern.codecs.tensor import Tensor, objects
from govern.errors import DecodeError
from govern.schema import FeatureSchema

#: Newer models call the system's messages the developer's.
_SYSTEM_ROLES: Final = ("system", "developer")


def decode_request(body: bytes, schema: FeatureSchema) -> list[Tensor]:
    """Those features of the schema that the request has.

    A chat is one row: `prompt` (text of the user's last message), `system` (the system's and developer's messages) and
    `messages` (their number). Completions have a row with `prompt` for each prompt, embeddings a row with `input` for
    each input.

    Raises:
        DecodeError: see `openai.decode_request`; none of the features; inputs of token ids, which are no texts.
    """
    request = openai.decode_request(body)
    offered = _chat(request) if request.kind == "chat" else [_texts(request)]
    wanted = [tensor for tensor in offered if tensor.name in schema.names]
    if not wanted:
        raise DecodeError(
            f"OpenAI {request.kind} request has no feature of the schema of {schema.model!r}",
            why=f"it gives {', '.join(tensor.name for tensor in offered)}; the schema has {', '.join(schema.names)}",
            fix="name the schema's text feature so, or leave this model without detectors",
        )
    return wanted


def decode_response(body: bytes, content_type: str) -> list[Tensor]:
    """The response's numbers: `prompt_tokens`, `completion_tokens`, `total_tokens`, and `embedding` (n, d).

    Raises:
        DecodeError: see `openai.decode_response`; embeddings of different lengths.
    """
    response = openai.decode_response(body, content_type)
    tensors: list[Tensor] = []
    if response.usage is not None:
        usage = response.usage
        counts = {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.total_tokens,
        }
        tensors += [Tensor(name, "INT64", np.array([count], dtype=np.int64)) for name, count in counts.items()]
    if response.embeddings:
        lengths = sorted(set(map(len, response.embeddings)))
        if len(lengths) > 1:
            raise DecodeError(
                "OpenAI response: `data`",
                why=f"its embeddings have {lengths[0]} to {lengths[-1]} numbers",
                fix="answer with embeddings of one length",
            )
        tensors.append(Tensor("embedding", "FP64", np.array(response.embeddings, dtype=np.float64)))
    return tensors


def _chat(request: openai.Request) -> list[Tensor]:
    said = [turn.text for turn in request.messages if turn.role == "user"]
    system = [turn.text for turn in request.messages if turn.role in _SYSTEM_ROLES]
    return [
        Tensor("prompt", "BYTES", objects(said[-1:] or [None])),
        Tensor("system", "BYTES", objects(["\n".join(system) or None])),
        Tensor("messages", "INT64", np.array([len(request.messages)], dtype=np.int64)),
    ]


def _texts(request: openai.Request) -> Tensor:
    name = "prompt" if request.kind == "completions" else "input"
    for position, text in enumerate(request.inputs):
        if not isinstance(text, str):
            raise DecodeError(
                f"OpenAI request: `{name}[{position}]` is a list of token ids",
                why="a frame holds texts, and only the model's tokenizer turns the ids to these",
                fix="send texts, or leave this model without detectors",
            )
    return Tensor(name, "BYTES", objects(request.inputs))
