"""CloudEvents over HTTP: binary, structured and batched content mode, versions 1.0, 0.3 and 0.2.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md. Pure: headers and bytes
in, events out. Attributes whose value is `NOTIMPLEMENTED`, which Seldon sends for what it does not know, are absent.
"""

from __future__ import annotations

import base64
import binascii
import re
from calendar import timegm
from collections.abc import Mapping
from typing import Final, TypeVar
from urllib.parse import unquote

import msgspec

from govern.errors import BadInput
from govern.mirror.body import Headers

STRUCTURED: Final = b"application/cloudevents+json"
BATCH: Final = b"application/cloudevents-batch+json"

VERSIONS: Final = frozenset({"1.0", "0.3", "0.2"})
_REQUIRED: Final = ("specversion", "id", "source", "type")
_ABSENT: Final = "NOTIMPLEMENTED"
#: Longest value of an attribute, in characters; loggers put a map of headers into one.
_VALUE_CHARS_MAX: Final = 16 * 1024
#: Section 3.1 of the specification, and what brokers accept beside it.
_NAME: Final = re.compile(r"[a-z0-9_-]{1,64}")
#: RFC 3339 section 5.6.
_TIME: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9})\d*)?(?:[Zz]|([+-])(\d\d):(\d\d))"
)

Attributes = Mapping[str, str]
T = TypeVar("T")


class MalformedEvent(BadInput):
    """A request that is no CloudEvent, or one that says too little to be recorded."""

    code = "malformed-event"
    http_status = 400

    @classmethod
    def attribute(cls, name: str, why: str) -> MalformedEvent:
        return cls(
            f"CloudEvents attribute {name!r}",
            why=why,
            fix="send CloudEvents 1.0 as KServe's or Seldon's logger does, in binary or structured mode",
        )


class Event(msgspec.Struct, frozen=True):
    """One event of structured or batched mode."""

    attributes: dict[str, str]
    data: bytes


def binary_attributes(headers: Headers) -> Attributes:
    """The context attributes of binary mode.

    Raises:
        MalformedEvent: a required one is missing, or one has no value that its type allows.
    """
    found = {
        name[3:].decode("latin-1"): unquote(value.decode("utf-8", "replace"))
        for name, value in headers.items()
        if name.startswith(b"ce-")
    }
    content_type = headers.get(b"content-type", b"").decode("utf-8", "replace")
    return _checked({**found, "datacontenttype": content_type})


def structured_event(body: bytes) -> Event:
    """The event of structured mode.

    Raises:
        MalformedEvent: no JSON object, or not that of an event.
    """
    return _event(_json(body, dict[str, msgspec.Raw]), "")


def batched_events(body: bytes) -> list[Event]:
    """The events of a batch.

    Raises:
        MalformedEvent: no JSON array of events; none of them is to be taken then.
    """
    found = _json(body, list[dict[str, msgspec.Raw]])
    return [_event(item, f"event {number} of the batch: ") for number, item in enumerate(found)]


def time_ns(text: str) -> int | None:
    """Nanoseconds since the Unix epoch of an RFC 3339 time; None when it is none."""
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    if not (1 <= month <= 12 and 1 <= day <= 31 and hour <= 23 and minute <= 59 and second <= 60):
        return None
    shift = 0
    if match[8]:
        shift = (int(match[9]) * 60 + int(match[10])) * 60 * (-1 if match[8] == "-" else 1)
    try:
        seconds = timegm((year, month, day, hour, minute, second)) - shift
    except ValueError:  # a day that the month does not have, a year zero
        return None
    return seconds * 1_000_000_000 + int((match[7] or "0").ljust(9, "0"))


def _json(body: bytes | msgspec.Raw, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise MalformedEvent.attribute("data", f"the envelope is none of JSON: {error}") from error


def _event(found: dict[str, msgspec.Raw], where: str) -> Event:
    attributes: dict[str, str] = {}
    for name, raw in found.items():
        if name not in ("data", "data_base64"):
            value = _json(raw, object)
            if value is not None:
                attributes[name.lower()] = value if isinstance(value, str) else bytes(raw).decode()
    attributes.setdefault("datacontenttype", attributes.pop("contenttype", "application/json"))  # 0.2's name of it
    return Event(dict(_checked(attributes, where)), _data(found, attributes, where))


def _data(found: dict[str, msgspec.Raw], attributes: Attributes, where: str) -> bytes:
    """The data as they would be in binary mode; JSON data byte for byte as they stand in the envelope."""
    raw = found.get("data")
    encoded = found.get("data_base64")
    if encoded is None and attributes.get("datacontentencoding") == "base64":  # 0.3's way to say it
        encoded = raw
    if encoded is not None:
        try:
            return base64.b64decode(msgspec.json.decode(encoded, type=str), validate=True)
        except (binascii.Error, msgspec.DecodeError, ValueError) as error:
            raise MalformedEvent.attribute("data_base64", f"{where}it is no base64: {error}") from error
    if raw is None:
        return b""
    value = _json(raw, object)
    if value is None:
        return b""
    return value.encode() if isinstance(value, str) and not _is_json(attributes["datacontenttype"]) else bytes(raw)


def _is_json(content_type: str) -> bool:
    media = content_type.partition(";")[0].strip().lower()
    return media.endswith(("/json", "+json"))


def _checked(found: dict[str, str], where: str = "") -> Attributes:
    attributes: dict[str, str] = {}
    for name, value in found.items():
        if not _NAME.fullmatch(name) or len(value) > _VALUE_CHARS_MAX:
            raise MalformedEvent.attribute(name[:64], f"{where}its name or its value ({len(value)} characters) is none")
        if value and value != _ABSENT:
            attributes[name] = value
    for name in _REQUIRED:
        if name not in attributes:
            raise MalformedEvent.attribute(name, f"{where}it is required, and missing or empty")
    if attributes["specversion"] not in VERSIONS:
        raise MalformedEvent.attribute(
            "specversion", f"{where}{attributes['specversion']!r} is none of {', '.join(sorted(VERSIONS))}"
        )
    for name in ("time", "recordedtime"):
        if name in attributes and time_ns(attributes[name]) is None:
            raise MalformedEvent.attribute(name, f"{where}{attributes[name]!r} is no RFC 3339 time")
    return attributes
