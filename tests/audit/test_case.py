"""Case files and exports: what they say, and that no change to them goes unseen."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.case import case
from audit.checkpoint import Signer, VerifierKey, open_checkpoint
from audit.document import BadDocument, canonical, parse
from audit.export import export
from audit.query import Filter
from audit.retention import erase
from audit.verify import verify_case, verify_export
from govern.errors import BadInput, NotFound

from .conftest import Log

Document = dict[str, Any]


def case_file(log: Log, request_id: str = "req-1", *, disclosed: bool = True) -> Document:
    with log.query().snapshot() as view:
        return case(view, request_id, encryption=log.keys.encryption if disclosed else None)


def findings(document: Document | bytes, key: VerifierKey) -> list[str]:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    return [str(one) for one in verify_case(text, key).findings]


@pytest.fixture
def filled(log: Log) -> Log:
    log.append(log.stream.everything())
    return log


def test_a_case_file_holds_it_all(filled: Log) -> None:
    document = case_file(filled)
    report = verify_case(json.dumps(document, indent=1), filled.store.verifier)
    assert report.ok, report.findings
    kinds = [one["leaf"]["kind"] for one in document["entries"]]
    assert kinds == ["inference", "verdict", "explanation", "feedback", "access", "dead-letter"]
    assert (report.entries, report.opened) == (6, 4)
    summary = document["summary"]
    (inference,) = summary["inferences"]
    assert inference["model"] == "income"
    assert json.loads(inference["request"])["inputs"][0]["data"] == [31]
    assert inference["response"] == '{"outputs": [0.3125]}'
    (verdict,) = summary["verdicts"]
    assert verdict["results"] == [{"instance_id": "inf-1/0", "score": 0.125, "flagged": False}]
    assert verdict["drifted_features"] == ["age"]
    assert verdict["memory_digest"] == "5e" * 32
    assert summary["explanations"][0]["reasons"] == ["the age of 31 lowered it"]
    assert summary["explanations"][0]["anchor"] == ["age <= 31"]
    assert summary["feedback"][0]["label"] == "refused"
    assert [(one["actor"], one["action"]) for one in summary["accesses"]] == [("ada", "case")]
    assert summary["dead_letters"][0]["why"] == "31x is no number"


def test_verdicts_in_force_are_those_whose_window_covers(filled: Log) -> None:
    windows = {
        n: [
            (one["step"], one["window"]["first_offset"]) for one in case_file(filled, f"req-{n}")["summary"]["verdicts"]
        ]
        for n in range(6)
    }
    both = [("outlier", 0), ("drift", 2)]
    assert windows == {0: both[:1], 1: both[:1], 2: both, 3: both, 4: both[1:], 5: both[1:]}


def test_by_the_inferences_own_id(filled: Log) -> None:
    assert case_file(filled, "inf-3")["request_id"] == "req-3"
    with pytest.raises(NotFound, match="request 'nobody'"):
        case_file(filled, "nobody")


def test_undisclosed(filled: Log) -> None:
    document = case_file(filled, disclosed=False)
    report = verify_case(json.dumps(document), filled.store.verifier)
    assert report.ok, report.findings
    assert report.opened == 0
    assert "31x" not in json.dumps(document)
    assert document["summary"]["inferences"][0]["data"] == "undisclosed"


def test_of_another_log(sqlite_log: Log) -> None:
    sqlite_log.append(sqlite_log.stream.everything())
    stranger = Signer(sqlite_log.keys.signer.name, Ed25519PrivateKey.generate())
    (finding,) = findings(case_file(sqlite_log), stranger.verifier)
    assert "no signature of the key" in finding


def test_no_flipped_bit_goes_unseen(sqlite_log: Log) -> None:
    """Every bit in turn, of a small case file: either the JSON says the same, or the change is found."""
    sqlite_log.append([sqlite_log.stream.inference(0), sqlite_log.stream.feedback(0)])
    document = case_file(sqlite_log, "req-0")
    original = json.dumps(document, separators=(",", ":")).encode()
    key = sqlite_log.store.verifier
    assert verify_case(original, key).ok
    random_ = random.Random(7)
    for at in range(len(original)):
        changed = bytearray(original)
        changed[at] ^= 1 << random_.randrange(8)
        try:
            same = canonical(parse(bytes(changed))) == canonical(document)
        except (BadDocument, UnicodeDecodeError):
            same = False
        assert same or not verify_case(bytes(changed), key).ok, bytes(changed[max(0, at - 20) : at + 20])


def edits() -> dict[str, Callable[[Document], object]]:
    """Changes that someone might make on purpose, and what the report then names."""
    return {
        "entry 1: its leaf and proof": lambda d: d["entries"][0]["leaf"]["record"].update(status_code=500),
        "entry 2: its leaf and proof": lambda d: d["entries"][0].update(index=2),
        "entry 1: has nothing to do": lambda d: d.update(request_id="req-2"),
        "the disclosed value of request.body": lambda d: d["entries"][0]["withheld"]["values"]["request.body"].update(
            value="{}"
        ),
        "the disclosed fields are not": lambda d: d["entries"][0]["withheld"]["values"].pop("request.body"),
        "the disclosed value of": lambda d: d["entries"][0]["withheld"].update(salt="00" * 32),
        "no erasure in the file says so": lambda d: d["entries"][0].update(withheld={"state": "erased", "by": 3}),
        "summary": lambda d: d["summary"]["inferences"][0].update(model="another"),
        "summary: ": lambda d: d["summary"].update(more=1),
        "it has comment": lambda d: d.update(comment="trust me"),
        "it lacks summary": lambda d: d.pop("summary"),
        "is no part of the format": lambda d: d["entries"][0].update(note="x"),
        "not in the order of the log": lambda d: d["entries"].reverse(),
        "each once": lambda d: d["entries"].append(d["entries"][-1]),
        "its format is not": lambda d: d.update(format="x"),
        "names another log": lambda d: d.update(log="x"),
        "names another verifier key": lambda d: d.update(verifier_key="x"),
        "lower-case hex": lambda d: d["entries"][0]["proof"].append("zz"),
        "its proof is no list": lambda d: d["entries"][0].update(proof=None),
        "is no whole number": lambda d: d["entries"][0].update(index=True),
        "is no object": lambda d: d["entries"].append(3),
        "shows data that its leaf does not have": lambda d: d["entries"][1].update(withheld={"state": "undisclosed"}),
        "is none of disclosed": lambda d: d["entries"][0].pop("withheld"),
        "it has no entries": lambda d: d.update(entries=[]),
        "does not fit the text": lambda d: d.update(checkpoint=d["checkpoint"].replace("\n14\n", "\n15\n")),
    }


@pytest.mark.parametrize("named", edits())
def test_edits_are_named(sqlite_log: Log, named: str) -> None:
    sqlite_log.append(sqlite_log.stream.everything())
    document = case_file(sqlite_log)
    assert findings(document, sqlite_log.store.verifier) == []
    edits()[named](document)
    found = findings(document, sqlite_log.store.verifier)
    assert any(named in one for one in found), found


def test_another_requests_entry_cannot_be_slipped_in(sqlite_log: Log) -> None:
    sqlite_log.append(sqlite_log.stream.everything())
    mine, other = case_file(sqlite_log), case_file(sqlite_log, "req-4")
    mine["entries"] = sorted([*mine["entries"], other["entries"][0]], key=lambda one: one["index"])
    assert any("entry 4: has nothing to do with" in one for one in findings(mine, sqlite_log.store.verifier))


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b"{" * 99_999, b"\xff"])
def test_what_is_no_case_file(sqlite_log: Log, text: bytes) -> None:
    assert len(findings(text, sqlite_log.store.verifier)) == 1


def lines_of(
    log: Log, wanted: Filter | None = None, *, since: str | None = None, disclosed: bool = True
) -> list[bytes]:
    with log.query().snapshot() as view:
        encryption = log.keys.encryption if disclosed else None
        return list(export(view, wanted or Filter(), encryption=encryption, since=since))


def test_an_export_of_the_whole_log(log: Log) -> None:
    messages = log.stream.everything()
    older = log.store.append(log.drafts(messages[:5])).note
    log.append(messages[5:])
    lines = lines_of(log, since=older)
    report = verify_export(lines, log.store.verifier)
    assert report.ok, report.findings
    assert (report.entries, report.opened, report.size) == (14, 10, 14)
    assert open_checkpoint(parse(lines[0])["checkpoint"], log.store.verifier).size == 14  # type: ignore[arg-type]
    erase(log.store, "request:req-1", actor="op", reason="asked")
    report = verify_export(lines_of(log), log.store.verifier)
    assert report.ok
    assert report.entries == 15
    assert report.opened < 10


def test_exports_of_a_part(sqlite_log: Log) -> None:
    sqlite_log.append(sqlite_log.stream.everything())
    key = sqlite_log.store.verifier
    for wanted, count in (
        (Filter(first=3, last=7), 5),
        (Filter(first=14), 0),
        (Filter(kind="verdict"), 2),
        (Filter(model="income", alarm=True), 1),
        (Filter(since_ns=1_700_000_000_123_456_789, first=6), 7),
        (Filter(request_id="req-1"), 5),
    ):
        report = verify_export(lines_of(sqlite_log, wanted, disclosed=False), key)
        assert report.ok, report.findings
        assert report.entries == count
    for wanted in (Filter(first=15), Filter(last=14), Filter(first=7, last=3)):
        with pytest.raises(BadInput, match="range"):
            lines_of(sqlite_log, wanted)
    with pytest.raises(BadInput, match="signed note"):
        lines_of(sqlite_log, since="no note")


def test_a_changed_export_is_found(sqlite_log: Log) -> None:
    messages = sqlite_log.stream.everything()
    older = sqlite_log.store.append(sqlite_log.drafts(messages[:5])).note
    sqlite_log.append(messages[5:])
    key = sqlite_log.store.verifier
    lines = lines_of(sqlite_log, since=older)

    def found(changed: list[bytes]) -> str:
        return "; ".join(map(str, verify_export(changed, key).findings))

    assert found(lines) == ""
    assert "breaks off" in found(lines[:-1])
    assert "breaks off" in found(lines[:1])
    assert "line 1" in found([])
    assert "does not say 13" in found([*lines[:4], *lines[5:]])
    assert "not whole and in order" in found([*lines[:4], lines[5], lines[4], *lines[6:]])
    assert "comes after the end" in found([*lines, lines[3]])
    assert "entry 2: its leaf and proof" in found(
        [*lines[:3], lines[3].replace(b'"200"', b'"201"').replace(b"200", b"201"), *lines[4:]]
    )
    header = parse(lines[0])
    header["since"]["proof"][0] = "00" * 32  # type: ignore[index,call-overload]
    assert "no extension of the older one" in found([json.dumps(header).encode(), *lines[1:]])
    random_ = random.Random(3)
    for number in range(len(lines)):
        for _ in range(40):
            changed = bytearray(lines[number])
            changed[random_.randrange(len(changed) - 1)] ^= 1 << random_.randrange(8)
            report = verify_export([*lines[:number], bytes(changed), *lines[number + 1 :]], key)
            try:
                same = canonical(parse(bytes(changed))) == canonical(parse(lines[number]))
            except (BadDocument, UnicodeDecodeError):
                same = False
            assert same or not report.ok


def test_verification_needs_no_server() -> None:
    """Nothing beyond the standard library, cryptography and rfc8785 is imported."""
    program = (
        "import sys; before = set(sys.modules); import audit.verify; "
        "print(' '.join(sorted({name.split('.')[0] for name in set(sys.modules) - before})))"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    third = {name for name in out if name not in sys.stdlib_module_names and not name.startswith("_")}
    assert third == {"audit", "govern", "cryptography", "rfc8785"}
