"""The tables. Migrations in `audit/migrations` make them; a test holds the two against each other.

`entries`, `nodes` and `checkpoints` are append-only, and triggers see to it. What may go is what must be able to:
the sealed boxes (`payloads`) and the wrapped data keys (`subject_keys`) of a person who is erased.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

#: Tables whose rows never change and never go.
APPEND_ONLY: Final = ("logs", "entries", "nodes", "checkpoints")

metadata: Final = MetaData()


def _column(name: str, type_: type, *, key: bool = False, null: bool = False) -> Column[object]:
    return Column(name, type_, primary_key=key, nullable=null, autoincrement=False)


#: The logs that the database holds: one for each namespace.
logs: Final = Table(
    "logs",
    metadata,
    _column("log", Text, key=True),
    _column("namespace", Text),
    _column("verifier_key", Text),
    UniqueConstraint("namespace", name="logs_namespace"),
)

#: One row for each leaf. All columns after `leaf_hash` repeat what the leaf says (`audit.entry.columns`).
entries: Final = Table(
    "entries",
    metadata,
    _column("log", Text, key=True),
    _column("index", BigInteger, key=True),
    _column("leaf", LargeBinary),
    _column("leaf_hash", LargeBinary),
    _column("kind", Text),
    _column("record_id", Text),
    _column("request_id", Text),
    _column("service", Text),
    _column("model", Text),
    _column("pipeline", Text),
    _column("step", Text),
    _column("alarm", Boolean),
    _column("t_ns", BigInteger),
    _column("topic", Text, null=True),
    _column("partition", Integer, null=True),
    _column("offset", BigInteger, null=True),
    _column("window_topic", Text, null=True),
    _column("window_partition", Integer, null=True),
    _column("window_first", BigInteger, null=True),
    _column("window_last", BigInteger, null=True),
    UniqueConstraint("log", "topic", "partition", "offset", name="entries_source"),
    Index("entries_request_id", "log", "request_id", "index"),
    Index("entries_record_id", "log", "record_id", "index"),
    Index("entries_kind", "log", "kind", "index"),
    Index("entries_model", "log", "model", "index"),
    Index("entries_pipeline", "log", "pipeline", "index"),
    Index("entries_t_ns", "log", "t_ns"),
    Index("entries_window", "log", "window_topic", "window_partition", "window_last"),
)

#: Roots of complete subtrees, level 1 and up (`audit.tree.Node`); level 0 is `entries.leaf_hash`.
nodes: Final = Table(
    "nodes",
    metadata,
    _column("log", Text, key=True),
    _column("level", Integer, key=True),
    _column("number", BigInteger, key=True),
    _column("hash", LargeBinary),
)

#: Signed notes, one for each append.
checkpoints: Final = Table(
    "checkpoints",
    metadata,
    _column("log", Text, key=True),
    _column("size", BigInteger, key=True),
    _column("note", Text),
)

#: The next offset to read of each partition: where the writer goes on after a crash.
positions: Final = Table(
    "positions",
    metadata,
    _column("log", Text, key=True),
    _column("topic", Text, key=True),
    _column("partition", Integer, key=True),
    _column("next_offset", BigInteger),
)

#: Sealed boxes (`audit.seal`) of the entries with withheld fields.
payloads: Final = Table(
    "payloads",
    metadata,
    _column("log", Text, key=True),
    _column("index", BigInteger, key=True),
    _column("key_id", Text),
    _column("box", LargeBinary),
    Index("payloads_key_id", "log", "key_id"),
)

#: Wrapped data keys. Of an erased one `wrapped` is null and `erased_by` is the index of the entry that says so;
#: a request's row stays as a mark that later records of it are not kept readable either.
subject_keys: Final = Table(
    "subject_keys",
    metadata,
    _column("log", Text, key=True),
    _column("key_id", Text, key=True),
    _column("subject", Text),
    _column("wrapped", LargeBinary, null=True),
    _column("erased_by", BigInteger, null=True),
    Index("subject_keys_subject", "log", "subject"),
)
