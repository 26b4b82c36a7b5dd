"""Integrity of a whole audit database: every stored value is recomputed, and what differs is named.

Recomputed from the leaves alone: leaf hashes, indexed columns, every tree node, the root of every signed
checkpoint, the positions, which boxes there are and their digests, which keys were destroyed. With the
key-encryption key also: every data key, and every withheld value against its commitment.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import msgspec
from sqlalchemy import Connection, Engine, RowMapping, exc, select, text

from audit.checkpoint import BadCheckpoint, VerifierKey, open_checkpoint
from audit.database import open_engine, reaching
from audit.document import ENTRY_FORMAT, BadDocument, JsonObject, canonical, commitment, object_at, parse, text_at
from audit.entry import ERASURE, Columns, columns
from audit.merkle import leaf_hash
from audit.ordered import Ordered
from audit.report import Finding, Report
from audit.schema import require_current_schema, schema_findings
from audit.seal import DataKey, KeyEncryptionKey, SealBroken, unseal
from audit.tables import logs, metadata
from audit.tree import Frontier

_COLUMNS: Final = tuple(one.name for one in msgspec.structs.fields(Columns))
#: A database in which everything is wrong is not worth a finding for each row.
_MAX_FINDINGS: Final = 1_000
_BATCH: Final = 1_000
_ENTRIES: Final = 'SELECT * FROM entries WHERE log = :log ORDER BY "index"'
_NOTES: Final = "SELECT size, note FROM checkpoints WHERE log = :log ORDER BY size"
_NODES: Final = "SELECT level, number, hash FROM nodes WHERE log = :log AND level = :level ORDER BY number"
_NODES_ABOVE: Final = "SELECT level, number FROM nodes WHERE log = :log AND NOT level BETWEEN 1 AND :level"
_BOXES: Final = (
    'SELECT p."index" AS "index", p.key_id, p.box, k.subject, k.wrapped FROM payloads p'
    " LEFT JOIN subject_keys k ON k.log = p.log AND k.key_id = p.key_id"
    ' WHERE p.log = :log ORDER BY p."index"'
)
_KEYS: Final = "SELECT key_id, subject, wrapped, erased_by FROM subject_keys WHERE log = :log ORDER BY key_id"
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
    return Report(trusted.name, max(0, check.signed), check.frontier.size, check.opened, tuple(findings))


@contextmanager
def _reading(engine: Engine) -> Iterator[Connection]:
    """A transaction in which damage of an SQLite file shows as `_Unreadable`, and not as a database that is away."""
    try:
        require_current_schema(engine)
        with engine.begin() as connection:
            yield connection
    except (exc.NoSuchColumnError, UnicodeDecodeError) as error:  # the schema's own text was hit
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


class _Check:
    """One pass over the entries, and what must agree with them. Memory does not grow with the log."""

    def __init__(
        self,
        connection: Connection,
        trusted: VerifierKey,
        encryption: KeyEncryptionKey | None,
        findings: list[Finding],
    ) -> None:
        self.signed = 0
        self.opened = 0
        self.frontier = Frontier()
        self._connection = connection
        self._trusted = trusted
        self._encryption = encryption
        self._findings = findings
        self._next_offsets: dict[tuple[str, int], int] = {}
        self._erased: dict[str, tuple[int, str]] = {}  # key id -> the entry that says so, the subject
        self._unsealed: dict[str, int] = {}  # key id -> the first entry whose box is absent
        self._levels: dict[int, Ordered] = {}

    def run(self) -> None:
        for finding in schema_findings(self._connection):
            self._find(finding.where, finding.what)
        self._log_row()
        notes = Ordered(self._rows(_NOTES), "size", self._stray_note)
        boxes = Ordered(self._rows(_BOXES), "index", self._stray_box)
        self._checkpoint(notes)
        if self.signed < 0:
            self._find("checkpoint 0", "the one signed when the log was founded is absent")
        recorded: object = None
        for row in self._rows(_ENTRIES):
            leaf = self._entry(row)
            if leaf.get("recorded") != recorded and self.signed != self.frontier.size:
                # What is appended together bears one time, and is followed by a checkpoint.
                self._find(f"checkpoint {self.frontier.size}", "is absent, although an append ended there")
            recorded = leaf.get("recorded")
            self._withheld(leaf, boxes.take(self.frontier.size))
            self._grow(row["leaf"])
            self._checkpoint(notes)
        for rest in (notes, boxes, *self._levels.values()):
            rest.end()
        for row in self._rows(_NODES_ABOVE, level=max(self._levels, default=0)):
            self._stray_node(row)
        if self.signed != self.frontier.size:
            self._find(f"entry {max(0, self.signed)}", "is covered by no signed checkpoint, nor is any after it")
        self._positions()
        self._keys()

    def _find(self, where: str, what: str) -> None:
        self._findings.append(Finding(where, what))
        if len(self._findings) >= _MAX_FINDINGS:
            raise _TooMany

    def _stray_note(self, row: RowMapping) -> None:
        self._find(f"checkpoint {row['size']}", f"the log has {self.frontier.size} entries and no such size")

    def _stray_box(self, row: RowMapping) -> None:
        self._find(f"sealed box {row['index']}", "belongs to no entry")

    def _stray_node(self, row: RowMapping) -> None:
        self._find(f"node {row['number']} of level {row['level']}", "is no node of this tree")

    def _rows(self, query: str, **parameters: int) -> Iterator[RowMapping]:
        """Rows as the driver gives them: no type is assumed of a cell that may have been changed."""
        rows = self._connection.execute(text(query), {"log": self._trusted.name, **parameters}).yield_per(_BATCH)
        yield from rows.mappings()

    def _log_row(self) -> None:
        for table in metadata.tables:
            orphans = self._connection.execute(_ORPHANS[table])
            for log in orphans.scalars():
                self._find(f"table {table}", f"has rows of the log {log!r}, which the database does not list")
        rows = list(self._rows("SELECT namespace, verifier_key FROM logs WHERE log = :log"))
        names = list(self._connection.execute(text("SELECT log FROM logs")).scalars())
        if len(rows) != 1:
            self._find(f"log {self._trusted.name!r}", f"the database does not list it; it has {names}")
            return
        namespace = rows[0]["namespace"]
        if rows[0]["verifier_key"] != str(self._trusted):
            self._find(f"log {self._trusted.name!r}", f"is listed with another key: {rows[0]['verifier_key']!r}")
        topics = self._rows("SELECT DISTINCT topic FROM entries WHERE log = :log AND topic IS NOT NULL")
        for topic in (row["topic"] for row in topics):
            if not str(topic).startswith(f"govern.{namespace}."):
                self._find(f"log {self._trusted.name!r}", f"is listed for {namespace!r}, but has entries of {topic!r}")

    def _checkpoint(self, notes: Ordered) -> None:
        """Compare the tree, as far as it has grown, with what was signed of it."""
        row = notes.take(self.frontier.size)
        if row is None:
            self.signed = self.signed if self.frontier.size else -1
            return
        where = f"checkpoint {self.frontier.size}"
        self.signed = self.frontier.size
        try:
            checkpoint = open_checkpoint(row["note"] if isinstance(row["note"], str) else "", self._trusted)
        except BadCheckpoint as error:
            self._find(where, f"{error.what}: {error.why}")
            return
        if checkpoint.size != self.frontier.size:
            self._find(where, f"its note is signed for size {checkpoint.size}")
        elif checkpoint.root != self.frontier.root():
            self._find(where, "the entries do not give the root that was signed")

    def _entry(self, row: RowMapping) -> JsonObject:
        """Check a row against its own leaf."""
        where = f"entry {row['index']}"
        if row["index"] != self.frontier.size:
            self._find(where, f"stands where entry {self.frontier.size} should")
        content = row["leaf"]
        if not isinstance(content, bytes):
            self._find(where, "its leaf is no bytes")
            return {}
        if leaf_hash(content) != row["leaf_hash"]:
            self._find(where, "leaf_hash is not the hash of its leaf")
        try:
            leaf = parse(content)
            if (
                canonical(leaf) != content
                or leaf.get("format") != ENTRY_FORMAT
                or leaf.get("log") != self._trusted.name
            ):
                self._find(where, "its leaf is not the canonical JSON of an entry of this log")
        except BadDocument as error:
            self._find(where, f"its leaf: {error.why}")
            return {}
        said = msgspec.structs.asdict(columns(leaf))
        for name in _COLUMNS:
            if not _same(row[name], said[name]):
                self._find(where, f"column {name} is {row[name]!r}, its leaf says {said[name]!r}")
        source = object_at(leaf, "source")
        if source:
            at = (text_at(source, "topic"), said["partition"])
            if said["offset"] < self._next_offsets.get(at, 0):
                self._find(where, f"repeats offset {said['offset']} of {at[0]}[{at[1]}], or is out of order")
            self._next_offsets[at] = said["offset"] + 1
        if said["kind"] == ERASURE and isinstance(row["index"], int):
            keys = object_at(object_at(leaf, "record"), "keys")
            self._erased.update({key: (row["index"], text_at(keys, key)) for key in keys})
        return leaf

    def _withheld(self, leaf: JsonObject, box: RowMapping | None) -> None:
        sealed = object_at(leaf, "withheld")
        where = f"entry {self.frontier.size}"
        if not sealed:
            if box is not None and leaf:
                self._find(where, "has a sealed box that its leaf does not know")
            return
        key_id = text_at(sealed, "key")
        if box is None:
            self._unsealed.setdefault(key_id, self.frontier.size)
        elif box["key_id"] != key_id:
            self._find(where, f"column key_id of its sealed box is {box['key_id']!r}, its leaf says {key_id!r}")
        elif hashlib.sha256(_bytes(box["box"])).hexdigest() != sealed.get("box"):
            self._find(where, "its sealed box is not the one whose digest the leaf holds")
        elif box["wrapped"] is None:
            self._find(where, f"has a sealed box, but its data key {key_id} is absent or destroyed")
        elif self._encryption is not None:
            try:
                key = self._encryption.unwrap(_bytes(box["wrapped"]), key_id, str(box["subject"]))
            except SealBroken:
                return  # reported once, with the keys
            self._open(where, box["box"], key, object_at(sealed, "fields"))

    def _open(self, where: str, box: bytes, key: DataKey, fields: JsonObject) -> None:
        try:
            opened = unseal(box, key)
        except SealBroken as error:
            self._find(where, f"{error.what}: {error.why}")
            return
        if {path: commitment(opened.salt, path, value) for path, value in opened.values.items()} != fields:
            self._find(where, "its withheld values do not give the commitments of its leaf")
        self.opened += 1

    def _grow(self, content: object) -> None:
        self.frontier, written = self.frontier.append([leaf_hash(_bytes(content))])
        for node, value in written:
            if node.level not in self._levels:
                stored = self._rows(_NODES, level=node.level)
                self._levels[node.level] = Ordered(stored, "number", self._stray_node)
            row = self._levels[node.level].take(node.number)
            if row is None:
                self._find(f"node {node.number} of level {node.level}", "is absent")
            elif row["hash"] != value:
                self._find(f"node {node.number} of level {node.level}", "is not the hash of the nodes below it")

    def _positions(self) -> None:
        stored = {
            (row["topic"], row["partition"]): row["next_offset"]
            for row in self._rows("SELECT topic, partition, next_offset FROM positions WHERE log = :log")
        }
        for at in sorted(stored.keys() | self._next_offsets.keys(), key=str):
            if stored.get(at) != self._next_offsets.get(at):
                self._find(
                    f"position of {at[0]}[{at[1]}]",
                    f"is {stored.get(at)}, but the entries end before {self._next_offsets.get(at)}",
                )

    def _keys(self) -> None:
        unmarked = set(self._erased)
        for row in self._rows(_KEYS):
            key_id, subject, erased_by = row["key_id"], row["subject"], row["erased_by"]
            unmarked.discard(key_id)
            where = f"data key {key_id}"
            if row["wrapped"] is None:
                if self._erased.get(key_id) != (erased_by, subject):
                    self._find(where, f"of {subject!r} is destroyed by entry {erased_by}, which does not say so")
            elif key_id in self._erased or erased_by is not None:
                self._find(where, "is there, although it was erased")
            elif self._encryption is not None:
                try:
                    self._encryption.unwrap(_bytes(row["wrapped"]), str(key_id), str(subject))
                except SealBroken as error:
                    self._find(where, error.why)
        for key_id in sorted(unmarked):
            self._find(f"data key {key_id}", "was erased, and its mark is absent")
        for key_id, index in self._unsealed.items():
            if key_id not in self._erased:
                self._find(f"entry {index}", "its sealed box is absent, and no entry records its erasure")


def _same(stored: object, said: object) -> bool:
    return stored == said and (stored is None) == (said is None)


def _bytes(cell: object) -> bytes:
    return cell if isinstance(cell, bytes) else b""
