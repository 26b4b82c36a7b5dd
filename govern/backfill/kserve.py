"""The objects that KServe's logger writes in its blob mode: requests and responses, each alone.

As its marshallers write them (pkg/logger of kserve/kserve): one JSON object or an array of them with Go's field names
(`Id`, `Bytes` in base64), or CSV or Parquet with the same fields in camel case and maps as JSON text. The agent writes
no time into them; that of a file's last change, which copying tools keep, stands for it.
"""

from __future__ import annotations

import binascii
import contextlib
import csv
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from govern.backfill import tables
from govern.backfill.databricks import original
from govern.backfill.row import Body, Call, Format, HalfCall
from govern.errors import BadInput, DecodeError
from govern.mirror.join import Side

_SIDES: Final[dict[str, Side]] = {
    "org.kubeflow.serving.inference.request": "request",
    "org.kubeflow.serving.inference.response": "response",
}
_REQUEST_ID: Final = "x-request-id"
#: Longest field of a CSV row that is read: far above any payload in base64, so that what is no CSV fails.
_CSV_FIELD_CHARS: Final = 256 * 1024 * 1024


class _Raw(NamedTuple):
    """A row with its file's time; `fields` is JSON or a mapping, whose names' case does not matter."""

    fields: msgspec.Raw | dict[str, Any]
    t_ns: int


class _Event(msgspec.Struct, rename="lower", kw_only=True):
    id: str
    reqtype: str
    bytes: str | None = None
    contenttype: str = ""
    inferenceservice: str = ""
    namespace: str = ""
    component: str = ""
    endpoint: str = ""
    metadata: dict[str, list[str]] | None = None


def _rows(path: Path) -> Iterator[_Raw]:
    try:
        t_ns = path.stat().st_mtime_ns
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise BadInput(f"{path} cannot be read", why=str(error), fix="name an existing file") from error
    if head.startswith(b"PAR1"):
        fields: Iterator[msgspec.Raw | dict[str, Any]] = iter(tables.rows(path, needed=("id", "reqType", "bytes")))
    elif head.lstrip()[:1] in (b"[", b"{"):
        fields = iter(_json(path))
    else:
        fields = _csv(path)
    return (_Raw(each, t_ns) for each in fields)


def _json(path: Path) -> list[msgspec.Raw]:
    """The objects of a file, which the agent held in memory as a whole when it wrote it."""
    data = path.read_bytes()
    if data.lstrip().startswith(b"["):
        with contextlib.suppress(msgspec.DecodeError):  # what is cut is refused as one row
            return msgspec.json.decode(data, type=list[msgspec.Raw])
    return [msgspec.Raw(data)]


def _csv(path: Path) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(_CSV_FIELD_CHARS)
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        reader = csv.DictReader(file)
        if "reqType" not in (reader.fieldnames or ()):
            raise BadInput(
                f"{path} is no object of KServe's logger",
                why="it is neither Parquet nor JSON, nor CSV with a column reqType",
                fix="name the objects that the logger wrote",
            )
        try:
            for row in reader:
                yield dict(row)
        except csv.Error as error:
            raise BadInput(f"{path} is no CSV", why=str(error), fix="name whole objects of the logger") from error


def _parse(raw: _Raw) -> HalfCall:
    try:
        fields = msgspec.json.decode(raw.fields) if isinstance(raw.fields, msgspec.Raw) else raw.fields
        if not isinstance(fields, dict):
            raise _malformed("it is no object")
        event = msgspec.convert({str(name).lower(): _unpacked(value) for name, value in fields.items()}, _Event)
        body = b64decode(event.bytes or "", validate=True)
    except (msgspec.DecodeError, binascii.Error, ValueError) as error:
        raise _malformed(str(error)) from error
    side = _SIDES.get(event.reqtype)
    if side is None or not event.id:
        raise _malformed(f"its type is {event.reqtype!r}" if side is None else "it has no id")
    headers = {name.lower(): ",".join(values) for name, values in (event.metadata or {}).items()}
    captured = Body(body, event.contenttype, headers)
    return HalfCall(
        key=(event.namespace, event.inferenceservice, event.component, event.id),
        side=side,
        call=Call(
            request=captured if side == "request" else None,
            response=captured if side == "response" else None,
            t_request=raw.t_ns,
            t_response=raw.t_ns,
            request_id=headers.get(_REQUEST_ID) or event.id,
            identity=("kserve", event.namespace, event.inferenceservice, event.component, event.id),
            service=event.inferenceservice,
            model=event.inferenceservice
            if event.component in ("", "predictor")
            else f"{event.inferenceservice}-{event.component}",
            endpoint=event.endpoint if event.endpoint in ("default", "canary", "shadow") else "",
        ),
    )


def _unpacked(value: object) -> object:
    """A map of the tabular forms, which is JSON text there; an empty one says nothing."""
    if isinstance(value, str) and value.startswith("{"):
        return msgspec.json.decode(value)
    return value


def _malformed(why: str) -> DecodeError:
    return DecodeError("an event of KServe's logger", why=why, fix="see the dead letter's value for the event as it is")


def _original(raw: _Raw) -> bytes:
    return bytes(raw.fields) if isinstance(raw.fields, msgspec.Raw) else original(raw.fields)


KSERVE: Final = Format(name="kserve-blobs", rows=_rows, parse=_parse, original=_original)
