"""Erasure: the data is gone, the log is whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import text

from audit.fsck import verify_database
from audit.retention import erase
from audit.verify import verify_case
from govern.errors import BadInput, NotFound

from .conftest import Log
from .test_case import case_file


def test_a_principal_is_erased_with_all_requests(log: Log) -> None:
    log.append(log.stream.everything())
    before = case_file(log, "req-1")
    done = erase(log.store, "principal:principal-one", actor="op", reason="GDPR Art. 17")
    # Of p1: the inferences 1 and 2 and the dead letter of 1; by request id: its explanation and its label.
    assert (len(done.keys), done.entries, done.index) == (2, 5, 14)
    for request_id in ("req-1", "req-2"):
        document = case_file(log, request_id)
        report = verify_case(json.dumps(document), log.store.verifier)
        assert report.ok, report.findings
        assert document["summary"]["inferences"][0]["data"] == "erased"
        assert document["summary"]["inferences"][0]["request"] is None
        assert document["entries"][-1]["leaf"]["kind"] == "erasure"
    assert case_file(log, "req-3")["summary"]["inferences"][0]["data"] == "disclosed"
    # The file that was given out before still proves itself, against its own checkpoint.
    assert verify_case(json.dumps(before), log.store.verifier).ok
    report = verify_database(log.url, log.store.verifier, log.keys.encryption)
    assert report.ok, report.findings
    assert "principal-one" not in json.dumps(case_file(log, "req-1"))
    with log.engine.connect() as connection:
        assert "principal:principal-one" not in list(
            connection.execute(text("SELECT subject FROM subject_keys")).scalars()
        )


def test_by_request_the_person_is_erased(log: Log) -> None:
    log.append(log.stream.everything())
    erase(log.store, "request:req-2", actor="op", reason="asked")
    assert case_file(log, "req-1")["summary"]["inferences"][0]["data"] == "erased"
    with pytest.raises(NotFound, match="principal:principal-one"):
        erase(log.store, "principal:principal-one", actor="op", reason="asked")


def test_what_comes_later_of_an_erased_request_is_not_kept(log: Log) -> None:
    stream = log.stream
    log.append([stream.inference(0), stream.inference(1, principal="principal-one")])
    erase(log.store, "request:req-0", actor="op", reason="asked")
    erase(log.store, "principal:principal-one", actor="op", reason="asked")
    log.append([stream.explanation(0), stream.explanation(1), stream.inference(2, principal="principal-one")])
    for n, state in ((0, "erased"), (1, "erased")):
        document = case_file(log, f"req-{n}")
        assert [one["data"] for one in document["summary"]["explanations"]] == [state]
        assert verify_case(json.dumps(document), log.store.verifier).ok
    # A principal who comes back has a new key.
    assert case_file(log, "req-2")["summary"]["inferences"][0]["data"] == "disclosed"
    report = verify_database(log.url, log.store.verifier, log.keys.encryption)
    assert report.ok, report.findings


def test_nothing_to_erase(log: Log) -> None:
    for subject in ("", "req-1", "request:", "person:1"):
        with pytest.raises(BadInput, match="subject"):
            erase(log.store, subject, actor="op", reason="asked")
    with pytest.raises(NotFound, match="never recorded"):
        erase(log.store, "request:nobody", actor="op", reason="asked")
    assert log.store.append([]).size == 0


def test_the_key_leaves_the_disk(sqlite_log: Log, tmp_path: Path) -> None:
    sqlite_log.append(sqlite_log.stream.everything())
    with sqlite_log.engine.connect() as connection:
        wrapped, box = connection.execute(
            text(
                "SELECT k.wrapped, p.box FROM subject_keys k JOIN payloads p ON p.key_id = k.key_id"
                " WHERE k.subject = 'request:req-4'"
            )
        ).one()

    def on_disk() -> bytes:
        return b"".join(path.read_bytes() for path in tmp_path.glob("audit.db*"))

    assert wrapped in on_disk()
    assert box in on_disk()
    erase(sqlite_log.store, "request:req-4", actor="op", reason="asked")
    assert wrapped not in on_disk()
    assert box not in on_disk()
