"""The writing side of a log: entries, nodes, positions and a signed checkpoint in one database transaction.

There is one sequencer at a time. A transaction first takes the log's lock (PostgreSQL: an advisory lock; SQLite:
BEGIN IMMEDIATE), then reads the head, so that writers that overlap extend the same line one after the other and
never fork it. What a partition's position says is already recorded is skipped: every message becomes one entry,
however often it is delivered.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import msgspec
from sqlalchemy import Connection, Engine, and_, insert, or_, select, text, update

from audit.checkpoint import Checkpoint, VerifierKey, open_checkpoint
from audit.database import reaching
from audit.document import canonical
from audit.entry import Draft, columns
from audit.keys import Keys
from audit.merkle import EMPTY_ROOT, leaf_hash
from audit.schema import require_current_schema
from audit.seal import DataKey, Sealed, forget, seal
from audit.tables import checkpoints, entries, logs, nodes, payloads, positions, subject_keys
from audit.tree import Frontier, Node, Span, cover
from govern.bus.protocol import Partition
from govern.errors import ConfigError, GovernError

#: Subjects that are one request or record: once erased, what comes later of them is not kept readable either.
#: A principal may come back, and then has a new key.
ERASED_FOR_GOOD: Final = ("request:", "record:")


class LogDamaged(GovernError):
    """The stored tree and its signed checkpoint differ: the log must not be extended."""

    code = "audit-log-damaged"


class Appended(msgspec.Struct, frozen=True, kw_only=True):
    """What one append did.

    Attributes:
        recorded: what was added; less than was handed in when some was recorded before.
        size: leaves of the tree afterwards.
        note: the newest signed checkpoint.
    """

    recorded: tuple[Draft, ...]
    size: int
    note: str


class AuditStore:
    """The log of one namespace, for writing. Methods block: call them from a thread."""

    def __init__(
        self, engine: Engine, *, namespace: str, keys: Keys, clock_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self.engine = engine
        self.namespace = namespace
        self.keys = keys
        self._clock_ns = clock_ns

    @property
    def verifier(self) -> VerifierKey:
        return self.keys.signer.verifier

    def open(self) -> None:
        """Check that database and keys belong together; the first time, found the log.

        Raises:
            ConfigError: the schema is absent or another release's, or the namespace's log bears another origin.
            BadCheckpoint: the log was signed with another key.
            StoreUnavailable: the database is away.
        """
        require_current_schema(self.engine)
        origin = self.keys.signer.name
        with reaching(self.engine), self.engine.begin() as connection:
            _lock(connection, origin)
            known = connection.execute(
                select(logs.c.log, logs.c.namespace).where(
                    (logs.c.namespace == self.namespace) | (logs.c.log == origin)
                )
            ).all()
            if not known:
                connection.execute(
                    insert(logs).values(log=origin, namespace=self.namespace, verifier_key=str(self.verifier))
                )
                note = self.keys.signer.sign(Checkpoint(origin, 0, EMPTY_ROOT).text())
                connection.execute(insert(checkpoints).values(log=origin, size=0, note=note))
            elif [tuple(row) for row in known] != [(origin, self.namespace)]:
                raise ConfigError(
                    f"audit log of namespace {self.namespace!r} with origin {origin!r}",
                    why=f"the database holds {', '.join(f'{row.log!r} of {row.namespace!r}' for row in known)}",
                    fix="use the namespace and origin that the log was founded with, or another database",
                )
            _head(connection, self.keys.signer.verifier)

    def append(self, drafts: Sequence[Draft]) -> Appended:
        """Record drafts in order, in one transaction; those recorded before are skipped.

        Raises:
            StoreUnavailable: nothing was recorded; try again.
            LogDamaged: the stored tree does not fit its checkpoint.
        """
        with self.transaction() as log:
            return log.append(drafts)

    def positions(self) -> dict[Partition, int]:
        """The next offset to read of each partition that was ever read."""
        with reaching(self.engine), self.engine.connect() as connection:
            rows = connection.execute(
                select(positions.c.topic, positions.c.partition, positions.c.next_offset).where(
                    positions.c.log == self.keys.signer.name
                )
            )
            return {Partition(row.topic, row.partition): row.next_offset for row in rows}

    @contextmanager
    def transaction(self) -> Iterator[LogTransaction]:
        """Be the sequencer for one transaction; it commits when the block ends and rolls back when it raises."""
        with reaching(self.engine), self.engine.begin() as connection:
            _lock(connection, self.keys.signer.name)
            yield LogTransaction(connection, self.keys, self._clock_ns())


class LogTransaction:
    """The log while it is held by its sequencer. `now_ns` is when, nanoseconds since the Unix epoch."""

    def __init__(self, connection: Connection, keys: Keys, now_ns: int) -> None:
        self.connection = connection
        self.log = keys.signer.name
        self.now_ns = now_ns
        self._keys = keys
        checkpoint, self._note = _head(connection, keys.signer.verifier)
        self._frontier = _frontier(connection, checkpoint)

    @property
    def size(self) -> int:
        return self._frontier.size

    def append(self, drafts: Sequence[Draft]) -> Appended:
        fresh = self._fresh(drafts)
        if fresh:
            self._write(fresh)
        return Appended(recorded=tuple(fresh), size=self.size, note=self._note)

    def _fresh(self, drafts: Sequence[Draft]) -> list[Draft]:
        """The drafts that are not recorded yet; moves the positions."""
        first = self._positions({Partition(d.source.topic, d.source.partition) for d in drafts if d.source})
        after = dict(first)
        fresh: list[Draft] = []
        for one in drafts:
            if one.source is not None:
                at = Partition(one.source.topic, one.source.partition)
                if one.source.offset < after.get(at, 0):
                    continue
                after[at] = one.source.offset + 1
            fresh.append(one)
        for at, offset in after.items():
            row = {"log": self.log, "topic": at.topic, "partition": at.partition}
            if at not in first:
                self.connection.execute(insert(positions).values(**row, next_offset=offset))
            elif offset != first[at]:
                self.connection.execute(update(positions).filter_by(**row).values(next_offset=offset))
        return fresh

    def _positions(self, asked: set[Partition]) -> dict[Partition, int]:
        rows = self.connection.execute(
            select(positions.c.topic, positions.c.partition, positions.c.next_offset).where(
                positions.c.log == self.log, positions.c.topic.in_({at.topic for at in asked})
            )
        )
        known = {Partition(row.topic, row.partition): row.next_offset for row in rows}
        return {at: offset for at, offset in known.items() if at in asked}

    def _write(self, drafts: Sequence[Draft]) -> None:
        keys = self._data_keys({one.subject for one in drafts if one.withheld})
        rows: list[dict[str, object]] = []
        boxes: list[dict[str, object]] = []
        hashes: list[bytes] = []
        for index, one in enumerate(drafts, start=self.size):
            sealed: Sealed | None = None
            if one.withheld:
                key, kept = keys[one.subject]
                sealed = seal(one.withheld, key) if kept else forget(one.withheld, key.id)
                if kept:
                    boxes.append({"log": self.log, "index": index, "key_id": key.id, "box": sealed.box})
            leaf = one.leaf(log=self.log, recorded_ns=self.now_ns, sealed=sealed)
            content = canonical(leaf)
            hashes.append(leaf_hash(content))
            indexed = msgspec.structs.asdict(columns(leaf))
            rows.append({"log": self.log, "index": index, "leaf": content, "leaf_hash": hashes[-1], **indexed})
        self.connection.execute(insert(entries), rows)
        if boxes:
            self.connection.execute(insert(payloads), boxes)
        self._frontier, written = self._frontier.append(hashes)
        if written:
            self.connection.execute(
                insert(nodes), [{"log": self.log, **node._asdict(), "hash": value} for node, value in written]
            )
        checkpoint = Checkpoint(self.log, self.size, self._frontier.root())
        self._note = self._keys.signer.sign(checkpoint.text())
        self.connection.execute(insert(checkpoints).values(log=self.log, size=self.size, note=self._note))

    def _data_keys(self, subjects: set[str]) -> dict[str, tuple[DataKey, bool]]:
        """The data key of each subject, made when there is none, and whether what it closes may be kept."""
        found: dict[str, tuple[DataKey, bool]] = {}
        for row in self.connection.execute(
            select(subject_keys.c.subject, subject_keys.c.key_id, subject_keys.c.wrapped).where(
                subject_keys.c.log == self.log, subject_keys.c.subject.in_(sorted(subjects))
            )
        ):
            if row.wrapped is not None:
                found[row.subject] = self._keys.encryption.unwrap(row.wrapped, row.key_id, row.subject), True
            elif row.subject.startswith(ERASED_FOR_GOOD):
                found.setdefault(row.subject, (DataKey(row.key_id, b""), False))
        made: list[dict[str, object]] = []
        for subject in sorted(subjects - found.keys()):
            key = self._keys.encryption.new_data_key()
            wrapped = self._keys.encryption.wrap(key, subject)
            found[subject] = key, True
            made.append({"log": self.log, "key_id": key.id, "subject": subject, "wrapped": wrapped})
        if made:
            self.connection.execute(insert(subject_keys), made)
        return found


def read_nodes(connection: Connection, log: str, asked: Sequence[Node]) -> list[bytes]:
    """The hashes of stored nodes, in the order asked; leaf hashes come from the entries.

    Raises:
        LogDamaged: one is absent.
    """
    leaves = [node.number for node in asked if node.level == 0]
    inner = [node for node in asked if node.level > 0]
    found: dict[Node, bytes] = {}
    if leaves:
        rows = connection.execute(
            select(entries.c.index, entries.c.leaf_hash).where(entries.c.log == log, entries.c.index.in_(leaves))
        )
        found.update({Node(0, number): value for number, value in rows})
    if inner:
        # Not `(level, number) IN (...)`: for that SQLite reads the whole log's nodes.
        each = (and_(nodes.c.log == log, nodes.c.level == one.level, nodes.c.number == one.number) for one in inner)
        stored = connection.execute(select(nodes.c.level, nodes.c.number, nodes.c.hash).where(or_(*each)))
        found.update({Node(level, number): value for level, number, value in stored})
    missing = [node for node in asked if node not in found]
    if missing:
        raise LogDamaged(
            f"node {missing[0].number} of level {missing[0].level} of the log {log!r}",
            why="the database does not hold it",
            fix="`govern audit verify --db` names what is wrong; restore the database from a backup",
        )
    return [found[node] for node in asked]


def _head(connection: Connection, key: VerifierKey) -> tuple[Checkpoint, str]:
    note: str = connection.execute(
        select(checkpoints.c.note).where(checkpoints.c.log == key.name).order_by(checkpoints.c.size.desc()).limit(1)
    ).scalar_one()
    return open_checkpoint(note, key), note


def _frontier(connection: Connection, checkpoint: Checkpoint) -> Frontier:
    hashes = read_nodes(connection, checkpoint.origin, cover(Span(0, checkpoint.size)))
    frontier = Frontier(checkpoint.size, tuple(hashes))
    if frontier.root() != checkpoint.root:
        raise LogDamaged(
            f"tree of the log {checkpoint.origin!r}",
            why=f"its root at size {checkpoint.size} is not the one that was signed",
            fix="`govern audit verify --db` names what was changed; restore the database from a backup",
        )
    return frontier


def _lock(connection: Connection, log: str) -> None:
    if connection.dialect.name == "postgresql":
        key = int.from_bytes(hashlib.sha256(f"govern audit {log}".encode()).digest()[:8], "big", signed=True)
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})
