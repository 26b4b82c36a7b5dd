"""A range of the log as NDJSON that proves itself: one header line, one line for each entry, one end line.

{"format": "io.govern.export.v1", "log", "verifier_key", "checkpoint", "first", "last",
 "filter": {...},                                 absent: every entry of the range is there, and that is checked
 "since": {"checkpoint", "proof": [hex ...]}}     the checkpoint is an extension of an older one
{"index", "leaf": {...}, "proof": [hex ...], "withheld": {...}}
{"end": {"entries": n}}
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from audit.case import proved, withheld
from audit.checkpoint import open_checkpoint
from audit.document import EXPORT_FORMAT, JsonObject, canonical
from audit.query import Filter, View
from audit.seal import KeyEncryptionKey
from govern.errors import BadInput


def export(
    view: View,
    wanted: Filter,
    *,
    encryption: KeyEncryptionKey | None = None,
    since: str | None = None,
) -> Iterator[bytes]:
    """The lines of an export, each with its newline. Lazy: the snapshot must stay open until the last.

    Args:
        wanted: `first` and `last` bound the range (default: the whole log); other conditions make it a selection.
        encryption: opens the withheld fields; None leaves them undisclosed.
        since: an older checkpoint of this log (signed note); the header then proves that nothing before it changed.

    Raises:
        BadInput: the range is not within the log, or `since` is no checkpoint of it.
    """
    checkpoint, note = view.checkpoint()
    first = 0 if wanted.first is None else wanted.first
    last = checkpoint.size - 1 if wanted.last is None else wanted.last
    if not 0 <= first <= last + 1 <= checkpoint.size:
        raise BadInput(
            f"range {first} to {last}",
            why=f"the log has entries 0 to {checkpoint.size - 1}",
            fix="ask for a range within the log",
        )
    header: JsonObject = {
        "format": EXPORT_FORMAT,
        "log": view.log,
        "verifier_key": str(view.key),
        "checkpoint": note,
        "first": first,
        "last": last,
    }
    conditions = {
        name: value
        for name, value in msgspec.structs.asdict(wanted).items()
        if value is not None and name not in ("first", "last")
    }
    if conditions:
        header["filter"] = {name: str(value) if name.endswith("_ns") else value for name, value in conditions.items()}
    if since is not None:
        older = open_checkpoint(since, view.key)
        proof = view.consistency(older.size, checkpoint.size)
        header["since"] = {"checkpoint": since, "proof": [one.hex() for one in proof]}
    yield _line(header)
    count = 0
    for entry in view.all(msgspec.structs.replace(wanted, first=first, last=last)):
        yield _line(proved(view, entry, checkpoint.size, withheld(view, entry, encryption)))
        count += 1
    yield _line({"end": {"entries": count}})


def _line(document: JsonObject) -> bytes:
    return canonical(document) + b"\n"
