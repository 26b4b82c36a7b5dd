"""A log from its settings: found the first time, opened ever after."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from audit import keys
from audit.database import open_engine, sqlite_path
from audit.schema import migrate
from audit.store import AuditStore
from govern.errors import ConfigError


def keys_folder(url: str, named: Path | None) -> Path:
    """The key folder that was named, else the one beside an SQLite file (`<file>.keys`).

    Raises:
        ConfigError: none was named, and the database is no file.
    """
    path = sqlite_path(url)
    if named is not None:
        return named
    if path is not None:
        return path.with_name(f"{path.name}.keys")
    raise ConfigError(
        "key folder of the audit log",
        why="it was not named, and a database server has no folder beside it",
        fix="set GOVERN_AUDIT_KEYS (or --keys) to a folder that only the audit writer can read",
    )


@contextmanager
def opened(url: str, namespace: str, folder: Path, *, origin: str | None = None) -> Iterator[AuditStore]:
    """The store of a log, ready to append; schema, keys and the log itself are made when they are absent.

    Args:
        origin: name of the log in its checkpoints, for a new one; default `govern/<namespace>`.

    Raises:
        ConfigError: database, keys, namespace and origin do not belong together.
        BadCheckpoint: the log was signed with another key.
        StoreUnavailable: the database is away.
    """
    path = sqlite_path(url)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    secrets = keys.load_or_create(folder, origin or keys.origin_in(folder) or f"govern/{namespace}")
    engine = open_engine(url, "write")
    try:
        migrate(engine)
        store = AuditStore(engine, namespace=namespace, keys=secrets)
        store.open()
        yield store
    finally:
        engine.dispose()
