"""Databricks' inference tables, as Parquet: one row for each request to a serving endpoint.

Two schemas, told apart by their columns: the legacy one (`timestamp_ms`, `execution_time_ms`, `request_metadata`),
https://docs.databricks.com/en/machine-learning/model-serving/inference-tables.html, and that of AI Gateway
(`request_time`, `execution_duration_ms`, `served_entity_id`),
https://docs.databricks.com/en/ai-gateway/inference-tables.html.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from govern.backfill import tables
from govern.backfill.row import Body, Call, Format
from govern.errors import DecodeError

_JSON: Final = "application/json"


class _Row(msgspec.Struct):
    """The columns of both schemas that tell something of a call."""

    databricks_request_id: str
    client_request_id: str | None = None
    timestamp_ms: int | None = None
    request_time: int | None = None
    status_code: int | None = None
    sampling_fraction: float | None = None
    execution_time_ms: int | None = None
    execution_duration_ms: int | None = None
    request: str | None = None
    response: str | None = None
    request_metadata: dict[str, str | None] | None = None
    served_entity_id: str | None = None


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    return tables.rows(path, needed=("databricks_request_id", "request", "response", "status_code"))


def _parse(raw: dict[str, Any]) -> Call:
    metadata = raw.get("request_metadata")
    if isinstance(metadata, list):  # a Parquet map, read as pairs
        raw = {**raw, "request_metadata": dict(metadata)}
    try:
        row = msgspec.convert(raw, _Row)
    except msgspec.ValidationError as error:
        raise _malformed(str(error)) from error
    if row.timestamp_ms is not None:
        t_request = row.timestamp_ms * 1_000_000
    elif row.request_time is not None:
        t_request = row.request_time * 1000
    else:
        raise _malformed("it tells no time, in timestamp_ms or request_time")
    took_ms = row.execution_time_ms if row.execution_time_ms is not None else row.execution_duration_ms
    named: Mapping[str, str | None] = row.request_metadata or {}
    return Call(
        request=_body(row.request),
        response=_body(row.response),
        t_request=t_request,
        t_response=t_request + (took_ms or 0) * 1_000_000,
        request_id=row.client_request_id or row.databricks_request_id,
        identity=("databricks", row.databricks_request_id),
        status_code=row.status_code or 0,
        service=named.get("endpoint_name") or "",
        model=named.get("model_name") or "",
        revision=named.get("model_version") or row.served_entity_id or "",
        fraction=1.0 if row.sampling_fraction is None else row.sampling_fraction,
    )


def _body(text: str | None) -> Body | None:
    return None if text is None else Body(text.encode(), _JSON)


def _malformed(why: str) -> DecodeError:
    return DecodeError("a row of an inference table", why=why, fix="see the dead letter's value for the row as it is")


def original(raw: Mapping[str, Any]) -> bytes:
    """A row as JSON; what JSON cannot say is written as text."""
    return msgspec.json.encode(raw, enc_hook=str)


DATABRICKS: Final = Format(name="databricks", rows=_rows, parse=_parse, original=original)
