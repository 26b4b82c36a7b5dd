"""What a bus is. Two implementations (`kafka`, `embedded`) pass one contract suite, `tests/bus/test_contract.py`.

The model is Kafka's. A *topic* has numbered partitions; a partition is a sequence of messages with growing
offsets (gaps are allowed: Kafka puts transaction markers there). A *group* shares the partitions of its topics
among its members and keeps one committed offset per partition: the offset of the next message to read.

Exactly once is built from one `Transactor` per unit of work. Its `transactional_id` names the work, not the
process: opening it fences every earlier holder of the same id, whose open transaction is aborted and whose later
calls raise `Fenced`. A consumer task therefore uses the id `<group>.<topic>.<partition>`, opens it when the
partition is assigned, and only then reads the committed offset.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, NamedTuple, Protocol, Self

import msgspec

from govern.errors import GovernError

#: The largest message that brokers take unless told otherwise (Kafka: message.max.bytes = 1,048,588, headers included).
MAX_MESSAGE_BYTES: Final = 1_000_000


class Partition(NamedTuple):
    topic: str
    partition: int


class TopicSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A topic to create.

    Attributes:
        compacted: keep only the newest message of each key (state), instead of deleting by age.
        retention_ms: how long a message of a non-compacted topic is kept; None = for ever.
        message_bytes: the longest message that it must take; 0 = what the bus takes by itself.
    """

    name: str
    partitions: int = 1
    compacted: bool = False
    retention_ms: int | None = None
    message_bytes: int = 0


class Outgoing(msgspec.Struct, frozen=True, kw_only=True):
    """A message to publish.

    Attributes:
        value: None is a tombstone (compacted topics).
        partition: where to put it; None = chosen from the key (murmur2 as in Kafka's default partitioner).
    """

    key: bytes
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    partition: int | None = None


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A message as read. `timestamp_ms` is when the bus took it, milliseconds since the Unix epoch."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()

    @property
    def tp(self) -> Partition:
        return Partition(self.topic, self.partition)


class BusError(GovernError):
    """The bus refused or failed. `retriable` says whether the same call may succeed later."""

    code = "bus-error"
    http_status = 503
    retriable = True


class Fenced(BusError):
    """Another holder opened the same transactional id: this one must stop and drop its unsent work."""

    code = "fenced"
    retriable = False

    @classmethod
    def holder(cls, name: str) -> Self:
        return cls(
            f"transactional id {name}",
            why="another holder has taken it over",
            fix="drop the work in hand: its new holder does it again from the last commit",
        )

    @classmethod
    def member(cls, group: str) -> Self:
        return cls(
            f"commit of group {group}",
            why="the partition has been given to another member meanwhile",
            fix="poll again: the call tells what this member has lost",
        )


class MemberRefused(BusError):
    """The group does not take this member, or no longer."""

    code = "member-refused"
    retriable = False

    @classmethod
    def superseded(cls, group: str, instance_id: str) -> Self:
        return cls(
            f"member {instance_id} of group {group}",
            why="another process has joined with the same instance id after this one",
            fix="give each process an instance id of its own, such as the pod's name, and start this one again",
        )

    @classmethod
    def session_timeout(cls, group: str) -> Self:
        return cls(
            f"session timeout of group {group}",
            why="it is not within what the broker allows",
            fix="choose one between the broker's group.min.session.timeout.ms and group.max.session.timeout.ms",
        )


class UnknownTopic(BusError):
    """There is no such topic or partition."""

    code = "unknown-topic"
    http_status = 404
    retriable = False

    @classmethod
    def named(cls, name: str) -> Self:
        return cls(f"topic {name}", why="the bus has no such topic or partition", fix="create it with ensure_topics")


class MessageTooLarge(BusError):
    """A message is larger than the bus takes."""

    code = "message-too-large"
    http_status = 413
    retriable = False


class TopicMismatch(BusError):
    """A topic exists with other settings than the ones needed (partitions, compaction, size of a message)."""

    code = "topic-mismatch"
    retriable = False

    @classmethod
    def between(cls, wanted: TopicSpec, *, partitions: int, compacted: bool, aged: bool | None = None) -> Self:
        """
        Args:
            aged: whether it is deleted by age; None = if it is not compacted.
        """

        def described(count: int, compact: bool, age: bool) -> str:
            policy = " and ".join(name for name, on in (("compacted", compact), ("deleted by age", age)) if on)
            return f"{count} partition{'s' * (count != 1)}, {policy}"

        found = described(partitions, compacted, not compacted if aged is None else aged)
        needed = described(wanted.partitions, wanted.compacted, not wanted.compacted)
        return cls(
            f"topic {wanted.name}",
            why=f"it has {found}; needed: {needed}",
            fix="alter the topic, or use another namespace",
        )

    @classmethod
    def too_small(cls, wanted: TopicSpec, *, message_bytes: int) -> Self:
        return cls(
            f"topic {wanted.name}",
            why=f"it takes messages of {message_bytes:,} bytes; needed: {wanted.message_bytes:,}",
            fix=f"set the topic's max.message.bytes to {wanted.message_bytes} or more, or lower message_bytes",
        )


class Transaction(Protocol):
    """Outputs and offsets that become visible together, or not at all."""

    async def publish(self, topic: str, messages: Sequence[Outgoing]) -> None: ...

    async def commit_offsets(self, group: str, offsets: Mapping[Partition, int]) -> None:
        """Record, as part of the transaction, the next offset to read of each partition. One group per transaction."""
        ...


class Transactor(Protocol):
    """The one live holder of a transactional id."""

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """Begin; commit when the block ends, abort when it raises (the transactor can then be used again).

        On Kafka readers see the messages, and `committed` the offsets, a moment after the block has ended; once
        `Bus.transactor` has opened the id again, they see all of it.

        Raises:
            Fenced: another holder took the id over.
            BusError: the outcome failed; nothing of the transaction is visible, and the caller must treat
                this transactor as lost (close it, open a new one, restore from the checkpoint).
        """
        ...

    async def close(self) -> None: ...


Rebalance = Callable[[frozenset[Partition]], Awaitable[None]]


class Subscription(Protocol):
    """A member of a group. Only committed messages are seen (read_committed)."""

    async def poll(self, *, max_messages: int = 1000, timeout_s: float = 0.5) -> list[Message]:
        """Messages of the assigned, unpaused partitions from the current positions, and advance those.

        Returns as soon as there is any message; an empty list after `timeout_s`. Rebalance callbacks run inside
        this call: `on_revoked` before a partition is given up, `on_assigned` before its first message. A member that
        was silent for too long has lost its partitions already when `on_revoked` runs. On Kafka each rebalance
        revokes everything and assigns it anew; while the broker is away, nothing comes.
        """
        ...

    async def seek(self, partition: Partition, offset: int) -> None: ...

    async def committed(self, partition: Partition) -> int | None:
        """The group's committed offset; None when the group never committed there."""
        ...

    async def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Commit outside a transaction (for consumers whose effects live elsewhere, such as a database).

        Raises:
            Fenced: a partition belongs to another member by now; the next poll calls `on_revoked` for it.
        """
        ...

    async def lag(self) -> Mapping[Partition, int]:
        """Messages between the position and the end, for each assigned partition."""
        ...

    def pause(self, partitions: frozenset[Partition]) -> None: ...

    def resume(self, partitions: frozenset[Partition]) -> None: ...

    async def close(self) -> None:
        """Leave the group at once. `on_revoked` is called first."""
        ...


class Bus(Protocol):
    """A connection. Use as an async context manager; its end closes the subscriptions and transactors left open."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc: object) -> None: ...

    async def ensure_topics(self, specs: Sequence[TopicSpec]) -> None:
        """Create what is missing; existing topics are checked.

        Raises:
            TopicMismatch: a topic exists with fewer partitions, with another cleanup policy, or for shorter messages.
        """
        ...

    async def partitions(self, topic: str) -> int:
        """How many partitions the topic has.

        Raises:
            UnknownTopic: there is no such topic.
        """
        ...

    async def publish(self, topic: str, messages: Sequence[Outgoing]) -> None:
        """Publish outside a transaction; returns when all are durable on the bus. At least once on failure."""
        ...

    async def transactor(self, transactional_id: str) -> Transactor:
        """Take over the id: earlier holders are fenced, their open transaction is aborted before this returns."""
        ...

    async def subscribe(
        self,
        topics: Sequence[str],
        group: str,
        *,
        on_assigned: Rebalance | None = None,
        on_revoked: Rebalance | None = None,
    ) -> Subscription:
        """Join the group. Without a committed offset, reading starts at the beginning of a partition."""
        ...

    async def read(self, partition: Partition, start: int, *, max_messages: int = 1000) -> list[Message]:
        """Committed messages with offset >= start, outside any group; empty when there are none (does not wait)."""
        ...

    async def start_offset(self, partition: Partition) -> int:
        """The offset from which the partition is kept: what came before was deleted by the topic's retention."""
        ...

    async def end_offset(self, partition: Partition) -> int:
        """The offset after the last committed message (on Kafka: and after its transaction's marker)."""
        ...

    async def read_table(self, partition: Partition) -> dict[bytes, bytes]:
        """The newest value of each key (tombstones left out), read to the end as it is when the call is made."""
        ...
