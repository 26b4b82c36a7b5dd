"""The case file: all that the log says of one request, in one JSON document that proves itself.

    {"format": "io.govern.case.v1", "request_id", "log", "verifier_key",
     "checkpoint": <signed note>,
     "entries": [{"index", "leaf": {...}, "proof": [hex ...], "withheld": {"state", ...}}],
     "summary": {...}}

Every entry is proved against the one checkpoint. `withheld.state` is "disclosed" (with salt and values, which must
give the leaf's commitments), "erased" (an entry of kind erasure in the file names the destroyed key), or
"undisclosed". The file proves that what it holds is in the log; that it leaves nothing out, only an export of the
whole range can prove.
"""

from __future__ import annotations

from audit.document import CASE_FORMAT, Json, JsonObject, disclose, object_at, text_at
from audit.query import Entry, Filter, View
from audit.seal import KeyEncryptionKey
from audit.summary import Part, summarise
from govern.errors import NotFound


def case(view: View, request_id: str, *, encryption: KeyEncryptionKey | None) -> JsonObject:
    """The case file of a request.

    Args:
        request_id: the caller's request id, or the inference's own id.
        encryption: opens the withheld fields; None leaves them undisclosed.

    Raises:
        NotFound: the log has nothing of that request.
        SealBroken: a sealed box does not open.
    """
    request_id, found = _about(view, request_id)
    checkpoint, note = view.checkpoint()
    shown = [(entry, withheld(view, entry, encryption)) for entry in found]
    entries: list[Json] = [proved(view, entry, checkpoint.size, data) for entry, data in shown]
    parts = [
        Part(entry.index, entry.document(), text_at(data, "state"), object_at(data, "values")) for entry, data in shown
    ]
    return {
        "format": CASE_FORMAT,
        "request_id": request_id,
        "log": view.log,
        "verifier_key": str(view.key),
        "checkpoint": note,
        "entries": entries,
        "summary": summarise(request_id, parts),
    }


def proved(view: View, entry: Entry, size: int, data: JsonObject) -> JsonObject:
    """An entry as it stands in a document: its leaf, its inclusion proof in the tree of `size`, its data."""
    document: JsonObject = {
        "index": entry.index,
        "leaf": entry.document(),
        "proof": [one.hex() for one in view.inclusion(entry.index, size)],
    }
    if data:
        document["withheld"] = data
    return document


def withheld(view: View, entry: Entry, encryption: KeyEncryptionKey | None) -> JsonObject:
    """What a document shows of an entry's withheld fields; empty when there are none."""
    sealed = object_at(entry.document(), "withheld")
    if not sealed:
        return {}
    erasure = view.erasure_of(text_at(sealed, "key"))
    if erasure is not None:
        return {"state": "erased", "by": erasure.index}
    opened = view.open_box(entry.index, encryption) if encryption is not None else None
    if opened is None:
        return {"state": "undisclosed"}
    return {
        "state": "disclosed",
        "salt": opened.salt.hex(),
        "values": {path: disclose(path, value) for path, value in opened.values.items()},
    }


def _about(view: View, request_id: str) -> tuple[str, list[Entry]]:
    """Every entry that belongs to the request's case, in index order."""
    found = list(view.all(Filter(request_id=request_id)))
    if not found:
        known = view.page(Filter(record_id=request_id, kind="inference")).entries
        if not known:
            raise NotFound(
                f"request {request_id!r}",
                why="the log has no entry of it (what was captured in the last moments may still be on its way)",
                fix="use the x-request-id that the caller sent or was given, or the inference's id",
            )
        request_id = known[0].request_id
        found = list(view.all(Filter(request_id=request_id)))
    related = [verdict for entry in found if entry.kind == "inference" for verdict in view.verdicts_in_force(entry)]
    for entry in found:
        erasure = view.erasure_of(text_at(object_at(entry.document(), "withheld"), "key"))
        if erasure is not None:
            related.append(erasure)
    by_index = {entry.index: entry for entry in (*found, *related)}
    return request_id, [by_index[index] for index in sorted(by_index)]
