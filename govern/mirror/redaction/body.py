"""One body under its rules: read, changed, written again; or `Withhold`, when that cannot be done for certain."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from govern.codecs import grpc_messages, v2_binary
from govern.mirror.redaction.binary import BinaryTensor, binary_size
from govern.mirror.redaction.change import Change, Place, Withhold
from govern.mirror.redaction.path import may_reach_elements, rewrite
from govern.mirror.redaction.protobuf import InferMessage
from govern.mirror.redaction.tables import V1_KEYS, redact_seldon, redact_v1
from govern.mirror.redaction.tensors import JsonTensor, View, redact_tensors
from govern.record import Redaction

_TENSORS: Final = {"request": "inputs", "response": "outputs"}
#: The prefix of a message in a gRPC stream: whether it is compressed, and its length.
_PREFIX: Final = struct.Struct(">?I")

#: A document takes some ten times its length in memory while it is changed; the shipper's memory is bounded.
_DOCUMENT_BYTES_MAX: Final = 8 * 1024 * 1024
_STREAM: Final = "ModelStreamInfer"
_METHODS: Final = frozenset({"ModelInfer", _STREAM})

Rules = Sequence[tuple[Place, Change]]


class Written(NamedTuple):
    """A redacted body, and the headers that changed with it."""

    body: bytes
    headers: Mapping[str, str] = {}


class Context(NamedTuple):
    """What tells how a body is to be read.

    Attributes:
        method: last part of the request's path, which is the method of a gRPC call.
    """

    side: str
    content_type: str
    headers: Mapping[str, str]
    method: str
    features: tuple[str, ...]


def redact_body(body: bytes, rules: Rules, context: Context) -> Written:
    """Apply the rules to a whole, unpacked body; the same bytes when none of them finds anything.

    Raises:
        Withhold: the body is not understood, or a rule cannot be sure of what it would have to find.
    """
    if len(body) > _DOCUMENT_BYTES_MAX:
        raise Withhold("the unpacked body is too long to be read here")
    kind = context.content_type.partition(";")[0].strip().lower()
    if kind.startswith("application/grpc"):
        if context.method not in _METHODS:
            raise Withhold("the messages are those of another call")
        return Written(_messages(body, rules, context, prefixed=True))
    if kind == "application/protobuf":
        return Written(_messages(body, rules, context, prefixed=False))
    if kind == "text/event-stream":
        return Written(_events(body, rules, context))
    return _document(body, rules, context)


def _messages(body: bytes, rules: Rules, context: Context, *, prefixed: bool) -> bytes:
    written: list[bytes] = []
    messages = grpc_messages.split(body, context.content_type, what=context.side)
    if sum(map(len, messages)) > _DOCUMENT_BYTES_MAX:
        raise Withhold("the unpacked messages are too long to be read here")
    for data in messages:
        message = InferMessage(data, side=context.side, stream=context.method == _STREAM)
        for place, change in rules:
            message.apply(place, change, context.features)
        redacted = message.to_bytes()
        written += [_PREFIX.pack(False, len(redacted)), redacted] if prefixed else [redacted]
    return b"".join(written) if _found(rules) else body


def _document(body: bytes, rules: Rules, context: Context) -> Written:
    """A JSON document, with the binary data of its tensors behind it, if there are any."""
    head, tail = v2_binary.split(body, v2_binary.json_size(context.headers), what=context.side)
    document = _parsed(head)
    items = document.get(_TENSORS[context.side]) if isinstance(document, dict) else None
    binary: dict[int, BinaryTensor] = {}
    for item in items if isinstance(items, list) else []:
        size = binary_size(item) if isinstance(item, dict) else None
        if size is not None:
            binary[id(item)] = BinaryTensor(item, tail.take(size, where=context.side))
    tail.end(what=context.side)
    before = _found(rules)
    _apply(document, binary, rules, context)
    if _found(rules) == before:
        _refuse_hidden(head)
        return Written(body)
    written = msgspec.json.encode(document)
    headers = {v2_binary.HEADER: str(len(written))} if v2_binary.HEADER in context.headers else {}
    return Written(written + b"".join(tensor.raw for tensor in binary.values()), headers)


def _events(body: bytes, rules: Rules, context: Context) -> bytes:
    """Server-sent events: each one's data are a document; comments are left out of what is written again."""
    before = _found(rules)
    written: list[str] = []
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise Withhold("the events are no UTF-8") from None
    for event in text.replace("\r\n", "\n").replace("\r", "\n").split("\n\n"):
        lines = [line for line in event.split("\n") if line and not line.startswith(":")]
        fields = [line.partition(":") for line in lines]
        data = "\n".join(value.removeprefix(" ") for name, _, value in fields if name == "data")
        if any(name not in ("data", "event", "id", "retry") for name, _, _ in fields):
            raise Withhold("an event has a field that no event has")
        kept = [line for line, (name, _, _) in zip(lines, fields, strict=True) if name != "data"]
        if data and data != "[DONE]":
            data = _document(data.encode(), rules, context).body.decode()
        if lines:
            written.append("\n".join([*kept, *(f"data: {line}" for line in data.split("\n") if data)]) + "\n\n")
    return "".join(written).encode() if _found(rules) > before else body


def _apply(document: object, binary: Mapping[int, BinaryTensor], rules: Rules, context: Context) -> None:
    for place, change in rules:
        if place.path:
            if binary and may_reach_elements(place.path):
                raise Withhold("elements behind the document have no path: name the tensor or column")
            rewrite(document, place.path, change)
            continue
        if not isinstance(document, dict):
            raise Withhold("the document has no tensors")
        views = _views(document, binary)
        if views:
            redact_tensors(views, place, change, context.features)
        elif any(key in document for key in V1_KEYS):
            redact_v1(document, place, change, context.features)
        elif "data" in document:
            redact_seldon(document, place, change, context.features)
        else:
            raise Withhold("the document has no tensors and no rows")


def _views(document: dict[str, object], binary: Mapping[int, BinaryTensor]) -> list[View]:
    """The document's V2 tensors, also those that a response repeats; none when the document is none of V2.

    Args:
        binary: tensors whose data lie behind the document, by the identity of their object in it.
    """
    lists = [items for key in _TENSORS.values() if isinstance(items := document.get(key), list)]
    described = [items for items in lists if any(map(_is_tensor, items))]
    if described and any(key in document for key in V1_KEYS if key not in _TENSORS.values()):
        raise Withhold("the document is of two protocols")
    views: list[View] = []
    for item in (item for items in described for item in items):
        if not isinstance(item, dict):
            raise Withhold("a tensor is no object")
        views.append(binary[id(item)] if id(item) in binary else JsonTensor(item))
    return views


def _is_tensor(item: object) -> bool:
    """Whether an item is a tensor, or was to be one: then what it lacks is a reason to withhold it."""
    return isinstance(item, dict) and ("datatype" in item or {"name", "data"} <= item.keys())


def _parsed(body: bytes) -> object:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    try:  # the NaN that Python writes, and numbers beyond a double
        return json.loads(body)
    except ValueError:
        raise Withhold("the body is no JSON") from None


def _refuse_hidden(body: bytes) -> None:
    """An object may name a field twice; a parser shows the last one, and a body that stays as it is holds both."""

    def once(pairs: list[tuple[str, object]]) -> None:
        if len({name for name, _ in pairs}) < len(pairs):
            raise Withhold("an object names a field twice")

    json.loads(body, object_pairs_hook=once)


def redactions(what: str, rules: Rules) -> tuple[Redaction, ...]:
    """What a record says was done, after the rules were applied to that part of it."""
    return tuple(
        Redaction(path=f"{what}.{place.label}", action=action) for place, change in rules for action in change.done
    )


def _found(rules: Rules) -> int:
    return sum(change.count for _, change in rules)
