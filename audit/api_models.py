"""What the API takes and answers, as its OpenAPI page shows it."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from pydantic import BaseModel, Field

from audit.query import MAX_PAGE, Filter


class EntryFilter(BaseModel):
    """Query parameters that choose entries."""

    kind: Annotated[str | None, Field(examples=["verdict"])] = None
    request_id: str | None = None
    record_id: str | None = None
    service: str | None = None
    model: Annotated[str | None, Field(examples=["income"])] = None
    pipeline: str | None = None
    step: str | None = None
    alarm: Annotated[bool | None, Field(description="Verdicts with (or without) an alarm.")] = None
    since_ns: Annotated[int | None, Field(description="Record time, ns since the Unix epoch, inclusive.")] = None
    until_ns: Annotated[int | None, Field(description="Record time, ns since the Unix epoch, exclusive.")] = None
    first: Annotated[int | None, Field(ge=0, description="Lowest entry index.")] = None
    last: Annotated[int | None, Field(ge=0, description="Highest entry index.")] = None

    def filter(self) -> Filter:
        return Filter(**self._conditions())

    def text(self) -> str:
        """As a query string, for the access record."""
        return urlencode({name: value for name, value in self._conditions().items() if value is not None})

    def _conditions(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in EntryFilter.model_fields}


class PageQuery(EntryFilter):
    after: Annotated[int | None, Field(ge=0, description="The cursor `next` of the page before.")] = None
    limit: Annotated[int, Field(ge=1, le=MAX_PAGE)] = 100
    order: Literal["oldest-first", "newest-first"] = "oldest-first"


class ExportQuery(EntryFilter):
    disclose: Annotated[bool, Field(description="Open the withheld fields.")] = False
    since: Annotated[int | None, Field(ge=0, description="Size of an older checkpoint to prove consistency with.")] = (
        None
    )


class EntryDocument(BaseModel):
    index: int
    leaf: dict[str, Any]


class EntryPage(BaseModel):
    entries: list[EntryDocument]
    next: Annotated[int | None, Field(description="Cursor of the next page; null on the last.")]


class ProvedEntry(EntryDocument):
    proof: Annotated[list[str], Field(description="Inclusion proof (RFC 9162 2.1.3), hex, against `checkpoint`.")]
    checkpoint: Annotated[str, Field(description="Signed note (C2SP tlog-checkpoint).")]
    verifier_key: str


class Statistics(BaseModel):
    kind: str
    entries: int
    alarms: int
    first_ns: str
    last_ns: str


class Proof(BaseModel):
    hashes: Annotated[list[str], Field(description="Hex, in the order of RFC 9162.")]


class ErasureRequest(BaseModel):
    subject: Annotated[str, Field(examples=["request:req-7f3a", "principal:3c9d…"])]
    reason: Annotated[str, Field(min_length=1, max_length=1000, examples=["GDPR Art. 17, ticket 4711"])]


class ErasureDone(BaseModel):
    id: str
    entry: Annotated[int, Field(description="Index of the entry that records it.")]
    keys: Annotated[list[str], Field(description="Ids of the destroyed data keys.")]
    entries: Annotated[int, Field(description="How many entries' withheld fields went with them.")]
