"""The embedded bus on disk: topics, messages, offsets and epochs in one SQLite file. Synchronous; one thread each.

A partition is a range of row ids: `id = partition_id << 40 | offset`. Appending goes to the end of the range, reading
is a range scan, and no index is needed.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Self

import msgspec

from govern.bus.partitioner import partition_of
from govern.bus.protocol import (
    BusError,
    Fenced,
    Message,
    Outgoing,
    Partition,
    TopicMismatch,
    TopicSpec,
    UnknownTopic,
)

#: 2^40 offsets to a partition: 10,000 messages/s for 3 years; and room for 2^23 partitions.
_OFFSET_BITS: Final = 40

#: How long a writer waits for the writers of other processes. One transaction takes milliseconds.
BUSY_TIMEOUT_S: Final = 30.0

#: Pages of WAL (4 KiB each) before SQLite copies it into the file: 16 MB, so that it seldom waits for the disk.
_CHECKPOINT_PAGES: Final = 4000

#: What a checkpointed WAL file is cut back to, bytes.
_WAL_LIMIT_BYTES: Final = 64 * 2**20

#: Rows that one sweep deletes from a partition at most, so that no writer waits long for it.
_SWEEP_ROWS: Final = 5000

#: Readers of a compacted topic that lag less than a day still see that a key was deleted (as in Kafka).
_TOMBSTONE_MS: Final = 24 * 3600 * 1000

#: The layout below; kept in `PRAGMA user_version`.
_SCHEMA_VERSION: Final = 1

# `slot` is set in compacted topics only (partition id and key): the partial index finds what a message replaces.
_SCHEMA: Final = """
CREATE TABLE topics (name TEXT PRIMARY KEY, partitions INTEGER, compacted INTEGER, retention_ms INTEGER) STRICT;
CREATE TABLE partitions (
    id INTEGER PRIMARY KEY, topic TEXT NOT NULL, number INTEGER NOT NULL, next_offset INTEGER NOT NULL DEFAULT 0,
    UNIQUE (topic, number)
) STRICT;
CREATE TABLE messages (
    id INTEGER PRIMARY KEY, timestamp_ms INTEGER NOT NULL, slot BLOB, key BLOB NOT NULL, value BLOB, headers BLOB
) STRICT;
CREATE UNIQUE INDEX newest ON messages (slot) WHERE slot IS NOT NULL;
CREATE TABLE transactors (id TEXT PRIMARY KEY, epoch INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE offsets (
    group_name TEXT, topic TEXT, partition INTEGER, next_offset INTEGER NOT NULL,
    PRIMARY KEY (group_name, topic, partition)
) STRICT, WITHOUT ROWID;
CREATE TABLE groups (name TEXT PRIMARY KEY, generation INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE members (
    group_name TEXT, member TEXT, owner TEXT NOT NULL, topics TEXT NOT NULL, joined INTEGER NOT NULL,
    lease_until_ms INTEGER NOT NULL, PRIMARY KEY (group_name, member)
) STRICT, WITHOUT ROWID;
CREATE TABLE holdings (
    group_name TEXT, topic TEXT, partition INTEGER, member TEXT NOT NULL, PRIMARY KEY (group_name, topic, partition)
) STRICT, WITHOUT ROWID;
"""

#: Messages of one topic, in order.
Batch = tuple[str, Sequence[Outgoing]]

_Headers = tuple[tuple[str, bytes], ...]
_encode_headers: Final = msgspec.msgpack.Encoder().encode
_decode_headers: Final = msgspec.msgpack.Decoder(_Headers).decode


class SqliteLog:
    """One connection to the file. It belongs to one thread at a time."""

    def __init__(self, path: Path, *, max_bytes: int | None = None, timeout_s: float = BUSY_TIMEOUT_S) -> None:
        """Open the file; `create` lays it out.

        Args:
            max_bytes: the size that this connection lets the file grow to; None = what the disk holds.
            timeout_s: how long a call waits for a lock.
        """
        self.path = path
        self._topics: dict[str, TopicSpec] = {}
        with bus_errors(path):
            self.connection = sqlite3.connect(path, timeout=timeout_s, isolation_level=None, check_same_thread=False)
            self._execute("PRAGMA journal_mode = WAL")
            # NORMAL: a commit is in the operating system's hands when it returns, so it outlives kill -9 of every
            # process. Only a power cut or a crash of the system itself may take the newest commits; the file stays
            # whole, at an earlier commit. FULL would wait for the disk at every commit, at 1 to 10 ms each.
            self._execute("PRAGMA synchronous = NORMAL")
            self._execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
            self._execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT_BYTES}")
            if max_bytes is not None:
                page_bytes = self._execute("PRAGMA page_size").fetchone()[0]
                self._execute(f"PRAGMA max_page_count = {max_bytes // page_bytes}")

    def create(self) -> Self:
        """Lay the file out if it is new. One caller at a time (the caller holds a lock).

        Raises:
            BusError: the file was written by another version of govern, or is no SQLite file.
        """
        with bus_errors(self.path):
            version = self._execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                self.connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_SCHEMA_VERSION}; COMMIT;")
            elif version != _SCHEMA_VERSION:
                raise BusError(
                    f"bus file {self.path}",
                    why=f"its layout is version {version}, this govern reads version {_SCHEMA_VERSION}",
                    fix="use the govern that wrote it, or give another path",
                )
        return self

    def close(self) -> None:
        self.connection.close()

    @contextlib.contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One write transaction: all of the block or nothing, with no other writer in between."""
        with bus_errors(self.path):
            self._execute("BEGIN IMMEDIATE")
            try:
                yield self.connection
                self._execute("COMMIT")
            finally:
                if self.connection.in_transaction:
                    self._execute("ROLLBACK")

    def version(self) -> int:
        """A number that changes whenever another connection has committed; -1 when it cannot be told right now."""
        try:
            version: int = self._execute("PRAGMA data_version").fetchone()[0]
        except sqlite3.OperationalError:
            return -1  # another process recovers or checkpoints the file: whoever waits for a change should look
        return version

    # Topics

    def ensure_topics(self, specs: Sequence[TopicSpec]) -> None:
        with self.write():
            for spec in specs:
                existing = self._load(spec.name)
                if existing is None:
                    row = (spec.name, spec.partitions, spec.compacted, spec.retention_ms)
                    self._execute("INSERT INTO topics VALUES (?, ?, ?, ?)", row)
                    numbers = [(spec.name, number) for number in range(spec.partitions)]
                    self.connection.executemany("INSERT INTO partitions (topic, number) VALUES (?, ?)", numbers)
                elif existing.partitions < spec.partitions or existing.compacted != spec.compacted:
                    raise TopicMismatch.between(spec, partitions=existing.partitions, compacted=existing.compacted)

    def topic(self, name: str) -> TopicSpec:
        """The topic's settings.

        Raises:
            UnknownTopic: there is no such topic.
        """
        known = self._topics.get(name)
        if known is None:
            with bus_errors(self.path):
                known = self._load(name)
            if known is None:
                raise UnknownTopic.named(name)
            self._topics[name] = known
        return known

    def _load(self, name: str) -> TopicSpec | None:
        row = self._execute("SELECT * FROM topics WHERE name = ?", (name,)).fetchone()
        if row is None:
            return None
        return TopicSpec(name=row[0], partitions=row[1], compacted=bool(row[2]), retention_ms=row[3])

    # Writing

    def publish(self, batches: Iterable[Batch], now_ms: int) -> None:
        with self.write():
            self._append(batches, now_ms)

    def open_transactor(self, transactional_id: str) -> int:
        """Take the id over; the epoch that its holder must show from now on."""
        with self.write():
            statement = (
                "INSERT INTO transactors VALUES (?, 1) ON CONFLICT DO UPDATE SET epoch = epoch + 1 RETURNING epoch"
            )
            epoch: int = self._execute(statement, (transactional_id,)).fetchone()[0]
        return epoch

    def commit(
        self,
        transactional_id: str,
        epoch: int,
        batches: Iterable[Batch],
        offsets: Mapping[tuple[str, Partition], int],
        now_ms: int,
    ) -> None:
        """Write a transaction, after checking that its holder still is the holder.

        Raises:
            Fenced: another holder took the id over.
        """
        with self.write():
            row = self._execute("SELECT epoch FROM transactors WHERE id = ?", (transactional_id,)).fetchone()
            if row != (epoch,):
                raise Fenced.holder(transactional_id)
            self._append(batches, now_ms)
            self.set_offsets(offsets)

    def set_offsets(self, offsets: Mapping[tuple[str, Partition], int]) -> None:
        """Within `write`: the next offsets to read, per group and partition."""
        rows = [(group, topic, number, offset) for (group, (topic, number)), offset in offsets.items()]
        self.connection.executemany("INSERT OR REPLACE INTO offsets VALUES (?, ?, ?, ?)", rows)

    def _append(self, batches: Iterable[Batch], now_ms: int) -> None:
        for name, messages in batches:
            spec = self.topic(name)
            by_partition: dict[int, list[Outgoing]] = {}
            for message in messages:
                by_partition.setdefault(place(spec, message), []).append(message)
            for number, chosen in by_partition.items():
                self._append_to(Partition(name, number), chosen, compacted=spec.compacted, now_ms=now_ms)

    def _append_to(self, partition: Partition, messages: list[Outgoing], *, compacted: bool, now_ms: int) -> None:
        partition_id, offset = self._locate(partition)
        slot_prefix = partition_id.to_bytes(8, "big")
        rows = {}
        for row_id, message in enumerate(messages, partition_id << _OFFSET_BITS | offset):
            headers = _encode_headers(message.headers) if message.headers else None
            slot = slot_prefix + message.key if compacted else None
            # A compacted row takes the place of an earlier one of the same batch; its offset is used up all the same.
            rows[slot or row_id] = (row_id, now_ms, slot, message.key, message.value, headers)
        if compacted:
            self.connection.executemany("DELETE FROM messages WHERE slot = ?", [(slot,) for slot in rows])
        self.connection.executemany("INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?)", rows.values())
        self._execute("UPDATE partitions SET next_offset = ? WHERE id = ?", (offset + len(messages), partition_id))

    def sweep(self, now_ms: int) -> None:
        """Delete what is past its retention, and old tombstones; a bounded number of rows at a time."""
        with self.write():
            for partition_id, compacted, retention_ms in self._execute(
                "SELECT p.id, t.compacted, t.retention_ms FROM partitions p JOIN topics t ON t.name = p.topic"
                " WHERE t.compacted OR t.retention_ms IS NOT NULL"
            ).fetchall():
                bounds = (partition_id << _OFFSET_BITS, partition_id + 1 << _OFFSET_BITS)
                if compacted:
                    self._execute(
                        "DELETE FROM messages WHERE id >= ? AND id < ? AND value IS NULL AND timestamp_ms < ?",
                        (*bounds, now_ms - _TOMBSTONE_MS),
                    )
                else:
                    self._execute(
                        "DELETE FROM messages WHERE timestamp_ms < ? AND id IN"
                        " (SELECT id FROM messages WHERE id >= ? AND id < ? ORDER BY id LIMIT ?)",
                        (now_ms - retention_ms, *bounds, _SWEEP_ROWS),
                    )

    # Reading

    def fetch(self, partition: Partition, start: int, limit: int) -> list[Message]:
        with bus_errors(self.path):
            partition_id, _ = self._locate(partition)
            base = partition_id << _OFFSET_BITS
            rows = self._execute(
                "SELECT id - ?, timestamp_ms, key, value, headers FROM messages WHERE id >= ? AND id < ?"
                " ORDER BY id LIMIT ?",
                (base, base + start, partition_id + 1 << _OFFSET_BITS, limit),
            ).fetchall()
        return [
            Message(
                topic=partition.topic,
                partition=partition.partition,
                offset=offset,
                timestamp_ms=timestamp_ms,
                key=key,
                value=value,
                headers=_decode_headers(headers) if headers else (),
            )
            for offset, timestamp_ms, key, value, headers in rows
        ]

    def table(self, partition: Partition) -> dict[bytes, bytes]:
        """The newest value of each key, tombstones left out."""
        with bus_errors(self.path):
            partition_id, _ = self._locate(partition)
            rows = self._execute(
                "SELECT key, value FROM messages WHERE id >= ? AND id < ? ORDER BY id",
                (partition_id << _OFFSET_BITS, partition_id + 1 << _OFFSET_BITS),
            )
            newest = dict(rows)
        return {key: value for key, value in newest.items() if value is not None}

    def start_offset(self, partition: Partition) -> int:
        with bus_errors(self.path):
            partition_id, end = self._locate(partition)
            base = partition_id << _OFFSET_BITS
            (first,) = self._execute(
                "SELECT min(id) FROM messages WHERE id >= ? AND id < ?", (base, partition_id + 1 << _OFFSET_BITS)
            ).fetchone()
        return end if first is None else first - base

    def end_offset(self, partition: Partition) -> int:
        with bus_errors(self.path):
            return self._locate(partition)[1]

    def committed(self, group: str, partition: Partition) -> int | None:
        with bus_errors(self.path):
            row: tuple[int] | None = self._execute(
                "SELECT next_offset FROM offsets WHERE group_name = ? AND topic = ? AND partition = ?",
                (group, *partition),
            ).fetchone()
        return row[0] if row else None

    def _locate(self, partition: Partition) -> tuple[int, int]:
        """Its id and its next offset."""
        row: tuple[int, int] | None = self._execute(
            "SELECT id, next_offset FROM partitions WHERE topic = ? AND number = ?", partition
        ).fetchone()
        if row is None:
            raise UnknownTopic.named(f"{partition.topic}, partition {partition.partition}")
        return row

    def _execute(self, statement: str, values: Sequence[int | str | None] = ()) -> sqlite3.Cursor:
        return self.connection.execute(statement, values)


def place(spec: TopicSpec, message: Outgoing) -> int:
    """The partition that a message goes to.

    Raises:
        UnknownTopic: the message names a partition that the topic does not have.
    """
    if message.partition is None:
        return partition_of(message.key, spec.partitions)
    if not 0 <= message.partition < spec.partitions:
        raise UnknownTopic.named(f"{spec.name}, partition {message.partition}")
    return message.partition


@contextlib.contextmanager
def bus_errors(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours."""
    try:
        yield
    except sqlite3.Error as error:
        what = f"bus file {path}"
        match getattr(error, "sqlite_errorcode", None):
            case sqlite3.SQLITE_FULL:
                why = "the disk is full, or the file is at its configured size; nothing was written"
                fix = "make room or raise the limit; the same call then succeeds"
            case sqlite3.SQLITE_BUSY:
                why = f"another process has held its write lock for {BUSY_TIMEOUT_S:.0f} s"
                fix = "look for a stopped process that has the file open"
            case sqlite3.SQLITE_CANTOPEN:
                why, fix = "it cannot be opened", "check that its folder exists and is writable"
            case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
                why, fix = f"it is no whole SQLite database ({error})", "restore the file, or give another path"
            case _:
                why, fix = f"SQLite says: {error}", "check the disk and the file's permissions"
        raise BusError(what, why=why, fix=fix) from error
