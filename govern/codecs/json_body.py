"""JSON bodies as inference clients send them: RFC 8259, and the NaN literal that Python's `json` writes."""

from __future__ import annotations

import json
from typing import Final, TypeVar

import msgspec

from govern.errors import DecodeError

S = TypeVar("S")

#: Literals that no JSON has and that `json.dumps` of Python writes all the same.
_LITERALS: Final = (b"NaN", b"Infinity")


def parse(body: bytes, kind: type[S], *, what: str) -> S:
    """Parse `body` and check it against `kind` (a msgspec struct, or `object` for any JSON).

    `NaN`, `Infinity` and `-Infinity` are read as null: they say that there is no number.

    Args:
        what: what the body is, to begin the error with ("V2 request").

    Raises:
        DecodeError: no JSON, or JSON of another shape; `why` names the byte or the path.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise _misshapen(what, str(error)) from error
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        if not any(literal in body for literal in _LITERALS):
            raise _no_json(what, body, str(error)) from error
    try:
        # Encoding writes NaN and the infinities as null, so what follows needs no second way to read a payload.
        strict = msgspec.json.encode(json.loads(body))
        return msgspec.json.decode(strict, type=kind)
    except msgspec.ValidationError as error:
        raise _misshapen(what, str(error)) from error
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
        raise _no_json(what, body, str(error)) from error


def _misshapen(what: str, why: str) -> DecodeError:
    return DecodeError(
        f"{what} has not the shape of its protocol", why=why, fix="send the fields that the protocol names"
    )


def _no_json(what: str, body: bytes, why: str) -> DecodeError:
    return DecodeError(f"{what} is no JSON", why=f"{len(body)} bytes: {why}", fix="send a JSON document in UTF-8")
