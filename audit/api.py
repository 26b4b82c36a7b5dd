"""The audit log over HTTP, for reading; and erasure, for operators.

Every read is recorded before it is answered (`audit.access`): while the bus is away, there is no data.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, Final

from fastapi import APIRouter, FastAPI, Path, Query
from fastapi.responses import PlainTextResponse, StreamingResponse

from audit import auth
from audit.access import AccessRecorder
from audit.api_models import (
    EntryDocument,
    EntryPage,
    ErasureDone,
    ErasureRequest,
    ExportQuery,
    PageQuery,
    Proof,
    ProvedEntry,
    Statistics,
)
from audit.case import case, proved
from audit.desk import Desk, Purpose, Settings, TheCaller, TheDesk
from audit.document import JsonObject
from audit.export import export
from audit.query import AuditQuery, Entry, View
from audit.retention import Erasure, erase
from audit.store import AuditStore
from govern.bus import Bus
from govern.errors import Forbidden
from govern.telemetry.metrics import Metrics
from govern.web import problems
from govern.web.application import application

_NDJSON: Final = "application/x-ndjson"

_DESCRIPTION: Final = """
The tamper-evident audit log of machine-learning models: entries, case files, exports and proofs.

Every read is recorded in the log before it is answered; while it cannot be recorded, nothing is shown. What is
downloaded verifies offline: `govern audit verify FILE --key KEY`.
"""


def create_app(
    query: AuditQuery, bus: Bus, settings: Settings, *, metrics: Metrics, store: AuditStore | None = None
) -> FastAPI:
    """The app.

    Args:
        query: over a reading engine (`open_engine(url, "read")`).
        bus: entered by the caller; takes the access records.
        store: for erasures; None = they are refused.

    Raises:
        ConfigError: the token key does not fit its algorithm.
    """
    if settings.token_key is not None:
        settings.token_key.check()
    app = application("govern audit", description=_DESCRIPTION, version="1")
    recorder = AccessRecorder(bus, namespace=query.namespace, source="/govern/audit/api")
    app.state.desk = Desk(query, recorder, settings, store, metrics)
    app.include_router(_router)
    return app


RequestId = Annotated[str, Path(description="The caller's request id, or the inference's id.", examples=["req-7f3a"])]


_router: Final = APIRouter(prefix="/v1/audit", tags=["audit"], responses=problems.documented(401, 403, 503))


@_router.get("/entries", responses=problems.documented(422))
async def list_entries(
    desk: TheDesk, caller: TheCaller, wanted: Annotated[PageQuery, Query()], purpose: Purpose = ""
) -> EntryPage:
    """Entries that fit, a page at a time, without their withheld fields."""
    await desk.admit(caller, "query", wanted.text(), purpose)
    page = await desk.look(
        lambda view: view.page(
            wanted.filter(), after=wanted.after, limit=wanted.limit, newest_first=wanted.order == "newest-first"
        )
    )
    return EntryPage(
        entries=[EntryDocument(index=one.index, leaf=one.document()) for one in page.entries], next=page.next
    )


@_router.get("/entries/{index}", responses=problems.documented(404, 422))
async def get_entry(
    desk: TheDesk, caller: TheCaller, index: Annotated[int, Path(ge=0)], purpose: Purpose = ""
) -> ProvedEntry:
    """One entry with its inclusion proof against the newest checkpoint, without its withheld fields."""

    def read(view: View) -> tuple[Entry, JsonObject]:
        checkpoint, note = view.checkpoint()
        entry = view.entry(index)
        document: JsonObject = {"checkpoint": note, "verifier_key": str(view.key)}
        document.update(proved(view, entry, checkpoint.size, {}))
        return entry, document

    entry, document = await desk.look(read)
    await desk.admit(caller, "entry", entry.request_id or f"entry {index}", purpose)
    return ProvedEntry.model_validate(document)


@_router.get("/statistics")
async def statistics(desk: TheDesk, caller: TheCaller, purpose: Purpose = "") -> list[Statistics]:
    """How many entries of each kind there are, with how many alarms, from when to when."""
    await desk.admit(caller, "statistics", "", purpose)
    found = await desk.look(lambda view: view.statistics())
    return [
        Statistics(
            kind=one.kind,
            entries=one.entries,
            alarms=one.alarms,
            first_ns=str(one.first_ns),
            last_ns=str(one.last_ns),
        )
        for one in found
    ]


@_router.get("/cases/{request_id}", responses=problems.documented(404))
async def get_case(
    desk: TheDesk,
    caller: TheCaller,
    request_id: RequestId,
    disclose: Annotated[bool, Query(description="Open the withheld fields.")] = True,
    purpose: Purpose = "",
) -> dict[str, Any]:
    """All that the log says of one request, in one document that `govern audit verify` checks offline."""
    await desk.admit(caller, "case", request_id, purpose)
    settings = desk.settings
    encryption = settings.encryption if disclose else None
    return await desk.look(lambda view: case(view, request_id, encryption=encryption))


@_router.get(
    "/export",
    response_class=StreamingResponse,
    responses={200: {"content": {_NDJSON: {"schema": {"type": "string"}}}}, **problems.documented(404, 422)},
)
async def get_export(
    desk: TheDesk, caller: TheCaller, wanted: Annotated[ExportQuery, Query()], purpose: Purpose = ""
) -> StreamingResponse:
    """A range or selection of the log as NDJSON with proofs, which `govern audit verify` checks offline."""
    await desk.admit(caller, "export", wanted.text(), purpose)

    def lines() -> Iterator[bytes]:
        with desk.query.snapshot() as view:
            since = None if wanted.since is None else view.note(wanted.since)
            encryption = desk.settings.encryption if wanted.disclose else None
            yield from export(view, wanted.filter(), encryption=encryption, since=since)

    source = lines()
    # The first line is made here, where an error can still be answered as one.
    header = await asyncio.to_thread(next, source)
    return StreamingResponse(_stream(header, source), media_type=_NDJSON)


@_router.get("/checkpoint", response_class=PlainTextResponse, responses=problems.documented(404, 422))
async def get_checkpoint(
    desk: TheDesk,
    caller: TheCaller,
    size: Annotated[int | None, Query(ge=0, description="Of the tree; the newest when omitted.")] = None,
    purpose: Purpose = "",
) -> str:
    """A signed checkpoint (C2SP tlog-checkpoint)."""
    await desk.admit(caller, "checkpoint", "" if size is None else str(size), purpose)
    return await desk.look(lambda view: view.note(size))


@_router.get("/proofs/inclusion", responses=problems.documented(422))
async def inclusion_proof(
    desk: TheDesk,
    caller: TheCaller,
    index: Annotated[int, Query(ge=0)],
    size: Annotated[int, Query(ge=1)],
    purpose: Purpose = "",
) -> Proof:
    """The proof that entry `index` is in the tree of `size` (RFC 9162 2.1.3)."""
    await desk.admit(caller, "proof", f"inclusion {index} {size}", purpose)
    hashes = await desk.look(lambda view: view.inclusion(index, size))
    return Proof(hashes=[one.hex() for one in hashes])


@_router.get("/proofs/consistency", responses=problems.documented(422))
async def consistency_proof(
    desk: TheDesk,
    caller: TheCaller,
    first: Annotated[int, Query(ge=0)],
    second: Annotated[int, Query(ge=0)],
    purpose: Purpose = "",
) -> Proof:
    """The proof that the tree of size `second` extends the tree of size `first` (RFC 9162 2.1.4)."""
    await desk.admit(caller, "proof", f"consistency {first} {second}", purpose)
    hashes = await desk.look(lambda view: view.consistency(first, second))
    return Proof(hashes=[one.hex() for one in hashes])


@_router.get("/verifier-key", response_class=PlainTextResponse)
async def verifier_key(desk: TheDesk, caller: TheCaller, purpose: Purpose = "") -> str:
    """The log's public key. Get it once from a source that you trust on its own, not each time from here."""
    await desk.admit(caller, "verifier-key", "", purpose)
    return await desk.look(lambda view: f"{view.key}\n")


@_router.post("/erasures", status_code=201, responses=problems.documented(404, 422))
async def post_erasure(desk: TheDesk, caller: TheCaller, asked: ErasureRequest) -> ErasureDone:
    """Erase a person's data: their keys are destroyed, every proof stays valid. Needs the role operator."""
    auth.require(caller, "operator")
    store = desk.store
    if store is None:
        raise Forbidden(
            "erasure", why="this server only reads", fix="start it with --allow-erasure, or use `govern audit erase`"
        )

    def erasing() -> Erasure:
        return erase(store, asked.subject, actor=caller.actor, reason=asked.reason)

    done = await asyncio.to_thread(erasing)
    return ErasureDone(id=done.id, entry=done.index, keys=list(done.keys), entries=done.entries)


async def _stream(header: bytes, source: Iterator[bytes]) -> AsyncIterator[bytes]:
    """The lines of a generator that blocks; it is closed, and its snapshot with it, whatever the client does."""
    try:
        yield header
        while (line := await asyncio.to_thread(next, source, b"")) != b"":
            yield line
    finally:
        close = getattr(source, "close", None)
        if close is not None:
            await asyncio.to_thread(close)
