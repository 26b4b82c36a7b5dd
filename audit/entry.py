"""From a record to the entry that the log keeps.

A leaf is the RFC 8785 canonical JSON of

    {"format": "io.govern.entry.v1", "log": <origin>, "kind": ..., "recorded": <ns>,
     "source": {"topic", "partition", "offset"},      where the bus had it; absent for entries of the log itself
     "concerns": <request id>,                        where the record does not say so in `request_id`
     "record": {...},                                 the record, without what is withheld
     "withheld": {"key", "box", "fields": {path: commitment}}}

The record is written as ProtoJSON writes it, with the names of `record.proto`: 64-bit integers are decimal text
(JSON numbers are exact to 2^53 only), bytes are base64, a double that is not finite is "NaN", "Infinity" or
"-Infinity", and a field that equals its default is left out.

Withheld, because they are personal data: bodies and their unsalted digests (which would let a guess be tested),
the principal, labels, what an explanation says of a person, and the content of dead letters. See `audit.seal`.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from functools import cache, partial
from operator import attrgetter
from typing import Any, Final, NamedTuple

import msgspec
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from audit.document import (
    ENTRY_FORMAT,
    STRUCTURED,
    Json,
    JsonObject,
    canonical,
    int_at,
    object_at,
    text_at,
)
from audit.seal import Sealed
from govern import record as records
from govern import record_pb2
from govern.bus.protocol import Message
from govern.codecs.cloudevents import from_message
from govern.errors import BadInput

KINDS: Final[dict[type, str]] = {
    records.Inference: "inference",
    records.Verdict: "verdict",
    records.Explanation: "explanation",
    records.Feedback: "feedback",
    records.ConfigChange: "config",
    records.Access: "access",
    records.ExplainRequest: "explain-request",
    records.DeadLetter: "dead-letter",
}
UNDECODABLE: Final = "undecodable"
ERASURE: Final = "erasure"
GAP: Final = "gap"

_WITHHELD: Final[dict[str, tuple[str, ...]]] = {
    "inference": (
        "request.body",
        "request.sha256",
        "request.headers",
        "request.sealed",
        "response.body",
        "response.sha256",
        "response.headers",
        "response.sealed",
        "principal_hash",
    ),
    "explanation": ("attributions", "anchor", "reasons", "prediction", "base_value"),
    "feedback": ("label", "reward"),
    "explain-request": ("inputs_json",),
    "dead-letter": ("value", "headers", "key", "what", "why"),
    UNDECODABLE: ("value", "headers", "key", "why"),
}
_TIMES: Final = (
    "t_response",
    "t_request",
    "t_verdict",
    "t_created",
    "t_feedback",
    "t_change",
    "t_access",
    "t_failed",
    "t_erased",
)
#: Reads whose subject is one request: they belong into its case file.
_READS_OF_A_REQUEST: Final = frozenset({"case", "entry", "explain"})


class Source(NamedTuple):
    """Where the bus had the record: what makes recording exactly once."""

    topic: str
    partition: int
    offset: int


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """An entry before its withheld fields are sealed.

    Attributes:
        record: the JSON form, without the withheld fields.
        withheld: dotted path -> the field's bytes (canonical JSON where the field is no bytes or text).
        subject: whose data key seals them: "principal:<hash>" or "request:<id>" or "record:<id>".
        concerns: the request that it is about, where the record does not name it.
    """

    kind: str
    record: JsonObject
    withheld: dict[str, bytes] = {}
    subject: str = ""
    source: Source | None = None
    concerns: str = ""

    def leaf(self, *, log: str, recorded_ns: int, sealed: Sealed | None) -> JsonObject:
        """What is hashed into the tree, as canonical JSON."""
        leaf: JsonObject = {
            "format": ENTRY_FORMAT,
            "log": log,
            "kind": self.kind,
            "recorded": str(recorded_ns),
            "record": self.record,
        }
        if self.source is not None:
            leaf["source"] = dict(self.source._asdict())
        if self.concerns:
            leaf["concerns"] = self.concerns
        if sealed is not None:
            leaf["withheld"] = {"key": sealed.key_id, "box": sealed.digest, "fields": dict(sealed.commitments)}
        return leaf


class Columns(msgspec.Struct, frozen=True, kw_only=True):
    """What the store indexes of an entry: nothing that the leaf does not say."""

    kind: str
    record_id: str
    request_id: str
    service: str
    model: str
    pipeline: str
    step: str
    alarm: bool
    t_ns: int
    topic: str | None
    partition: int | None
    offset: int | None
    window_topic: str | None = None
    window_partition: int | None = None
    window_first: int | None = None
    window_last: int | None = None


def columns(leaf: JsonObject) -> Columns:
    """The indexed columns of a leaf. The verifier of a database computes them again."""
    record = object_at(leaf, "record")
    source = object_at(leaf, "source")
    window = object_at(record, "window")
    return Columns(
        kind=text_at(leaf, "kind"),
        record_id=text_at(record, "id"),
        request_id=text_at(leaf, "concerns") or text_at(record, "request_id"),
        service=text_at(record, "service"),
        model=text_at(record, "model"),
        pipeline=text_at(record, "pipeline"),
        step=text_at(record, "step"),
        alarm=record.get("alarm") is True,
        t_ns=next((t for t in (int_at(record, name) for name in _TIMES) if t), int_at(leaf, "recorded")),
        topic=text_at(source, "topic") if source else None,
        partition=int_at(source, "partition") if source else None,
        offset=int_at(source, "offset") if source else None,
        window_topic=text_at(window, "topic") if window else None,
        window_partition=int_at(window, "partition") if window else None,
        window_first=int_at(window, "first_offset") if window else None,
        window_last=int_at(window, "last_offset") if window else None,
    )


def draft(message: Message) -> Draft:
    """The entry of a bus message. What cannot be decoded becomes an entry of its own kind, never an error."""
    source = Source(message.topic, message.partition, message.offset)
    try:
        record = from_message(message)
    except BadInput as error:
        return _undecodable(message, source, error)
    return draft_record(record, source)


def gap(topic: str, partition: int, *, first: int, last: int, t_ns: int) -> Draft:
    """The entry for messages of offsets `first` to `last` that the bus deleted before the log could record them."""
    record: JsonObject = {
        "id": f"{topic}/{partition}/{first}-{last}",
        "topic": topic,
        "partition": partition,
        "first_offset": str(first),
        "last_offset": str(last),
        "t_failed": str(t_ns),
    }
    return Draft(kind=GAP, record=record, source=Source(topic, partition, last))


def draft_record(record: records.Record, source: Source | None) -> Draft:
    kind = KINDS[type(record)]
    plain, withheld = _withhold(kind, record)
    about = _about(record)
    concerns = about if about != getattr(record, "request_id", "") else ""
    return Draft(
        kind=kind,
        record=plain,
        withheld=withheld,
        subject=_subject(record),
        source=source,
        concerns=concerns,
    )


def as_json(record: records.Record) -> JsonObject:
    """The record as ProtoJSON, with the field names of `record.proto`."""
    descriptor: Descriptor = getattr(record_pb2, type(record).__name__).DESCRIPTOR
    return _object(descriptor, msgspec.to_builtins(record, builtin_types=(bytes,)))


def _undecodable(message: Message, source: Source, error: BadInput) -> Draft:
    value = message.value or b""
    record: JsonObject = {
        "id": f"{message.topic}/{message.partition}/{message.offset}",
        "size": len(value),
        "t_failed": str(message.timestamp_ms * 1_000_000),
        "code": error.code,
    }
    raw: dict[str, bytes] = {
        "value": value,
        "key": message.key,
        "headers": canonical([[name, base64.b64encode(data).decode()] for name, data in message.headers]),
        "why": f"{error.what}: {error.why}".encode(),
    }
    return Draft(
        kind=UNDECODABLE,
        record=record,
        withheld={path: data for path, data in raw.items() if data},
        subject=f"record:{record['id']}",
        source=source,
    )


def _about(record: records.Record) -> str:
    """The request that a record is about; "" when it is about none."""
    match record:
        case records.Access(action=action, subject=subject) if action in _READS_OF_A_REQUEST:
            return subject
        case records.DeadLetter():
            inner = _inner(record)
            return "" if inner is None else _about(inner)
        case _:
            return str(getattr(record, "request_id", ""))


def _subject(record: records.Record) -> str:
    """Whose key closes the record's personal data. A dead letter is about whom its original is about."""
    if isinstance(record, records.DeadLetter):
        inner = _inner(record)
        return f"record:{record.id}" if inner is None else _subject(inner)
    principal = getattr(record, "principal_hash", "")
    if principal:
        return f"principal:{principal}"
    request_id = getattr(record, "request_id", "")
    return f"request:{request_id}" if request_id else f"record:{record.id}"


def _inner(letter: records.DeadLetter) -> records.Record | None:
    """The record that was dead-lettered, if it can be read and is no dead letter itself."""
    message = Message(
        topic=letter.source_topic,
        partition=letter.source_partition,
        offset=letter.source_offset,
        timestamp_ms=0,
        key=letter.key,
        value=letter.value,
        headers=tuple(letter.headers.items()),
    )
    try:
        inner = from_message(message)
    except BadInput:
        return None
    return None if isinstance(inner, records.DeadLetter) else inner


def _withhold(kind: str, record: records.Record) -> tuple[JsonObject, dict[str, bytes]]:
    """The JSON form of a record without its withheld fields, and those."""
    plain = as_json(record)
    withheld: dict[str, bytes] = {}
    for path in _WITHHELD.get(kind, ()):
        holder, _, name = path.rpartition(".")
        fields = object_at(plain, holder) if holder else plain
        if name not in fields:
            continue
        shown = fields.pop(name)
        value = canonical(shown) if path in STRUCTURED else attrgetter(path)(record)
        withheld[path] = value if isinstance(value, bytes) else str(value).encode()
    return plain, withheld


@cache
def _writers(message: Descriptor) -> dict[str, Callable[[Any], Json]]:
    """How each field of a message is written."""
    return {field.name: _writer(field) for field in message.fields}


def _writer(field: FieldDescriptor) -> Callable[[Any], Json]:
    one = _one_writer(field)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        value = _one_writer(field.message_type.fields_by_name["value"])
        return lambda mapping: {name: value(item) for name, item in mapping.items()}
    return (lambda items: [one(item) for item in items]) if field.is_repeated else one


def _one_writer(field: FieldDescriptor) -> Callable[[Any], Json]:
    if field.message_type is not None:
        return partial(_object, field.message_type)
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_INT64 | FieldDescriptor.CPPTYPE_UINT64:
            return str
        case FieldDescriptor.CPPTYPE_DOUBLE:
            return _double
        case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
            return _base64
        case _:
            return _same


def _object(message: Descriptor, values: dict[str, Any]) -> JsonObject:
    writers = _writers(message)
    return {name: writers[name](value) for name, value in values.items()}


def _double(value: float) -> Json:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _base64(value: bytes) -> Json:
    return base64.b64encode(value).decode()


def _same(value: Json) -> Json:
    return value
