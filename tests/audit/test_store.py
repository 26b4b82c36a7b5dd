"""The contract of a store, on SQLite and on PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, event, exc, text

from audit import keys
from audit.checkpoint import BadCheckpoint, open_checkpoint
from audit.database import Mode, StoreUnavailable, open_engine
from audit.entry import draft
from audit.fsck import verify_database
from audit.merkle import EMPTY_ROOT, leaf_hash, verify_consistency, verify_inclusion
from audit.query import AuditQuery, Filter
from audit.schema import migrate, schema_is_current
from audit.store import AuditStore, LogDamaged
from audit.tables import metadata
from govern.bus.protocol import Partition
from govern.errors import BadInput, ConfigError, NotFound

from .conftest import Log


def test_the_schema_is_the_one_of_the_tables(log: Log) -> None:
    migrate(log.engine)
    with log.engine.connect() as connection:
        assert schema_is_current(connection)
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_an_empty_log_is_whole(log: Log) -> None:
    report = verify_database(log.url, log.store.verifier, log.keys.encryption)
    assert report.ok, report.findings
    assert (report.size, report.entries) == (0, 0)
    with log.query().snapshot() as view:
        assert view.checkpoint()[0].root == EMPTY_ROOT


def test_append_proves_itself(log: Log) -> None:
    messages = log.stream.everything()
    old = log.store.append(log.drafts(messages[:5]))
    new = log.store.append(log.drafts(messages[5:]))
    assert (len(old.recorded), len(new.recorded), new.size) == (5, len(messages) - 5, len(messages))
    first, second = (open_checkpoint(one.note, log.store.verifier) for one in (old, new))
    with log.query().snapshot() as view:
        assert view.checkpoint() == (second, new.note)
        assert view.note(5) == old.note
        for index, message in enumerate(messages):
            entry = view.entry(index)
            assert entry.kind == draft(message).kind
            assert verify_inclusion(
                leaf=leaf_hash(entry.leaf),
                index=index,
                size=second.size,
                proof=view.inclusion(index, second.size),
                root=second.root,
            )
        assert verify_consistency(
            first_size=first.size,
            first_root=first.root,
            second_size=second.size,
            second_root=second.root,
            proof=view.consistency(first.size, second.size),
        )
        for ask in (lambda: view.inclusion(3, 3), lambda: view.inclusion(0, 99), lambda: view.consistency(3, 2)):
            with pytest.raises(BadInput):
                ask()
        for find in (lambda: view.entry(99), lambda: view.note(99)):
            with pytest.raises(NotFound):
                find()
    report = verify_database(log.url, log.store.verifier, log.keys.encryption)
    assert report.ok, report.findings
    assert report.entries == len(messages)
    assert report.opened == sum(bool(draft(one).withheld) for one in messages)


def test_recorded_once_however_often_delivered(log: Log) -> None:
    messages = log.stream.everything()
    assert log.append(messages[:7]) == 7
    assert log.append(messages[4:]) == len(messages) - 7
    again = log.store.append(log.drafts(messages))
    assert (again.recorded, again.size) == ((), len(messages))
    expected: dict[Partition, int] = {}
    for one in messages:
        expected[one.tp] = one.offset + 1
    assert log.store.positions() == expected
    assert log.store.append([]).size == len(messages)


def test_a_failed_append_leaves_nothing(log: Log) -> None:
    messages = log.stream.everything()
    log.append(messages[:3])
    before = log.store.positions()

    class Stop(Exception):
        pass

    def stop() -> None:
        with log.store.transaction() as held:
            held.append(log.drafts(messages[3:]))
            raise Stop

    with pytest.raises(Stop):
        stop()
    assert log.store.positions() == before
    assert verify_database(log.url, log.store.verifier, log.keys.encryption).entries == 3
    assert log.append(messages) == len(messages) - 3


@pytest.mark.parametrize("table", ["logs", "entries", "nodes", "checkpoints"])
def test_the_database_itself_refuses_changes(log: Log, table: str) -> None:
    log.append(log.stream.everything())
    column = {"logs": "namespace", "entries": "kind", "nodes": "hash", "checkpoints": "note"}[table]
    statements = [f"UPDATE {table} SET {column} = {column}", f"DELETE FROM {table}"]
    if log.engine.dialect.name == "postgresql":
        statements.append(f"TRUNCATE {table}")
    else:
        statements.append(f"INSERT OR REPLACE INTO {table} SELECT * FROM {table} LIMIT 1")
    for statement in statements:
        with pytest.raises(exc.DBAPIError, match="append-only"), log.engine.begin() as connection:
            connection.execute(text(statement))


def test_reading_connections_cannot_write(log: Log) -> None:
    log.append(log.stream.everything())
    engine = log.reader
    for statement in ("DELETE FROM payloads", "INSERT INTO logs VALUES ('a', 'b', 'c')", "CREATE TABLE t (a INTEGER)"):
        with pytest.raises(exc.DBAPIError, match=r"read-?only"), engine.begin() as connection:
            connection.execute(text(statement))


@pytest.mark.postgres
def test_the_auditor_role_reads_and_cannot_write(make_log: Callable[[str], Log], postgres_url: str) -> None:
    log = make_log(postgres_url)
    log.append(log.stream.everything())
    with log.engine.connect() as connection:
        connection.execute(text("SET ROLE govern_auditor"))
        assert connection.execute(text("SELECT count(*) FROM entries")).scalar() == 14
        with pytest.raises(exc.ProgrammingError, match="permission denied"):
            connection.execute(text("DELETE FROM payloads"))


def test_two_writers_never_fork(log: Log) -> None:
    """Two stores append the same stream at the same time, in batches that overlap."""
    messages = [log.stream.inference(n) for n in range(160)]
    errors: list[BaseException] = []
    barrier = threading.Barrier(2)

    def write(size: int) -> None:
        try:
            engine = open_engine(log.url, "write")
            store = AuditStore(engine, namespace=log.namespace, keys=log.keys)
            barrier.wait()
            for start in range(0, len(messages), size):
                store.append(log.drafts(messages[max(0, start - 3) : start + size]))
            engine.dispose()
        except BaseException as error:  # noqa: BLE001 - handed to the test's own thread
            errors.append(error)

    threads = [threading.Thread(target=write, args=(size,)) for size in (7, 11)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    report = verify_database(log.url, log.store.verifier, log.keys.encryption)
    assert report.ok, report.findings
    assert report.entries == len(messages)
    with log.query().snapshot() as view:
        assert [one.request_id for one in view.all(Filter())] == [f"req-{n}" for n in range(160)]


def test_several_logs_in_one_database(log: Log, make_log: Callable[..., Log]) -> None:
    other = make_log(log.url, "second", "govern.example/second")
    log.append(log.stream.everything())
    assert other.store.positions() == {}
    with other.query().snapshot() as view:
        assert list(view.all(Filter())) == []
    for one, entries in ((log, 14), (other, 0)):
        report = verify_database(one.url, one.store.verifier, one.keys.encryption)
        assert report.ok, report.findings
        assert report.entries == entries


def test_a_log_is_opened_by_its_own_origin_and_key(log: Log, make_log: Callable[..., Log], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="origin"):
        make_log(log.url, log.namespace, "govern.example/other")
    foreign = keys.load_or_create(tmp_path / "foreign", log.keys.signer.name)
    with pytest.raises(BadCheckpoint, match="no signature of the key"):
        AuditStore(log.engine, namespace=log.namespace, keys=foreign).open()


def test_without_a_schema(sqlite_log: Log, tmp_path: Path, engine_of: Callable[[str, Mode], Engine]) -> None:
    fresh = f"sqlite:///{tmp_path}/fresh.db"
    store = AuditStore(engine_of(fresh, "write"), namespace="demo", keys=sqlite_log.keys)
    with pytest.raises(ConfigError, match=r"fresh\.db"):
        store.open()
    with pytest.raises(NotFound, match="namespace 'other'"):
        AuditQuery(sqlite_log.reader, namespace="other").require()


@pytest.mark.parametrize(
    "url", ["", "sqlite://", "sqlite:///relative.db", "mysql://host/db", "no url", "postgresql://host"]
)
def test_urls(url: str) -> None:
    with pytest.raises(ConfigError, match="audit database URL"):
        open_engine(url, "read")


def test_a_damaged_tree_is_not_extended(sqlite_log: Log) -> None:
    sqlite_log.append(sqlite_log.stream.everything())
    with sqlite_log.engine.begin() as connection:
        connection.execute(text("DROP TRIGGER nodes_no_update"))
        connection.execute(text("UPDATE nodes SET hash = zeroblob(32) WHERE level = 3"))
    with pytest.raises(LogDamaged, match="tree of the log"):
        sqlite_log.append([sqlite_log.stream.config()])


def test_the_work_of_a_proof_grows_with_the_logarithm(sqlite_log: Log) -> None:
    """Counted in instructions of SQLite's machine, so that no scan of the tree can hide in a query."""

    def work(size: int) -> int:
        steps = 0

        def step() -> None:
            nonlocal steps
            steps += 1

        with sqlite_log.query().snapshot() as view:
            raw = view._connection.connection.driver_connection
            assert raw is not None
            raw.set_progress_handler(step, 1)
            view.inclusion(size // 3, size)
            view.consistency(size // 3, size)
            raw.set_progress_handler(None, 0)
        return steps

    sqlite_log.append([sqlite_log.stream.inference(n) for n in range(127)])
    small = work(127)
    sqlite_log.append([sqlite_log.stream.inference(n) for n in range(127, 2047)])
    assert work(2047) < 2.5 * small


def test_a_full_disk_loses_nothing(sqlite_log: Log, engine_of: Callable[[str, Mode], Engine]) -> None:
    """SQLite's own SQLITE_FULL: the file may not grow past a number of pages."""
    sqlite_log.append([sqlite_log.stream.inference(0)])
    limit = [0]

    def on_connect(connection: object, _: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {limit[0]}")  # type: ignore[attr-defined]

    full = engine_of(sqlite_log.url, "write")
    event.listen(full, "connect", on_connect)
    with sqlite_log.engine.connect() as connection:
        limit[0] = connection.execute(text("PRAGMA page_count")).scalar_one()
    store = AuditStore(full, namespace=sqlite_log.namespace, keys=sqlite_log.keys)
    messages = [sqlite_log.stream.inference(n) for n in range(1, 200)]
    with pytest.raises(StoreUnavailable, match="full"):
        store.append(sqlite_log.drafts(messages))
    assert sqlite_log.append(messages) == 199
    assert verify_database(sqlite_log.url, sqlite_log.store.verifier, sqlite_log.keys.encryption).ok


def test_without_its_host(sqlite_log: Log, engine_of: Callable[[str, Mode], Engine]) -> None:
    engine = engine_of("postgresql+psycopg://nobody@127.0.0.1:1/none", "write")
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1"):
        AuditStore(engine, namespace="demo", keys=sqlite_log.keys).append([])
