"""The reading side of a log: one consistent view, from which entries, proofs and sealed boxes are read.

Everything within one `snapshot()` is of the same instant, so that a proof fits the checkpoint beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Engine, Select, func, select

from audit.checkpoint import Checkpoint, VerifierKey
from audit.database import reaching
from audit.document import JsonObject, object_at, parse
from audit.schema import require_current_schema
from audit.seal import KeyEncryptionKey, Opened, unseal
from audit.store import read_nodes
from audit.summary import covers
from audit.tables import checkpoints, entries, logs, payloads, subject_keys
from audit.tree import consistency_spans, inclusion_spans, proof
from govern.errors import BadInput, NotFound

MAX_PAGE: Final = 1_000


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """An entry as stored. `leaf` is its canonical JSON, the bytes that are hashed into the tree."""

    index: int
    kind: str
    request_id: str
    leaf: bytes

    def document(self) -> JsonObject:
        return parse(self.leaf)


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which entries. An omitted condition holds for all.

    Attributes:
        since_ns, until_ns: of the record's own time, nanoseconds since the Unix epoch; until is exclusive.
        first, last: entry indexes, inclusive.
    """

    kind: str | None = None
    request_id: str | None = None
    record_id: str | None = None
    service: str | None = None
    model: str | None = None
    pipeline: str | None = None
    step: str | None = None
    alarm: bool | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    first: int | None = None
    last: int | None = None


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Entries in index order, and the cursor of the next page (None on the last)."""

    entries: tuple[Entry, ...]
    next: int | None


class KindStatistics(msgspec.Struct, frozen=True, kw_only=True):
    kind: str
    entries: int
    alarms: int
    first_ns: int
    last_ns: int


class AuditQuery:
    """Reads of one namespace's log. Methods block: call them from a thread."""

    def __init__(self, engine: Engine, *, namespace: str) -> None:
        self._engine = engine
        self.namespace = namespace

    @contextmanager
    def snapshot(self) -> Iterator[View]:
        """One instant of the log.

        Raises:
            NotFound: the database has no log of the namespace.
            StoreUnavailable: the database is away.
        """
        with reaching(self._engine), self._engine.begin() as connection:
            key = connection.execute(select(logs.c.verifier_key).where(logs.c.namespace == self.namespace)).scalar()
            if key is None:
                raise NotFound(
                    f"audit log of namespace {self.namespace!r}",
                    why="the database has none",
                    fix="check --namespace, or found the log with `govern audit init`",
                )
            yield View(connection, VerifierKey.parse(key))

    def require(self) -> None:
        """Raises ConfigError or NotFound when there is no log to read."""
        require_current_schema(self._engine)
        with self.snapshot():
            pass


class View:
    """The log at one instant.

    Attributes:
        key: as the database names it: good enough to pass on, never to be trusted because of that.
    """

    def __init__(self, connection: Connection, key: VerifierKey) -> None:
        self._connection = connection
        self.key = key
        self.log = key.name

    def note(self, size: int | None = None) -> str:
        """The signed checkpoint of a size; the newest when none is named.

        Raises:
            NotFound: no checkpoint was signed at that size.
        """
        query = select(checkpoints.c.note).where(checkpoints.c.log == self.log)
        query = query.order_by(checkpoints.c.size.desc()).limit(1) if size is None else query.filter_by(size=size)
        note: str | None = self._connection.execute(query).scalar()
        if note is None:
            raise NotFound(
                f"checkpoint of size {size}",
                why="the log signed none at that size",
                fix="use a size from a checkpoint that the log gave out",
            )
        return note

    def checkpoint(self) -> tuple[Checkpoint, str]:
        """The newest checkpoint, and the note that carries it."""
        note = self.note()
        return Checkpoint.parse(note.rpartition("\n\n")[0] + "\n"), note

    def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        """The inclusion proof of an entry in the tree of a size. Raises BadInput: it is not in that tree."""
        self._check_sizes(index + 1, size)
        return proof(inclusion_spans(index, size), partial(read_nodes, self._connection, self.log))

    def consistency(self, first: int, second: int) -> tuple[bytes, ...]:
        """The consistency proof between two sizes. Raises BadInput: they are no sizes of this log, in order."""
        self._check_sizes(first, second)
        return proof(consistency_spans(first, second), partial(read_nodes, self._connection, self.log))

    def entry(self, index: int) -> Entry:
        """Raises NotFound: there is no such entry."""
        found = self._entries(_select_entries().where(entries.c.log == self.log, entries.c.index == index))
        if not found:
            raise NotFound(f"entry {index}", why="the log is shorter", fix="use an index below the checkpoint's size")
        return found[0]

    def page(self, wanted: Filter, *, after: int | None = None, limit: int = 100, newest_first: bool = False) -> Page:
        """A page of the entries that fit, in index order (or against it).

        Args:
            after: the cursor: the index after which (before which, newest first) to go on.
        """
        if not 1 <= limit <= MAX_PAGE:
            raise BadInput(f"limit {limit}", why=f"a page has 1 to {MAX_PAGE} entries", fix="follow the cursor `next`")
        query = self._filtered(wanted)
        if after is not None:
            query = query.where(entries.c.index < after if newest_first else entries.c.index > after)
        order = entries.c.index.desc() if newest_first else entries.c.index
        found = self._entries(query.order_by(order).limit(limit + 1))
        return Page(entries=found[:limit], next=found[limit - 1].index if len(found) > limit else None)

    def all(self, wanted: Filter) -> Iterator[Entry]:
        """Every entry that fits, in index order, a page at a time."""
        after: int | None = None
        while True:
            page = self.page(wanted, after=after, limit=MAX_PAGE)
            yield from page.entries
            if page.next is None:
                return
            after = page.next

    def verdicts_in_force(self, inference: Entry) -> tuple[Entry, ...]:
        """The verdicts whose window covers an inference: same stream, its partition, its offset within."""
        leaf = inference.document()
        source = object_at(leaf, "source")
        found = self._entries(
            _select_entries()
            .where(
                entries.c.log == self.log,
                entries.c.kind == "verdict",
                entries.c.window_topic == source.get("topic"),
                entries.c.window_partition == source.get("partition"),
                entries.c.window_first <= source.get("offset"),
                entries.c.window_last >= source.get("offset"),
            )
            .order_by(entries.c.index)
        )
        return tuple(one for one in found if covers(one.document(), leaf))

    def statistics(self) -> tuple[KindStatistics, ...]:
        rows = self._connection.execute(
            select(
                entries.c.kind,
                func.count(),
                func.count().filter(entries.c.alarm),
                func.min(entries.c.t_ns),
                func.max(entries.c.t_ns),
            )
            .where(entries.c.log == self.log)
            .group_by(entries.c.kind)
            .order_by(entries.c.kind)
        )
        return tuple(
            KindStatistics(kind=kind, entries=count, alarms=alarms, first_ns=first, last_ns=last)
            for kind, count, alarms, first, last in rows
        )

    def open_box(self, index: int, encryption: KeyEncryptionKey) -> Opened | None:
        """An entry's withheld fields and their salt; None when it has none, or they are erased.

        Raises:
            SealBroken: the box or its key was changed, or another encryption key wrapped it.
        """
        row = self._connection.execute(
            select(payloads.c.box, subject_keys.c.key_id, subject_keys.c.subject, subject_keys.c.wrapped).where(
                payloads.c.log == self.log,
                payloads.c.index == index,
                subject_keys.c.log == self.log,
                subject_keys.c.key_id == payloads.c.key_id,
            )
        ).one_or_none()
        if row is None or row.wrapped is None:
            return None
        return unseal(row.box, encryption.unwrap(row.wrapped, row.key_id, row.subject))

    def erasure_of(self, key_id: str) -> Entry | None:
        """The entry that records the destruction of a data key."""
        index = self._connection.execute(
            select(subject_keys.c.erased_by).filter_by(log=self.log, key_id=key_id)
        ).scalar()
        return None if index is None else self.entry(index)

    def _entries(self, query: Select[Any]) -> tuple[Entry, ...]:
        return tuple(
            Entry(index=index, kind=kind, request_id=request_id, leaf=leaf)
            for index, kind, request_id, leaf in self._connection.execute(query)
        )

    def _filtered(self, wanted: Filter) -> Select[Any]:
        query = _select_entries().where(entries.c.log == self.log)
        for name in ("kind", "request_id", "record_id", "service", "model", "pipeline", "step", "alarm"):
            value = getattr(wanted, name)
            if value is not None:
                query = query.where(entries.c[name] == value)
        if wanted.since_ns is not None:
            query = query.where(entries.c.t_ns >= wanted.since_ns)
        if wanted.until_ns is not None:
            query = query.where(entries.c.t_ns < wanted.until_ns)
        if wanted.first is not None:
            query = query.where(entries.c.index >= wanted.first)
        if wanted.last is not None:
            query = query.where(entries.c.index <= wanted.last)
        return query

    def _check_sizes(self, first: int, second: int) -> None:
        size = self.checkpoint()[0].size
        if not 0 <= first <= second <= size:
            raise BadInput(
                f"tree sizes {first} and {second}",
                why=f"they are not in order within 0 to {size}, the size of the log",
                fix="use sizes of checkpoints that the log gave out",
            )


def _select_entries() -> Select[Any]:
    return select(entries.c.index, entries.c.kind, entries.c.request_id, entries.c.leaf)
