"""Connections to the audit database: SQLite (one machine) or PostgreSQL, for writing or for reading only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal
from urllib.parse import quote, unquote

from sqlalchemy import Connection, Engine, create_engine, event, exc
from sqlalchemy.engine import URL, make_url
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from govern.errors import ConfigError, Unavailable

Mode = Literal["write", "read"]

#: How long a writer waits for another one's transaction on the same SQLite file. A batch takes well under a second.
_SQLITE_BUSY_MS: Final = 30_000
#: PostgreSQL gives up connecting after this long; the writer then waits and tries again.
_CONNECT_TIMEOUT_S: Final = 5


class StoreUnavailable(Unavailable):
    """The database cannot be used now: away, locked, or out of space. The same call may succeed later."""

    code = "audit-store-unavailable"


def open_engine(url: str, mode: Mode) -> Engine:
    """An engine for `sqlite:////absolute/file.db` or `postgresql+psycopg://user@host/database`.

    A reading engine cannot write, whatever it is asked: SQLite opens the file with `mode=ro`, PostgreSQL runs every
    transaction read only (give it a login with the role `govern_auditor` besides).

    Raises:
        ConfigError: the URL names neither.
    """
    parsed = _parse(url)
    if parsed.get_backend_name() == "sqlite":
        return _open_sqlite(Path(parsed.database or ""), mode)
    options = "-c default_transaction_read_only=on" if mode == "read" else "-c synchronous_commit=on"
    return create_engine(
        parsed.set(drivername="postgresql+psycopg"),
        isolation_level="REPEATABLE READ" if mode == "read" else "READ COMMITTED",
        pool_pre_ping=True,
        connect_args={"options": options, "connect_timeout": _CONNECT_TIMEOUT_S},
    )


def sqlite_path(url: str) -> Path | None:
    """The file of an SQLite URL; None for another database."""
    parsed = _parse(url)
    return Path(parsed.database or "") if parsed.get_backend_name() == "sqlite" else None


def name_of(engine: Engine) -> str:
    """The database as a person names it: an SQLite file's path, another's URL without its password."""
    if engine.dialect.name == "sqlite":
        return unquote(str(engine.url.database)).removeprefix("file:").partition("?")[0]
    return engine.url.render_as_string(hide_password=True)


@contextmanager
def reaching(engine: Engine) -> Iterator[None]:
    """Turn the driver's passing failures into StoreUnavailable; errors of our own making pass unchanged."""
    try:
        yield
    except (exc.OperationalError, exc.InterfaceError, exc.TimeoutError) as error:
        cause = getattr(error, "orig", None) or error
        raise StoreUnavailable(
            f"audit database {name_of(engine)}",
            why=" ".join(str(cause).split()),
            fix="see that it runs, can be reached, and has space left",
        ) from error
    except exc.DBAPIError as error:
        if not error.connection_invalidated:
            raise
        raise StoreUnavailable(
            f"audit database {name_of(engine)}",
            why=" ".join(str(error.orig).split()),
            fix="see that it runs and can be reached",
        ) from error


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except exc.ArgumentError:
        parsed = None
    if parsed is not None and parsed.database:
        if parsed.get_backend_name() == "sqlite" and Path(parsed.database).is_absolute():
            return parsed
        if parsed.get_backend_name() == "postgresql":
            return parsed
    raise ConfigError(
        f"audit database URL {url.partition('@')[2] or url!r}",
        why="it is neither sqlite:////absolute/file.db nor postgresql+psycopg://user:password@host/database",
        fix="set GOVERN_AUDIT_DB (or --db) to one of the two forms",
    )


def _open_sqlite(path: Path, mode: Mode) -> Engine:
    if mode == "write":
        url, arguments = f"sqlite:///{path}", {"timeout": _SQLITE_BUSY_MS / 1000}
    else:
        url, arguments = f"sqlite:///file:{quote(str(path))}?mode=ro&uri=true", {"timeout": _SQLITE_BUSY_MS / 1000}
    # A reader opens the file anew each time: a connection kept open would hold on to a file that was replaced.
    engine = create_engine(url, connect_args=arguments, poolclass=NullPool if mode == "read" else None)

    def on_connect(connection: object, _: ConnectionPoolEntry) -> None:
        # The driver's own transaction control begins too late for BEGIN IMMEDIATE: SQLAlchemy's `begin` does it.
        connection.isolation_level = None  # type: ignore[attr-defined]
        if mode == "write":
            for pragma in (
                "journal_mode=WAL",
                # An answered append survives the loss of power, not only of the process.
                "synchronous=FULL",
                # A destroyed key is overwritten in the file, not only unlinked.
                "secure_delete=ON",
            ):
                connection.execute(f"PRAGMA {pragma}")  # type: ignore[attr-defined]

    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if mode == "write" else "BEGIN")

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", on_begin)
    return engine
