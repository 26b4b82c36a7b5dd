"""One body under its rules: read, changed, written again; or `Withhold`, when that cannot be done for certain."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from govern.mirror.redaction.binary import LENGTH_HEADER, BinaryTensor, binary_size, split
from govern.mirror.redaction.change import Change, Place, Withhold
from govern.mirror.redaction.path import may_reach_elements, rewrite
from govern.mirror.redaction.protobuf import InferMessage
from govern.mirror.redaction.tables import V1_KEYS, redact_seldon, redact_v1
from govern.mirror.redaction.tensors import JsonTensor, View, redact_tensors

_TENSORS: Final = {"request": "inputs", "response": "outputs"}
#: The prefix of a message in a gRPC stream: whether it is compressed, and its length.
_PREFIX: Final = struct.Struct(">?I")

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
    kind = context.content_type.partition(";")[0].strip().lower()
    if kind.startswith("application/grpc"):
        if context.method not in _METHODS:
            raise Withhold("the messages are those of another call")
        return Written(b"".join(_framed(body, rules, context)))
    if kind == "application/protobuf":
        return Written(_message(body, rules, context))
    if kind == "text/event-stream":
        return Written(_events(body, rules, context))
    if LENGTH_HEADER in context.headers:
        return _with_binary(body, rules, context)
    return Written(_json(body, rules, context))


def _framed(body: bytes, rules: Rules, context: Context) -> Iterator[bytes]:
    at = 0
    while at < len(body):
        if at + _PREFIX.size > len(body):
            raise Withhold("a message is cut")
        compressed, length = _PREFIX.unpack_from(body, at)
        start = at + _PREFIX.size
        at = start + length
        if compressed or at > len(body):
            raise Withhold("a message is compressed or cut")
        message = _message(body[start:at], rules, context)
        yield _PREFIX.pack(False, len(message)) + message


def _message(data: bytes, rules: Rules, context: Context) -> bytes:
    message = InferMessage(data, side=context.side, stream=context.method == _STREAM)
    before = _found(rules)
    for place, change in rules:
        message.apply(place, change, context.features)
    return message.to_bytes() if _found(rules) > before else data


def _json(body: bytes, rules: Rules, context: Context) -> bytes:
    document = _parsed(body)
    before = _found(rules)
    _apply(document, {}, rules, context)
    if _found(rules) > before:
        return _dumped(document)
    _refuse_hidden(body)
    return body


def _with_binary(body: bytes, rules: Rules, context: Context) -> Written:
    head, tail = split(body, context.headers[LENGTH_HEADER])
    document = _parsed(head)
    items = document.get(_TENSORS[context.side]) if isinstance(document, dict) else None
    binary: dict[int, BinaryTensor] = {}
    at = 0
    for item in items if isinstance(items, list) else []:
        size = binary_size(item) if isinstance(item, dict) else None
        if size is not None:
            binary[id(item)] = BinaryTensor(item, tail[at : at + size])
            at += size
    if at != len(tail):
        raise Withhold("the bytes behind the document are not those of its tensors")
    before = _found(rules)
    _apply(document, binary, rules, context)
    if _found(rules) == before:
        _refuse_hidden(head)
        return Written(body)
    written = _dumped(document)
    return Written(written + b"".join(tensor.raw for tensor in binary.values()), {LENGTH_HEADER: str(len(written))})


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
            data = _json(data.encode(), rules, context).decode()
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


def _dumped(document: object) -> bytes:
    return msgspec.json.encode(document)


def _refuse_hidden(body: bytes) -> None:
    """An object may name a field twice; a parser shows the last one, and a body that stays as it is holds both."""

    def once(pairs: list[tuple[str, object]]) -> None:
        if len({name for name, _ in pairs}) < len(pairs):
            raise Withhold("an object names a field twice")

    json.loads(body, object_pairs_hook=once)


def _found(rules: Rules) -> int:
    return sum(change.count for _, change in rules)
