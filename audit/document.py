"""The JSON that leaves the log: canonical bytes, strict reading, disclosed values. Shared by writer and verifier.

Depends on the standard library and `rfc8785` alone, so that verification needs no part of the server.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final, NoReturn, TypeAlias

import rfc8785

from govern.errors import BadInput

#: 2^53 has sixteen digits; a sign comes before them.
_SAFE_DIGITS: Final = 17

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
JsonObject: TypeAlias = dict[str, Json]

#: Versions of the documents' formats, kept apart from the package's version.
ENTRY_FORMAT: Final = "io.govern.entry.v1"
CASE_FORMAT: Final = "io.govern.case.v1"
EXPORT_FORMAT: Final = "io.govern.export.v1"


class BadDocument(BadInput):
    """A document that is not the JSON it should be."""

    code = "bad-document"


def canonical(value: Json) -> bytes:
    """RFC 8785 canonical JSON.

    Raises:
        BadDocument: an integer beyond 2^53, a non-finite number, or text that is no Unicode.
    """
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, RecursionError) as error:
        raise BadDocument("JSON value", why=str(error), fix="see RFC 8785 section 3") from error


def parse(text: str | bytes) -> JsonObject:
    """Read one JSON object; a member that is given twice is an error, since a reader might see the other one.

    Raises:
        BadDocument: it is no JSON object, or says something twice.
    """
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise BadDocument("document", why=f"it is no JSON: {error}", fix="use the file as govern wrote it") from error
    if not isinstance(value, dict):
        raise BadDocument("document", why="it is no JSON object", fix="use the file as govern wrote it")
    return value


def commitment(salt: bytes, path: str, value: bytes) -> str:
    """What a leaf keeps of a withheld field: SHA-256 over salt, path, a zero byte and the value, hex."""
    return hashlib.sha256(salt + path.encode() + b"\x00" + value).hexdigest()


def disclose(path: str, value: bytes) -> JsonObject:
    """A withheld value as it stands in a document: JSON where the field is structured, else text, else base64."""
    if path in STRUCTURED:
        return {"encoding": "json", "value": json.loads(value)}
    try:
        return {"encoding": "text", "value": value.decode("utf-8")}
    except UnicodeDecodeError:
        return {"encoding": "base64", "value": base64.b64encode(value).decode()}


def undisclose(shown: Json) -> bytes:
    """The bytes that `disclose` was given.

    Raises:
        BadDocument: it is no disclosed value.
    """
    match shown:
        case {"encoding": "json", "value": value, **rest} if not rest:
            return canonical(value)
        case {"encoding": "text", "value": str(text), **rest} if not rest:
            return text.encode("utf-8", "surrogatepass")
        case {"encoding": "base64", "value": str(text), **rest} if not rest:
            try:
                data = base64.b64decode(text, validate=True)
            except (binascii.Error, ValueError):
                data = b""
            if base64.b64encode(data).decode() == text:
                return data
    raise BadDocument(
        "disclosed value",
        why="it is not {encoding: json | text | base64, value}",
        fix="use the file as govern wrote it",
    )


#: Withheld fields whose bytes are canonical JSON; all others are the field's own bytes.
STRUCTURED: Final = frozenset(
    {
        "attributions",
        "anchor",
        "reasons",
        "prediction",
        "base_value",
        "reward",
        "headers",
        "request.headers",
        "response.headers",
    }
)


def text_at(value: Mapping[str, Json], name: str) -> str:
    """A member that is text; "" when it is absent (fields that equal their default are left out)."""
    found = value.get(name, "")
    return found if isinstance(found, str) else ""


def object_at(value: Mapping[str, Json], name: str) -> JsonObject:
    found = value.get(name)
    return found if isinstance(found, dict) else {}


def objects_at(value: Mapping[str, Json], name: str) -> list[JsonObject]:
    found = value.get(name)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def int_at(value: Mapping[str, Json], name: str) -> int:
    """A member that is an integer, as a number or (64-bit ones) as decimal text; 0 when it is absent."""
    found = value.get(name, 0)
    if isinstance(found, str) and found.removeprefix("-").isdecimal():
        return int(found)
    return found if isinstance(found, int) else 0


def iso_time(t_ns: int) -> str:
    """UTC in ISO 8601 with all nine digits; "" for a time that is not known (0)."""
    if t_ns == 0:
        return ""
    seconds, nanos = divmod(t_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, tz=UTC):%Y-%m-%dT%H:%M:%S}.{nanos:09d}Z"


def _unique(pairs: Iterable[tuple[str, Json]]) -> JsonObject:
    out: JsonObject = {}
    for name, value in pairs:
        if name in out:
            raise ValueError(f"member {name!r} is given twice")
        out[name] = value
    return out


def _integer(digits: str) -> int | float:
    """JSON has doubles only: what a double does not hold exactly was written from one (RFC 8785 3.2.2.3)."""
    value = int(digits) if len(digits) <= _SAFE_DIGITS else None
    return value if value is not None and abs(value) < 2**53 else float(digits)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
