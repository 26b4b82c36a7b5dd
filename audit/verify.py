"""Offline verification of case files and exports: what they hold is in the signed log, unchanged.

Needs the document and the verifier key of the log, from a source that is trusted on its own; nothing of the server.
Imports only the standard library, `cryptography`, `rfc8785` and the pure modules of this package.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Final

from audit.checkpoint import BadCheckpoint, Checkpoint, VerifierKey, open_checkpoint
from audit.document import (
    CASE_FORMAT,
    ENTRY_FORMAT,
    EXPORT_FORMAT,
    BadDocument,
    Json,
    JsonObject,
    canonical,
    commitment,
    object_at,
    parse,
    text_at,
    undisclose,
)
from audit.merkle import HASH_BYTES, leaf_hash, verify_consistency, verify_inclusion
from audit.report import Finding, Report
from audit.summary import Part, covers, summarise

_SALT_BYTES: Final = 32


class _Fault(Exception):
    """One check that failed; becomes a finding."""


def verify_case(document: str | bytes, trusted: VerifierKey) -> Report:
    """Check a case file. A document that is no case file is a finding, never an error."""
    try:
        case = parse(document)
        _members(case, {"format", "request_id", "log", "verifier_key", "checkpoint", "entries", "summary"})
        checkpoint = _head(case, CASE_FORMAT, trusted)
    except (_Fault, BadDocument, BadCheckpoint) as fault:
        return Report(trusted.name, 0, 0, 0, (Finding("case file", _say(fault)),))
    findings: list[Finding] = []
    parts: list[Part] = []
    listed = case["entries"] if isinstance(case["entries"], list) else []
    for place, entry in enumerate(listed):
        try:
            parts.append(check_entry(entry, checkpoint))
        except (_Fault, BadDocument) as fault:
            findings.append(Finding(_name(entry, f"entry at place {place}"), _say(fault)))
    findings += _whole_case(case, parts, complete=len(parts) == len(listed))
    opened = sum(part.data == "disclosed" for part in parts)
    return Report(trusted.name, checkpoint.size, len(parts), opened, tuple(findings))


def verify_export(lines: Iterable[str | bytes], trusted: VerifierKey) -> Report:
    """Check an export, line by line; memory does not grow with its length."""
    source = iter(lines)
    findings: list[Finding] = []
    checked = opened = seen = 0
    try:
        header = parse(next(source, ""))
        _members(header, {"format", "log", "verifier_key", "checkpoint", "first", "last"}, {"filter", "since"})
        checkpoint = _head(header, EXPORT_FORMAT, trusted)
        first, last = _whole(header["first"], "first"), _whole(header["last"], "last", least=-1)
        if "since" in header:
            _extends(header["since"], checkpoint, trusted)
    except (_Fault, BadDocument, BadCheckpoint) as fault:
        return Report(trusted.name, 0, 0, 0, (Finding("line 1", _say(fault)),))
    previous = first - 1
    ended = False
    for number, line in enumerate(source, start=2):
        entry: JsonObject = {}
        try:
            if ended:
                raise _Fault("comes after the end of the export")
            entry = parse(line)
            if "end" in entry:
                ended = True
                _end(entry, seen, previous, last, complete="filter" not in header)
                continue
            seen += 1
            part = check_entry(entry, checkpoint)
            if not previous < part.index <= last or ("filter" not in header and part.index != previous + 1):
                raise _Fault(f"follows entry {previous}: the range {first} to {last} is not whole and in order")
            previous = part.index
            checked += 1
            opened += part.data == "disclosed"
        except (_Fault, BadDocument) as fault:
            findings.append(Finding(_name(entry, f"line {number}"), _say(fault)))
    if not ended:
        findings.append(Finding("export", "it breaks off before its end line"))
    return Report(trusted.name, checkpoint.size, checked, opened, tuple(findings))


def check_entry(entry: Json, checkpoint: Checkpoint) -> Part:
    """Check one entry of a document: leaf, inclusion proof, disclosed values. Raises _Fault or BadDocument."""
    if not isinstance(entry, dict):
        raise _Fault("is no object")
    _members(entry, {"index", "leaf", "proof"}, {"withheld"})
    index = _whole(entry["index"], "index")
    leaf = entry["leaf"]
    if not isinstance(leaf, dict):
        raise _Fault("its leaf is no object")
    if not verify_inclusion(
        leaf=leaf_hash(canonical(leaf)),
        index=index,
        size=checkpoint.size,
        proof=_hashes(entry["proof"]),
        root=checkpoint.root,
    ):
        raise _Fault(f"its leaf and proof do not lead to the signed root of size {checkpoint.size}")
    if leaf.get("format") != ENTRY_FORMAT or leaf.get("log") != checkpoint.origin:
        raise _Fault("its leaf is of another format or log")
    return _check_withheld(Part(index, leaf), entry.get("withheld"))


def _check_withheld(part: Part, shown: Json) -> Part:
    if "withheld" not in part.leaf:
        if shown is not None:
            raise _Fault("shows data that its leaf does not have")
        return part
    fields = object_at(object_at(part.leaf, "withheld"), "fields")
    match shown:
        case {"state": "undisclosed", **rest} if not rest:
            return replace(part, data="undisclosed")
        case {"state": "erased", "by": int(by), **rest} if not rest:
            return replace(part, data="erased", erased_by=by)
        case {"state": "disclosed", "salt": str(salt_hex), "values": dict(values), **rest} if not rest:
            salt = _unhex(salt_hex, _SALT_BYTES)
            if values.keys() != fields.keys():
                raise _Fault("the disclosed fields are not those that its leaf commits to")
            for path, value in values.items():
                if commitment(salt, path, undisclose(value)) != fields[path]:
                    raise _Fault(f"the disclosed value of {path} is not the one that was logged")
            return replace(part, data="disclosed", values=values)
    raise _Fault("its `withheld` is none of disclosed, erased, undisclosed")


def _whole_case(case: JsonObject, parts: list[Part], *, complete: bool) -> list[Finding]:
    """Checks over the entries together. `complete`: each of them passed its own checks."""
    indexes = [part.index for part in parts]
    request_id = text_at(case, "request_id")
    inferences = [part for part in parts if part.kind == "inference" and part.request_id == request_id]
    destroyed = {part.index: set(object_at(part.record, "keys")) for part in parts if part.kind == "erasure"}
    used = {part.key_id for part in parts if part.key_id}
    findings: list[Finding] = []
    if indexes != sorted(set(indexes)):
        findings.append(Finding("case file", "its entries are not in the order of the log, each once"))
    if not parts and complete:
        findings.append(Finding("case file", "it has no entries"))
    for part in parts:
        belongs = (
            part.request_id == request_id
            or (part.kind == "verdict" and any(covers(part.leaf, one.leaf) for one in inferences))
            or not used.isdisjoint(destroyed.get(part.index, ()))
        )
        if not belongs:
            findings.append(Finding(f"entry {part.index}", f"has nothing to do with the request {request_id!r}"))
        if part.data == "erased" and part.key_id not in destroyed.get(part.erased_by or 0, ()):
            findings.append(Finding(f"entry {part.index}", "is shown as erased, but no erasure in the file says so"))
    if complete and not _equal(case["summary"], summarise(request_id, parts)):
        findings.append(Finding("summary", "it is not what the entries say"))
    return findings


def _equal(shown: Json, expected: Json) -> bool:
    try:
        return canonical(shown) == canonical(expected)
    except BadDocument:
        return False


def _head(document: JsonObject, format_: str, trusted: VerifierKey) -> Checkpoint:
    if document["format"] != format_:
        raise _Fault(f"its format is not {format_}")
    checkpoint = open_checkpoint(text_at(document, "checkpoint"), trusted)
    if document["log"] != checkpoint.origin:
        raise _Fault(f"it names another log than its checkpoint, which is of {checkpoint.origin!r}")
    if document["verifier_key"] != str(trusted):
        raise _Fault("it names another verifier key than the one that is trusted")
    return checkpoint


def _extends(since: Json, checkpoint: Checkpoint, trusted: VerifierKey) -> None:
    if not isinstance(since, dict):
        raise _Fault("its `since` is no object")
    _members(since, {"checkpoint", "proof"})
    older = open_checkpoint(text_at(since, "checkpoint"), trusted)
    if not verify_consistency(
        first_size=older.size,
        first_root=older.root,
        second_size=checkpoint.size,
        second_root=checkpoint.root,
        proof=_hashes(since["proof"]),
    ):
        raise _Fault(f"the tree of size {checkpoint.size} is no extension of the older one of size {older.size}")


def _end(line: JsonObject, seen: int, previous: int, last: int, *, complete: bool) -> None:
    if line != {"end": {"entries": seen}}:
        raise _Fault(f"the end line does not say {seen} entries")
    if complete and previous != last:
        raise _Fault(f"the range ends at entry {previous} instead of {last}")


def _members(document: JsonObject, needed: set[str], allowed: Collection[str] = ()) -> None:
    """No member may be absent, and none may stand there that is not verified."""
    names = document.keys()
    if needed - names:
        raise _Fault(f"it lacks {', '.join(sorted(needed - names))}")
    more = names - needed - set(allowed)
    if more:
        raise _Fault(f"it has {', '.join(sorted(more))}, which is no part of the format")


def _whole(value: Json, name: str, *, least: int = 0) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= least:
        return value
    raise _Fault(f"its {name} is no whole number")


def _hashes(values: Json) -> list[bytes]:
    if not isinstance(values, list):
        raise _Fault("its proof is no list")
    return [_unhex(value, HASH_BYTES) for value in values]


def _unhex(value: Json, size: int) -> bytes:
    try:
        data = bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError:
        data = b""
    if len(data) != size or data.hex() != value:
        raise _Fault(f"{value!r} is not {size} bytes in lower-case hex")
    return data


def _name(entry: Json, otherwise: str) -> str:
    index = entry.get("index") if isinstance(entry, dict) else None
    return f"entry {index}" if isinstance(index, int) else otherwise


def _say(fault: Exception) -> str:
    if isinstance(fault, BadDocument | BadCheckpoint):
        return f"{fault.what}: {fault.why}"
    return str(fault)
