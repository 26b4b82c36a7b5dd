"""The database's schema: brought up to date, and compared with what it should be."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, text

from audit.database import name_of, reaching
from audit.report import Finding
from audit.tables import APPEND_ONLY
from govern.errors import ConfigError

#: Serialises migrations started by several processes at once (any fixed number that nobody else uses).
_MIGRATION_LOCK: Final = 0x676F7665726E  # "govern"


def migrate(engine: Engine) -> None:
    """Bring the schema up to date. Several processes may do so at once.

    Raises:
        StoreUnavailable: the database is away.
    """
    config = _config()
    with reaching(engine), engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def schema_is_current(connection: Connection) -> bool:
    current = MigrationContext.configure(connection).get_current_revision()
    return current == ScriptDirectory.from_config(_config()).get_current_head()


def require_current_schema(engine: Engine) -> None:
    """Raises ConfigError when the database holds no audit log, or one of another release."""
    with reaching(engine), engine.connect() as connection:
        if not schema_is_current(connection):
            raise ConfigError(
                f"database {name_of(engine)}",
                why="it holds no audit log, or one made by another release",
                fix="run `govern audit init --db URL` once",
            )


def schema_findings(connection: Connection) -> list[Finding]:
    """What of the schema is not as the migrations make it: above all, triggers that were taken away."""
    if connection.dialect.name == "postgresql":
        rows = connection.execute(
            text(
                "SELECT c.relname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid"
                " WHERE t.tgenabled IN ('O', 'A') AND t.tgname = c.relname || '_append_only'"
                " AND pg_table_is_visible(c.oid)"
            )
        )
        lacking = sorted(set(APPEND_ONLY) - set(rows.scalars()))
        return [
            Finding(f"schema: table {name}", "the trigger that keeps it append-only is absent or disabled")
            for name in lacking
        ]
    damage = [str(line) for (line,) in connection.execute(text("PRAGMA integrity_check")) if line != "ok"]
    pristine = create_engine("sqlite://")
    try:
        migrate(pristine)
        with pristine.connect() as other:
            expected = _sqlite_schema(other)
    finally:
        pristine.dispose()
    actual = _sqlite_schema(connection)
    return [Finding("database file", line) for line in damage] + [
        Finding(f"schema: {name}", "is absent, or is not as govern makes it")
        for name in sorted(expected.keys() | actual.keys())
        if expected.get(name) != actual.get(name)
    ]


def _sqlite_schema(connection: Connection) -> dict[str, str]:
    rows = connection.execute(text("SELECT type || ' ' || name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"))
    return {str(name): str(sql) for name, sql in rows}


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    return config
