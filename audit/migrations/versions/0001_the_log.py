"""The log: entries, nodes, checkpoints, positions, sealed boxes and keys.

The tables are spelt out rather than taken from `audit.tables`: a migration must make tomorrow what it made today.
"""

from __future__ import annotations

from string import Template

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

#: The role of whoever reads the database directly: grant it to their login (`GRANT govern_auditor TO ...`).
_READER = "govern_auditor"
#: Append-only table -> what makes one of its rows the same row again.
_APPEND_ONLY = {
    "logs": ("log",),
    "entries": ("log", "index"),
    "nodes": ("log", "level", "number"),
    "checkpoints": ("log", "size"),
}
_NO_REPLACE = Template(
    "CREATE TRIGGER ${table}_no_replace BEFORE INSERT ON $table WHEN EXISTS (SELECT 1 FROM $table WHERE $same) "
    "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only: REPLACE on $table'); END"
)
_TABLES = (*_APPEND_ONLY, "positions", "payloads", "subject_keys")


def upgrade() -> None:
    _tables()
    _indexes()
    if op.get_bind().dialect.name == "postgresql":
        _protect_postgresql()
    else:
        _protect_sqlite()


def _tables() -> None:
    op.create_table(
        "logs",
        sa.Column("log", sa.Text, nullable=False),
        sa.Column("namespace", sa.Text, nullable=False),
        sa.Column("verifier_key", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("log"),
        sa.UniqueConstraint("namespace", name="logs_namespace"),
    )
    op.create_table(
        "entries",
        sa.Column("log", sa.Text, nullable=False),
        sa.Column("index", sa.BigInteger, nullable=False),
        sa.Column("leaf", sa.LargeBinary, nullable=False),
        sa.Column("leaf_hash", sa.LargeBinary, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("record_id", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("service", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("pipeline", sa.Text, nullable=False),
        sa.Column("step", sa.Text, nullable=False),
        sa.Column("alarm", sa.Boolean, nullable=False),
        sa.Column("t_ns", sa.BigInteger, nullable=False),
        sa.Column("topic", sa.Text),
        sa.Column("partition", sa.Integer),
        sa.Column("offset", sa.BigInteger),
        sa.Column("window_topic", sa.Text),
        sa.Column("window_partition", sa.Integer),
        sa.Column("window_first", sa.BigInteger),
        sa.Column("window_last", sa.BigInteger),
        sa.PrimaryKeyConstraint("log", "index"),
        sa.UniqueConstraint("log", "topic", "partition", "offset", name="entries_source"),
    )
    op.create_table(
        "nodes",
        sa.Column("log", sa.Text, nullable=False),
        sa.Column("level", sa.Integer, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("log", "level", "number"),
    )
    op.create_table(
        "checkpoints",
        sa.Column("log", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("log", "size"),
    )
    op.create_table(
        "positions",
        sa.Column("log", sa.Text, nullable=False),
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("partition", sa.Integer, nullable=False),
        sa.Column("next_offset", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("log", "topic", "partition"),
    )
    op.create_table(
        "payloads",
        sa.Column("log", sa.Text, nullable=False),
        sa.Column("index", sa.BigInteger, nullable=False),
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("box", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("log", "index"),
    )
    op.create_table(
        "subject_keys",
        sa.Column("log", sa.Text, nullable=False),
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("wrapped", sa.LargeBinary),
        sa.Column("erased_by", sa.BigInteger),
        sa.PrimaryKeyConstraint("log", "key_id"),
    )


def _indexes() -> None:
    for name in ("request_id", "record_id", "kind", "model", "pipeline"):
        op.create_index(f"entries_{name}", "entries", ["log", name, "index"])
    op.create_index("entries_t_ns", "entries", ["log", "t_ns"])
    op.create_index("entries_window", "entries", ["log", "window_topic", "window_partition", "window_last"])
    op.create_index("payloads_key_id", "payloads", ["log", "key_id"])
    op.create_index("subject_keys_subject", "subject_keys", ["log", "subject"])


def _protect_sqlite() -> None:
    for table, key in _APPEND_ONLY.items():
        # INSERT OR REPLACE deletes without firing the DELETE trigger.
        same = " AND ".join(f'"{name}" = NEW."{name}"' for name in key)
        op.execute(_NO_REPLACE.substitute(table=table, same=same))
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, 'the audit log is append-only: {verb} on {table}'); END"
            )


def _protect_postgresql() -> None:
    op.execute(
        "CREATE FUNCTION govern_append_only() RETURNS trigger LANGUAGE plpgsql AS $$ "
        "BEGIN RAISE EXCEPTION 'the audit log is append-only: % on %', TG_OP, TG_TABLE_NAME; END $$"
    )
    for table in _APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION govern_append_only()"
        )
    # Roles belong to the whole server, and making one is a right that this user may lack: then an administrator
    # makes it, and grants as below.
    op.execute(
        f"DO $$ BEGIN CREATE ROLE {_READER} NOLOGIN; "
        "EXCEPTION WHEN duplicate_object OR unique_violation OR insufficient_privilege THEN NULL; END $$"
    )
    op.execute(
        f"DO $$ BEGIN IF EXISTS (SELECT FROM pg_roles WHERE rolname = '{_READER}') THEN "
        f"GRANT SELECT ON {', '.join(_TABLES)} TO {_READER}; END IF; END $$"
    )
