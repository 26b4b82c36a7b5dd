"""Any change to a stored value is found and named."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from audit.fsck import verify_database
from audit.report import Report
from audit.retention import erase
from govern.errors import ConfigError

from .conftest import Log

TABLES = ("logs", "entries", "nodes", "checkpoints", "positions", "payloads", "subject_keys")


@pytest.fixture
def filled(sqlite_log: Log) -> Log:
    """A log with every kind of entry, an erasure, and several checkpoints."""
    messages = sqlite_log.stream.everything()
    sqlite_log.append(messages[:5])
    sqlite_log.append(messages[5:])
    erase(sqlite_log.store, "request:req-1", actor="op", reason="asked")
    sqlite_log.append([sqlite_log.stream.inference(7)])
    return sqlite_log


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Log], Path]:
    """Copies of a log's database, each a file of its own."""

    def copy(log: Log) -> Path:
        target = tmp_path / f"copy-{random.getrandbits(64):x}.db"
        source = str(log.engine.url.database)
        with closing(sqlite3.connect(source)) as from_, closing(sqlite3.connect(target)) as to:
            from_.backup(to)
            to.execute("PRAGMA journal_mode=DELETE")
        return target

    return copy


def check(log: Log, path: Path, *, opening: bool = True) -> Report:
    return verify_database(f"sqlite:///{path}", log.store.verifier, log.keys.encryption if opening else None)


def tamper(path: Path, statement: str, parameters: tuple[Any, ...] = ()) -> int:
    """Change a copy behind the triggers' back, and put them in place again."""
    with closing(sqlite3.connect(path)) as connection, connection:
        triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        changed = connection.execute(statement, parameters).rowcount
        for _, sql in triggers:
            connection.execute(sql)
    return changed


#: Table, rowid, column, value.
Cell = tuple[str, int, str, Any]


def cells(path: Path) -> Iterator[Cell]:
    with closing(sqlite3.connect(path)) as connection:
        for table in TABLES:
            names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            for row in connection.execute(f"SELECT rowid, * FROM {table}").fetchall():
                for name, value in zip(names, row[1:], strict=True):
                    yield table, row[0], name, value


def chosen(cells_: list[Cell], random_: random.Random) -> list[Cell]:
    """Two cells of each column."""
    by_column: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells_:
        by_column.setdefault((cell[0], cell[2]), []).append(cell)
    return [cell for column in by_column.values() for cell in random_.sample(column, min(2, len(column)))]


def altered(value: Any, random_: random.Random) -> Any:
    """The value with one bit of it changed, of the same type where there is one."""
    match value:
        case None:
            return 1
        case int():
            return value ^ 1 << random_.randrange(6) if value not in (0, 1) else 1 - value
        case str():
            if not value:
                return "x"
            at = random_.randrange(len(value))
            return f"{value[:at]}{chr(ord(value[at]) ^ 1)}{value[at + 1 :]}"
        case bytes():
            data = bytearray(value)
            data[random_.randrange(len(data))] ^= 1 << random_.randrange(8)
            return bytes(data)
    raise AssertionError(value)


def test_the_fixture_is_whole(filled: Log, copy_of: Callable[[Log], Path]) -> None:
    report = check(filled, copy_of(filled))
    assert report.ok, report.findings
    assert (report.size, report.entries, report.opened) == (16, 16, 6)


def test_every_changed_cell_is_found(filled: Log, copy_of: Callable[[Log], Path], tmp_path: Path) -> None:
    """One bit of cells of every column of every table, in rows taken by lot."""
    base = copy_of(filled)
    random_ = random.Random(11)
    work = tmp_path / "work.db"
    tried = 0
    for table, rowid, name, value in chosen(list(cells(base)), random_):
        shutil.copy(base, work)
        statement = f'UPDATE {table} SET "{name}" = ? WHERE rowid = ?'
        try:
            changed = tamper(work, statement, (altered(value, random_), rowid))
        except sqlite3.IntegrityError:
            continue  # the database itself holds against it: NOT NULL, UNIQUE
        assert changed == 1
        report = check(filled, work)
        assert not report.ok, (table, rowid, name, value)
        tried += 1
    assert tried > 60


@pytest.mark.parametrize("table", TABLES)
def test_lost_and_added_rows_are_found(filled: Log, copy_of: Callable[[Log], Path], table: str, tmp_path: Path) -> None:
    base = copy_of(filled)
    with closing(sqlite3.connect(base)) as connection:
        rows = [row[0] for row in connection.execute(f"SELECT rowid FROM {table}")]
    work = tmp_path / "work.db"
    for rowid in rows:
        shutil.copy(base, work)
        assert tamper(work, f"DELETE FROM {table} WHERE rowid = ?", (rowid,)) == 1
        assert not check(filled, work).ok, (table, rowid)


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        (
            "UPDATE entries SET leaf = CAST(replace(leaf, '200', '201') AS BLOB) WHERE \"index\" = 3",
            "entry 3: leaf_hash is not",
        ),
        ("UPDATE entries SET alarm = 0 WHERE alarm", "entry 6: column alarm is 0, its leaf says True"),
        ('UPDATE entries SET "index" = 99 WHERE "index" = 15', "entry 99: stands where entry 15 should"),
        ("UPDATE nodes SET hash = zeroblob(32) WHERE level = 1 AND number = 2", "node 2 of level 1: is not the hash"),
        ("DELETE FROM nodes WHERE level = 2 AND number = 0", "node 0 of level 2: is absent"),
        ("INSERT INTO nodes SELECT log, 9, 9, hash FROM nodes LIMIT 1", "node 9 of level 9: is no node"),
        ("UPDATE checkpoints SET note = replace(note, '5', '6') WHERE size = 5", "checkpoint 5"),
        ("UPDATE checkpoints SET size = 6 WHERE size = 5", "checkpoint 6: its note is signed for size 5"),
        ("DELETE FROM checkpoints WHERE size > 14", "entry 14: is covered by no signed checkpoint"),
        ("UPDATE positions SET next_offset = 0", "position of govern.demo.inferences[0]"),
        ('UPDATE payloads SET box = zeroblob(99) WHERE "index" = 0', "entry 0: its sealed box is not"),
        ('DELETE FROM payloads WHERE "index" = 0', "entry 0: its sealed box is absent, and no entry records"),
        ("INSERT INTO payloads SELECT log, 6, key_id, box FROM payloads LIMIT 1", "entry 6: has a sealed box that"),
        ("INSERT INTO payloads SELECT log, 77, key_id, box FROM payloads LIMIT 1", "sealed box 77: belongs to no"),
        ("UPDATE subject_keys SET subject = 'request:x' WHERE subject = 'request:req-0'", "does not open"),
        ("UPDATE subject_keys SET wrapped = x'00' WHERE wrapped IS NULL", "is there, although it was erased"),
        ("UPDATE subject_keys SET wrapped = NULL", "is destroyed by entry None, which does not say so"),
        ("DELETE FROM subject_keys WHERE wrapped IS NULL", "was erased, and its mark is absent"),
        ("UPDATE logs SET namespace = 'other'", "is listed for 'other'"),
        ("UPDATE logs SET log = 'other'", "the database does not list it"),
        ("DROP TRIGGER nope", ""),
    ],
)
def test_findings_name_the_place(filled: Log, copy_of: Callable[[Log], Path], statement: str, named: str) -> None:
    path = copy_of(filled)
    if not named:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("DROP TRIGGER entries_no_update")
        named = "schema: trigger entries_no_update: is absent"
    else:
        assert tamper(path, statement) >= 1
    found = [str(one) for one in check(filled, path).findings]
    assert any(named in one for one in found), found


def test_a_rewritten_history_is_found(filled: Log, copy_of: Callable[[Log], Path]) -> None:
    """Someone with the database but without the signing key drops the last entry and all that tells of it."""
    path = copy_of(filled)
    tamper(path, 'DELETE FROM entries WHERE "index" = 15')
    tamper(path, "DELETE FROM checkpoints WHERE size = 16")
    tamper(path, 'DELETE FROM payloads WHERE "index" = 15')
    tamper(path, "DELETE FROM nodes WHERE level = 4")
    tamper(path, "DELETE FROM nodes WHERE level = 3 AND number = 1")
    found = [str(one) for one in check(filled, path).findings]
    assert found  # positions and nodes still tell; a checkpoint given out before would too


def test_raw_bytes_of_the_file(filled: Log, copy_of: Callable[[Log], Path], tmp_path: Path) -> None:
    """One flipped bit anywhere in the file: found, or every value of every table is still the same."""
    base = copy_of(filled)
    original = base.read_bytes()
    logical = list(cells(base))
    random_ = random.Random(5)
    work = tmp_path / "work.db"
    harmless = 0
    for _ in range(250):
        changed = bytearray(original)
        at = random_.randrange(len(changed))
        changed[at] ^= 1 << random_.randrange(8)
        work.write_bytes(changed)
        try:
            found = not check(filled, work).ok
        except ConfigError:
            found = True  # the schema's version itself was hit
        if not found:
            assert list(cells(work)) == logical, at
            harmless += 1
    assert harmless < 250


def test_one_byte_of_a_leaf_in_the_file(filled: Log, copy_of: Callable[[Log], Path]) -> None:
    path = copy_of(filled)
    data = bytearray(path.read_bytes())
    at = data.index(b'"status_code":200')
    data[at + len(b'"status_code":')] ^= 1
    path.write_bytes(data)
    found = [str(one) for one in check(filled, path, opening=False).findings]
    assert any("leaf_hash is not the hash of its leaf" in one for one in found), found


def test_what_is_no_database(filled: Log, tmp_path: Path) -> None:
    path = tmp_path / "text.db"
    path.write_text("not a database, and longer than a hundred bytes: " * 10)
    assert "cannot be read" in str(check(filled, path).findings)


@pytest.mark.postgres
def test_changes_in_postgresql_are_found(make_log: Callable[[str], Log], postgres_url: str) -> None:
    log = make_log(postgres_url)
    log.append(log.stream.everything())
    with log.engine.begin() as connection:
        connection.execute(text("ALTER TABLE entries DISABLE TRIGGER entries_append_only"))
        connection.execute(text("UPDATE entries SET model = 'x' WHERE index = 2"))
        connection.execute(text("UPDATE entries SET leaf = set_byte(leaf, 9, 65) WHERE index = 4"))
    found = [str(one) for one in verify_database(log.url, log.store.verifier).findings]
    assert "schema: table entries: the trigger that keeps it append-only is absent or disabled" in found
    assert "entry 2: column model is 'x', its leaf says 'income'" in found
    assert "entry 4: leaf_hash is not the hash of its leaf" in found
