"""Names, keys and settings of the topics (one set per namespace)."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final, Literal

import msgspec

from govern.bus.protocol import TopicSpec

Stream = Literal[
    "inferences",
    "verdicts",
    "explanations",
    "explain-requests",
    "feedback",
    "access",
    "config",
    "dead-letter",
    "checkpoints",
    "positions",
    "routers",
    "joins",
    "join-checkpoints",
    "pipelines",
]

#: A week: long enough to replay after an incident, bounded on disk. The audit store keeps what must last.
RETENTION_MS: Final = 7 * 24 * 3600 * 1000

#: Everything that the audit log records.
AUDITED: Final[tuple[Stream, ...]] = (
    "inferences",
    "verdicts",
    "explanations",
    "feedback",
    "access",
    "config",
    "dead-letter",
)


def topic(namespace: str, stream: Stream) -> str:
    return f"govern.{namespace}.{stream}"


def key(namespace: str, service: str, model: str, lane: int = 0) -> bytes:
    """The partitioning key: one lane of one model is one ordered stream."""
    return f"{namespace}/{service}/{model}#{lane}".encode()


def specs(namespace: str, *, partitions: int = 4) -> tuple[TopicSpec, ...]:
    """All topics of a namespace.

    `inferences` and `checkpoints` have the same number of partitions: the state of inference partition p is kept
    in checkpoint partition p. So it is with `joins` (parts of requests that chained pipelines join) and
    `join-checkpoints`. `positions` (the shippers' places in their spools) and `routers` (what routers learned) have
    one. `pipelines` has two: one for the entries of the fleet, one for what they name.
    """

    def log(stream: Stream, count: int) -> TopicSpec:
        return TopicSpec(name=topic(namespace, stream), partitions=count, retention_ms=RETENTION_MS)

    return (
        log("inferences", partitions),
        log("verdicts", 1),
        log("explanations", 1),
        log("explain-requests", partitions),
        log("feedback", 1),
        log("access", 1),
        log("config", 1),
        log("dead-letter", 1),
        TopicSpec(name=topic(namespace, "checkpoints"), partitions=partitions, compacted=True),
        TopicSpec(name=topic(namespace, "positions"), partitions=1, compacted=True),
        TopicSpec(name=topic(namespace, "routers"), partitions=1, compacted=True),
        log("joins", partitions),
        TopicSpec(name=topic(namespace, "join-checkpoints"), partitions=partitions, compacted=True),
        TopicSpec(name=topic(namespace, "pipelines"), partitions=2, compacted=True),
    )


def needed(
    namespace: str, streams: Collection[Stream], *, message_bytes: int, beside: Iterable[TopicSpec] = ()
) -> list[TopicSpec]:
    """The topics of some streams, and those beside them, as one needs them who publishes messages of up to so many
    bytes."""
    names = {topic(namespace, stream) for stream in streams}
    found = [spec for spec in specs(namespace) if spec.name in names]
    return [msgspec.structs.replace(spec, message_bytes=message_bytes) for spec in (*found, *beside)]
