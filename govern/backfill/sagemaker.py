"""Amazon SageMaker's data capture: JSON lines, one for each invocation of an endpoint.

https://docs.aws.amazon.com/sagemaker/latest/dg/model-monitor-data-capture-endpoint.html, "View captured data". A
payload of a text type stands there as text (encoding CSV or JSON), any other in base64. Only whole seconds are told.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

import msgspec

from govern.backfill.row import Body, Call, Format
from govern.errors import BadInput, DecodeError

_CUSTOM: Final = "x-amzn-sagemaker-custom-attributes"


class _Data(msgspec.Struct, rename="camel"):
    data: str
    encoding: Literal["CSV", "JSON", "BASE64"]
    observed_content_type: str = ""


class _CaptureData(msgspec.Struct, rename="camel"):
    endpoint_input: _Data | None = None
    endpoint_output: _Data | None = None


class _EventMetadata(msgspec.Struct, rename="camel"):
    inference_time: datetime
    event_id: str = ""
    inference_id: str = ""
    custom_attributes: list[str] = []


class _Line(msgspec.Struct, rename="camel"):
    capture_data: _CaptureData
    event_metadata: _EventMetadata


def _rows(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            for line in file:
                if not line.isspace():
                    yield line.strip()
    except OSError as error:
        raise BadInput(f"{path} cannot be read", why=str(error), fix="name an existing file") from error


def _parse(line: bytes) -> Call:
    try:
        event = msgspec.json.decode(line, type=_Line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DecodeError(
            "a line of data capture", why=str(error), fix="see the dead letter's value for the line as it is"
        ) from error
    meta, data = event.event_metadata, event.capture_data
    when = meta.inference_time
    seconds = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    t_ns = round(seconds * 1000) * 1_000_000
    custom = {_CUSTOM: ",".join(meta.custom_attributes)} if meta.custom_attributes else {}
    return Call(
        request=_body(data.endpoint_input, custom),
        response=_body(data.endpoint_output, {}),
        t_request=t_ns,
        t_response=t_ns,
        request_id=meta.inference_id or meta.event_id,
        identity=("sagemaker", meta.event_id) if meta.event_id else (),
    )


def _body(side: _Data | None, headers: dict[str, str]) -> Body | None:
    if side is None:
        return None
    if side.encoding != "BASE64":
        return Body(side.data.encode(), side.observed_content_type, headers)
    try:
        return Body(b64decode(side.data, validate=True), side.observed_content_type, headers)
    except (binascii.Error, ValueError) as error:
        raise DecodeError(
            "a payload of data capture", why=f"its encoding is BASE64, and it is none: {error}", fix="see its line"
        ) from error


SAGEMAKER: Final = Format(name="sagemaker", rows=_rows, parse=_parse, original=bytes)
