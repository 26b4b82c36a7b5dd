"""Erasure of a person's data: their data keys are destroyed, and an entry says so. The log stays whole.

What is erased together: asked for a principal, everything under the principal's keys, and everything that is kept
by request id of the requests found there (explanations, labels); asked for a request, the person who made it, if
the log knows them by a principal, else that request alone.

The destroyed keys are overwritten in the database. Backups and replicas made before still hold them: erase there
too, or let them expire.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Engine, Select, delete, insert, select, text, update

from audit.database import reaching
from audit.document import JsonObject
from audit.entry import ERASURE, Draft
from audit.store import ERASED_FOR_GOOD, AuditStore, LogTransaction
from audit.tables import entries, payloads, subject_keys
from govern.errors import BadInput, NotFound
from govern.ids import uuid7

_SUBJECTS: Final = ("principal:", *ERASED_FOR_GOOD)
#: Parameters of one statement; SQLite takes 32,766 and PostgreSQL 65,535.
_AT_ONCE: Final = 5_000


class Erasure(msgspec.Struct, frozen=True, kw_only=True):
    """What was erased.

    Attributes:
        index: of the entry that records it.
        keys: ids of the destroyed data keys.
        entries: how many entries' withheld fields went with them.
    """

    id: str
    index: int
    keys: tuple[str, ...]
    entries: int


def erase(store: AuditStore, subject: str, *, actor: str, reason: str) -> Erasure:
    """Destroy the data keys of a subject.

    Args:
        subject: `request:<id>`, `principal:<hash>` or `record:<id>`.
        reason: why, for the entry (no personal data: it can never be erased).

    Raises:
        BadInput: the subject has none of these forms.
        NotFound: nothing of it is kept that could be erased.
        StoreUnavailable: nothing was erased; try again.
    """
    if not subject.startswith(_SUBJECTS) or subject in _SUBJECTS:
        raise BadInput(
            f"subject {subject!r}",
            why=f"it does not start with {', '.join(_SUBJECTS)} and an identifier",
            fix="erase request:<request id>, or principal:<principal hash>",
        )
    with store.transaction() as log:
        done = _erase(log, subject, actor=actor, reason=reason)
    _overwrite(store.engine)
    return done


def _erase(log: LogTransaction, subject: str, *, actor: str, reason: str) -> Erasure:
    connection = log.connection
    subjects = _person(connection, log.log, subject)
    keys = _live_keys(connection, log.log, subjects)
    if not keys:
        raise NotFound(
            f"subject {subject!r}",
            why="the log keeps no readable data of it: it was never recorded, or is erased already",
            fix="check the identifier; `govern audit case REQUEST_ID` shows what is kept",
        )
    marks = [
        {"log": log.log, "key_id": uuid7().replace("-", ""), "subject": one, "wrapped": None, "erased_by": log.size}
        for one in sorted(subjects - set(keys.values()))
        if one.startswith(ERASED_FOR_GOOD)
    ]
    destroyed = tuple(sorted(keys))
    # A principal's name goes with the key; a request's is in its entries anyway, and stays as the mark that it is
    # erased for good.
    kept = {id_: subject if subject.startswith(ERASED_FOR_GOOD) else "" for id_, subject in keys.items()}
    named: JsonObject = {**kept, **{str(mark["key_id"]): str(mark["subject"]) for mark in marks}}
    record: JsonObject = {
        "schema_version": 1,
        "id": uuid7(log.now_ns),
        "actor": actor,
        "reason": reason,
        "keys": named,
        "t_erased": str(log.now_ns),
    }
    index = log.size
    request = subject.removeprefix("request:") if subject.startswith("request:") else ""
    log.append([Draft(kind=ERASURE, record=record, concerns=request)])

    gone = 0
    for some in _chunks(destroyed):
        gone += connection.execute(
            delete(payloads).where(payloads.c.log == log.log, payloads.c.key_id.in_(some))
        ).rowcount
        mine = (subject_keys.c.log == log.log) & subject_keys.c.key_id.in_(some)
        connection.execute(update(subject_keys).where(mine).values(wrapped=None, erased_by=index))
        connection.execute(
            update(subject_keys).where(mine, subject_keys.c.subject.startswith("principal:")).values(subject="")
        )
    if marks:
        connection.execute(insert(subject_keys), marks)
    return Erasure(id=str(record["id"]), index=index, keys=destroyed, entries=gone)


def _person(connection: Connection, log: str, subject: str) -> set[str]:
    """The subject and all that must go with it."""
    held = (
        (payloads.c.log == log)
        & (entries.c.log == log)
        & (entries.c.index == payloads.c.index)
        & (subject_keys.c.log == log)
        & (subject_keys.c.key_id == payloads.c.key_id)
    )
    subjects = {subject}
    if subject.startswith("request:"):
        request = subject.removeprefix("request:")
        subjects |= _texts(connection, select(subject_keys.c.subject).where(held, entries.c.request_id == request))
    principals = sorted(one for one in subjects if one.startswith("principal:"))
    requests = select(entries.c.request_id).where(held, subject_keys.c.subject.in_(principals))
    return subjects | {f"request:{one}" for one in _texts(connection, requests) if one}


def _live_keys(connection: Connection, log: str, subjects: Iterable[str]) -> dict[str, str]:
    """Key id -> subject."""
    keys: dict[str, str] = {}
    for some in _chunks(sorted(subjects)):
        rows = connection.execute(
            select(subject_keys.c.key_id, subject_keys.c.subject).where(
                subject_keys.c.log == log, subject_keys.c.subject.in_(some), subject_keys.c.wrapped.is_not(None)
            )
        )
        keys.update({row.key_id: row.subject for row in rows})
    return keys


def _texts(connection: Connection, query: Select[Any]) -> set[str]:
    return set(connection.execute(query.distinct()).scalars())


def _chunks(values: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(values), _AT_ONCE):
        yield values[start : start + _AT_ONCE]


def _overwrite(engine: Engine) -> None:
    """Make the destroyed keys leave the disk: SQLite zeroes freed cells, and its WAL is emptied here; PostgreSQL
    prunes dead rows. Its own WAL and archives keep them until they are recycled."""
    with reaching(engine), engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            connection = connection.execution_options(isolation_level="AUTOCOMMIT")
            connection.execute(text("VACUUM subject_keys, payloads"))
        else:
            raw = connection.connection.cursor()
            raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            raw.close()
