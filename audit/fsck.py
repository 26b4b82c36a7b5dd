"""Integrity of a whole audit database: every stored value is recomputed, and what differs is named.

Recomputed from the leaves alone: leaf hashes, indexed columns, every tree node, the root of every signed
checkpoint, the positions, which boxes there are and their digests, which keys were destroyed. With the
key-encryption key also: every data key, and every withheld value against its commitment.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Engine, RowMapping, exc, select, text

from audit.checkpoint import BadCheckpoint, VerifierKey, open_checkpoint
from audit.database import open_engine, reaching
from audit.document import ENTRY_FORMAT, BadDocument, JsonObject, canonical, commitment, object_at, parse, text_at
from audit.entry import ERASURE, Columns, columns
from audit.merkle import leaf_hash
from audit.report import Finding, Report
from audit.schema import require_current_schema, schema_findings
from audit.seal import DataKey, KeyEncryptionKey, SealBroken, unseal
from audit.tables import logs, metadata
from audit.tree import Frontier, Node

_COLUMNS: Final = tuple(one.name for one in msgspec.structs.fields(Columns))
#: A database in which everything is wrong is not worth a finding for each row.
_MAX_FINDINGS: Final = 1_000
_BATCH: Final = 1_000
_ORPHANS: Final = {
    name: select(table.c.log).where(table.c.log.not_in(select(logs.c.log))).distinct()
    for name, table in metadata.tables.items()
}
#: SQLite's primary result codes of a file that is in use or cannot be opened, not damaged.
_PASSING: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_CANTOPEN)


def verify_database(url: str, trusted: VerifierKey, encryption: KeyEncryptionKey | None = None) -> Report:
    """Check the log that bears the trusted key's name.

    Args:
        encryption: also open every sealed box.

    Raises:
        ConfigError: the URL names no audit database of this release.
        StoreUnavailable: the database is away.
    """
    engine = open_engine(url, "read")
    findings: list[Finding] = []
    check: _Check | None = None
    try:
        with reaching(engine), _reading(engine) as connection:
            check = _Check(connection, trusted, encryption, findings)
            check.run()
    except _Unreadable as error:
        findings.append(Finding("database file", str(error)))
    except _TooMany:
        findings.append(Finding("database", f"more than {_MAX_FINDINGS} findings: stopped here"))
    finally:
        engine.dispose()
    if check is None:
        return Report(trusted.name, 0, 0, 0, tuple(findings))
    return Report(trusted.name, check.signed, check.frontier.size, check.opened, tuple(findings))


@contextmanager
def _reading(engine: Engine) -> Iterator[Connection]:
    """A transaction in which damage of an SQLite file shows as `_Unreadable`, and not as a database that is away."""
    try:
        require_current_schema(engine)
        with engine.begin() as connection:
            yield connection
    except exc.NoSuchColumnError as error:
        raise _Unreadable(f"cannot be read to its end: {error}") from error
    except exc.DatabaseError as error:
        cause = error.orig
        busy = isinstance(cause, sqlite3.Error) and getattr(cause, "sqlite_errorcode", 0) & 0xFF in _PASSING
        if not isinstance(cause, sqlite3.Error) or busy:
            raise
        raise _Unreadable(f"cannot be read to its end: {cause}") from error


class _Unreadable(Exception):
    pass


class _TooMany(Exception):
    pass


@dataclass
class _Key:
    subject: str
    wrapped: bytes | None
    erased_by: int | None


@dataclass
class _Check:
    """One pass over the entries, and what must agree with it."""

    connection: Connection
    trusted: VerifierKey
    encryption: KeyEncryptionKey | None
    findings: list[Finding]
    frontier: Frontier = field(default_factory=Frontier)
    signed: int = 0
    opened: int = 0
    next_offsets: dict[tuple[str, int], int] = field(default_factory=dict)
    sealed: dict[str, list[int]] = field(default_factory=dict)  # key id -> entries
    erased: dict[str, tuple[int, str]] = field(default_factory=dict)  # key id -> entry that says so, subject

    def find(self, where: str, what: str) -> None:
        self.findings.append(Finding(where, what))
        if len(self.findings) >= _MAX_FINDINGS:
            raise _TooMany

    def run(self) -> None:
        for finding in schema_findings(self.connection):
            self.find(finding.where, finding.what)
        self._log_row()
        notes = self._notes()
        keys = {
            row["key_id"]: _Key(row["subject"], row["wrapped"], row["erased_by"])
            for row in self._rows("SELECT * FROM subject_keys WHERE log = :log ORDER BY key_id")
        }
        nodes = self._rows("SELECT level, number, hash FROM nodes WHERE log = :log ORDER BY level, number")
        stored = {Node(row["level"], row["number"]): row["hash"] for row in nodes}
        boxes = self._rows('SELECT * FROM payloads WHERE log = :log ORDER BY "index"')
        box = next(boxes, None)
        recorded: object = None
        self._root(0, notes)
        for row in self._rows('SELECT * FROM entries WHERE log = :log ORDER BY "index"'):
            leaf = self._entry(row)
            if leaf.get("recorded") != recorded and self.signed != self.frontier.size:
                # What is appended together bears one time, and is followed by a checkpoint.
                self.find(f"checkpoint {self.frontier.size}", "is absent, although an append ended there")
            recorded = leaf.get("recorded")
            while box is not None and _before(box["index"], row["index"]):
                self.find(f"sealed box {box['index']}", "belongs to no entry")
                box = next(boxes, None)
            mine = box if box is not None and box["index"] == row["index"] else None
            if mine is not None:
                box = next(boxes, None)
            self._withheld(row["index"], leaf, mine, keys)
            self._grow(row["leaf"], stored)
            self._root(self.frontier.size, notes)
        if box is not None:
            self.find(f"sealed box {box['index']}", "belongs to no entry")
        for node in stored:
            self.find(f"node {node.number} of level {node.level}", "is no node of this tree")
        for size in notes:
            self.find(f"checkpoint {size}", f"the log has {self.frontier.size} entries and no such size")
        if self.signed != self.frontier.size:
            self.find(f"entry {self.signed}", "is covered by no signed checkpoint, nor is any after it")
        self._positions()
        self._keys(keys)

    def _rows(self, query: str) -> Iterator[RowMapping]:
        """Rows as the driver gives them: no type is assumed of a cell that may have been changed."""
        rows = self.connection.execute(text(query), {"log": self.trusted.name}).yield_per(_BATCH)
        yield from rows.mappings()

    def _log_row(self) -> None:
        for table in metadata.tables:
            orphans = self.connection.execute(_ORPHANS[table])
            for log in orphans.scalars():
                self.find(f"table {table}", f"has rows of the log {log!r}, which the database does not list")
        rows = list(self._rows("SELECT namespace, verifier_key FROM logs WHERE log = :log"))
        names = list(self.connection.execute(text("SELECT log FROM logs")).scalars())
        if len(rows) != 1:
            self.find(f"log {self.trusted.name!r}", f"the database does not list it; it has {names}")
            return
        namespace = rows[0]["namespace"]
        if rows[0]["verifier_key"] != str(self.trusted):
            self.find(f"log {self.trusted.name!r}", f"is listed with another key: {rows[0]['verifier_key']!r}")
        topics = self._rows("SELECT DISTINCT topic FROM entries WHERE log = :log AND topic IS NOT NULL")
        for topic in (row["topic"] for row in topics):
            if not str(topic).startswith(f"govern.{namespace}."):
                self.find(f"log {self.trusted.name!r}", f"is listed for {namespace!r}, but has entries of {topic!r}")

    def _notes(self) -> dict[int, bytes]:
        """Size -> signed root."""
        notes: dict[int, bytes] = {}
        for row in self._rows("SELECT size, note FROM checkpoints WHERE log = :log ORDER BY size"):
            where = f"checkpoint {row['size']}"
            try:
                checkpoint = open_checkpoint(row["note"] if isinstance(row["note"], str) else "", self.trusted)
            except BadCheckpoint as error:
                self.find(where, f"{error.what}: {error.why}")
                continue
            if checkpoint.size != row["size"]:
                self.find(where, f"its note is signed for size {checkpoint.size}")
                continue
            notes[checkpoint.size] = checkpoint.root
        if 0 not in notes:
            self.find("checkpoint 0", "the one signed when the log was founded is absent")
        return notes

    def _entry(self, row: RowMapping) -> JsonObject:
        """Check a row against its own leaf."""
        where = f"entry {row['index']}"
        if row["index"] != self.frontier.size:
            self.find(where, f"stands where entry {self.frontier.size} should")
        content = row["leaf"]
        if not isinstance(content, bytes):
            self.find(where, "its leaf is no bytes")
            return {}
        if leaf_hash(content) != row["leaf_hash"]:
            self.find(where, "leaf_hash is not the hash of its leaf")
        try:
            leaf = parse(content)
            if canonical(leaf) != content or leaf.get("format") != ENTRY_FORMAT or leaf.get("log") != self.trusted.name:
                self.find(where, "its leaf is not the canonical JSON of an entry of this log")
        except BadDocument as error:
            self.find(where, f"its leaf: {error.why}")
            return {}
        said = msgspec.structs.asdict(columns(leaf))
        for name in _COLUMNS:
            if not _same(row[name], said[name]):
                self.find(where, f"column {name} is {row[name]!r}, its leaf says {said[name]!r}")
        source = object_at(leaf, "source")
        if source:
            at = (text_at(source, "topic"), said["partition"])
            if said["offset"] < self.next_offsets.get(at, 0):
                self.find(where, f"repeats offset {said['offset']} of {at[0]}[{at[1]}], or is out of its order")
            self.next_offsets[at] = said["offset"] + 1
        if said["kind"] == ERASURE and isinstance(row["index"], int):
            keys = object_at(object_at(leaf, "record"), "keys")
            self.erased.update({key: (row["index"], text_at(keys, key)) for key in keys})
        return leaf

    def _withheld(self, index: Any, leaf: JsonObject, box: RowMapping | None, keys: Mapping[str, _Key]) -> None:
        sealed = object_at(leaf, "withheld")
        where = f"entry {index}"
        if not sealed:
            if box is not None and leaf:
                self.find(where, "has a sealed box that its leaf does not know")
            return
        key_id = text_at(sealed, "key")
        if box is None:
            self.sealed.setdefault(key_id, []).append(index)
            return
        if box["key_id"] != key_id:
            self.find(where, f"column key_id of its sealed box is {box['key_id']!r}, its leaf says {key_id!r}")
        if not isinstance(box["box"], bytes) or hashlib.sha256(box["box"]).hexdigest() != sealed.get("box"):
            self.find(where, "its sealed box is not the one whose digest the leaf holds")
            return
        key = keys.get(key_id)
        if key is None or key.wrapped is None:
            self.find(where, f"has a sealed box, but its data key {key_id} is absent or destroyed")
        elif self.encryption is not None:
            try:
                data_key = self.encryption.unwrap(_bytes(key.wrapped), key_id, str(key.subject))
            except SealBroken:
                return  # reported once, with the keys
            self._open(where, box["box"], data_key, object_at(sealed, "fields"))

    def _open(self, where: str, box: bytes, key: DataKey, fields: JsonObject) -> None:
        try:
            opened = unseal(box, key)
        except SealBroken as error:
            self.find(where, f"{error.what}: {error.why}")
            return
        if {path: commitment(opened.salt, path, value) for path, value in opened.values.items()} != fields:
            self.find(where, "its withheld values do not give the commitments of its leaf")
        self.opened += 1

    def _grow(self, content: Any, stored: dict[Node, bytes]) -> None:
        self.frontier, written = self.frontier.append([leaf_hash(content if isinstance(content, bytes) else b"")])
        for node, value in written:
            where = f"node {node.number} of level {node.level}"
            if node not in stored:
                self.find(where, "is absent")
            elif stored.pop(node) != value:
                self.find(where, "is not the hash of the nodes below it")

    def _root(self, size: int, notes: dict[int, bytes]) -> None:
        root = notes.pop(size, None)
        if root is None:
            return
        if root != self.frontier.root():
            self.find(f"checkpoint {size}", "the entries do not give the root that was signed")
        self.signed = size

    def _positions(self) -> None:
        stored = {
            (row["topic"], row["partition"]): row["next_offset"]
            for row in self._rows("SELECT topic, partition, next_offset FROM positions WHERE log = :log")
        }
        for at in sorted(stored.keys() | self.next_offsets.keys(), key=str):
            if stored.get(at) != self.next_offsets.get(at):
                self.find(
                    f"position of {at[0]}[{at[1]}]",
                    f"is {stored.get(at)}, but the entries end before {self.next_offsets.get(at)}",
                )

    def _keys(self, keys: Mapping[str, _Key]) -> None:
        for key_id, key in keys.items():
            where = f"data key {key_id}"
            if key.wrapped is None and self.erased.get(key_id) != (key.erased_by, key.subject):
                self.find(where, f"of {key.subject!r} is destroyed by entry {key.erased_by}, which does not say so")
            elif key.wrapped is not None and (key_id in self.erased or key.erased_by is not None):
                self.find(where, "is there, although it was erased")
            elif key.wrapped is not None and self.encryption is not None:
                try:
                    self.encryption.unwrap(_bytes(key.wrapped), key_id, str(key.subject))
                except SealBroken as error:
                    self.find(where, error.why)
        for key_id in self.erased.keys() - keys.keys():
            self.find(f"data key {key_id}", "was erased, and its mark is absent")
        for key_id, indexes in self.sealed.items():
            if key_id not in self.erased:
                self.find(f"entry {indexes[0]}", "its sealed box is absent, and no entry records its erasure")


def _same(stored: object, said: object) -> bool:
    return stored == said and (stored is None) == (said is None)


def _before(stored: object, index: object) -> bool:
    """Whether a stored index comes before an entry's; one that is no number belongs to no entry at all."""
    return not isinstance(stored, int) or not isinstance(index, int) or stored < index


def _bytes(cell: object) -> bytes:
    return cell if isinstance(cell, bytes) else b""
