"""Records as CloudEvents 1.0, Kafka protocol binding, binary content mode.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md, section 3.2:
attributes are headers with the prefix `ce_`, `content-type` is `datacontenttype`, the value is the data.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from govern import record as records
from govern.bus.protocol import Message, Outgoing
from govern.bus.topics import key
from govern.errors import BadInput

TYPES: Final[dict[type, str]] = {
    records.Inference: "io.govern.inference.v1",
    records.Verdict: "io.govern.verdict.v1",
    records.Explanation: "io.govern.explanation.v1",
    records.Feedback: "io.govern.feedback.v1",
    records.ConfigChange: "io.govern.config.v1",
    records.Access: "io.govern.access.v1",
    records.ExplainRequest: "io.govern.explain-request.v1",
    records.DeadLetter: "io.govern.dead-letter.v1",
}
_CLASSES: Final = {name: kind for kind, name in TYPES.items()}
#: When what a record tells of happened, nanoseconds.
_TIME_FIELDS: Final[dict[type, str]] = {
    records.Inference: "t_response",
    records.Verdict: "t_verdict",
    records.Explanation: "t_created",
    records.Feedback: "t_feedback",
    records.ConfigChange: "t_change",
    records.Access: "t_access",
    records.ExplainRequest: "t_created",
    records.DeadLetter: "t_failed",
}

CONTENT_TYPE: Final = "application/protobuf"


def to_message(record: records.Record, *, source: str, lane: int = 0, partition: int | None = None) -> Outgoing:
    """The bus message of a record.

    Args:
        source: `ce_source`, a URI-reference of the component that publishes, such as `/govern/worker/<pod>`.
        lane: which lane of the model's stream it belongs to (part of the key).
        partition: set to pin the message to a partition instead of choosing it by key.
    """
    t_ns = getattr(record, _TIME_FIELDS[type(record)])
    when = datetime.fromtimestamp(t_ns / 1e9, tz=UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", record.id.encode()),
        ("ce_type", TYPES[type(record)].encode()),
        ("ce_source", source.encode()),
        ("ce_time", when.encode()),
        ("content-type", CONTENT_TYPE.encode()),
    ]
    traceparent = getattr(record, "traceparent", "")
    if traceparent:
        headers.append(("traceparent", traceparent.encode()))
    return Outgoing(
        key=key(record.namespace, getattr(record, "service", ""), getattr(record, "model", ""), lane),
        value=records.encode(record),
        headers=tuple(headers),
        partition=partition,
    )


def from_message(message: Message) -> records.Record:
    """Read the record that a bus message carries.

    Raises:
        BadInput: no `ce_type` header, one that is not govern's, or a value that is not that record.
    """
    kind_name = next((value.decode("utf-8", "replace") for name, value in message.headers if name == "ce_type"), "")
    kind = _CLASSES.get(kind_name)
    if kind is None or message.value is None:
        raise BadInput(
            f"message {message.topic}[{message.partition}]@{message.offset}: header ce_type is {kind_name!r}",
            why="it is no record of govern" if message.value is not None else "it has no value",
            fix=f"publish one of {', '.join(sorted(_CLASSES))}",
        )
    record: records.Record = records.decode(kind, message.value)
    return record
