"""Seldon Core v1's messages as JSON: predictions and feedback. Free of numpy, so that capture can read them too.

https://docs.seldon.io/projects/seldon-core/en/latest/reference/apis/prediction.html: a SeldonMessage has `data` (with
`names` and `ndarray` or `tensor`), `strData`, `jsonData` or `binData`, and the request's id in `meta.puid`; a Feedback
has `request`, `response`, `reward` and `truth`.
"""

from __future__ import annotations

import base64
import json
from typing import Literal

import msgspec

from govern.codecs.json_body import parse
from govern.errors import DecodeError

Form = Literal["ndarray", "tensor", "strData", "jsonData", "binData"]


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A SeldonMessage.

    Attributes:
        form: the field that its value came in.
        value: a list (ndarray: nested; tensor: flat), text (strData), JSON (jsonData), bytes (binData).
        names: of the columns; empty when it has none.
        shape: of a tensor; empty in every other form.
        puid: the request's id; "" when it has none.
    """

    form: Form
    value: object
    names: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    puid: str = ""


class Feedback(msgspec.Struct, frozen=True, kw_only=True):
    """What turned out to be true of a request.

    Attributes:
        puid: the request's id; "" when neither message has one.
        reward: 0 when it was not sent.
        truth: the true answer as text: one value as itself, several as JSON; "" when it was not sent.
        truth_json: the message that the true answer came in; empty when it was not sent.
    """

    puid: str
    reward: float
    truth: str
    truth_json: bytes = b""


class _Tensor(msgspec.Struct, frozen=True):
    shape: list[int]
    values: list[object]


class _Data(msgspec.Struct, frozen=True):
    names: list[str] | None = None
    ndarray: list[object] | None = None
    tensor: _Tensor | None = None


class _Meta(msgspec.Struct, frozen=True):
    puid: str | None = None


class _Wire(msgspec.Struct, frozen=True, rename="camel"):
    data: _Data = _Data()
    str_data: str | None = None
    json_data: object = None
    bin_data: str | None = None
    meta: _Meta | None = None


class _WireFeedback(msgspec.Struct, frozen=True):
    request: _Wire | None = None
    response: _Wire | None = None
    reward: float | None = None
    truth: msgspec.Raw = msgspec.Raw()


def decode(body: bytes, *, what: str) -> Message:
    """Read a SeldonMessage.

    Args:
        what: what the body is, to begin the error with ("Seldon request").

    Raises:
        DecodeError: no JSON, a field of the wrong type, none or several of the forms, `binData` that is no base64.
    """
    return _message(parse(body, _Wire, what=what), what)


def decode_feedback(body: bytes) -> Feedback:
    """Read a Feedback.

    Raises:
        DecodeError: no JSON, a field of the wrong type, neither reward nor truth, a truth that is no SeldonMessage.
    """
    what = "Seldon feedback"
    wire = parse(body, _WireFeedback, what=what)
    truth_json = bytes(wire.truth).removeprefix(b"null")
    if wire.reward is None and not truth_json:
        raise DecodeError(f"{what}: fields", why="it has neither `reward` nor `truth`", fix="send one of them")
    ids = [one.meta.puid for one in (wire.response, wire.request) if one is not None and one.meta is not None]
    return Feedback(
        puid=next((one for one in ids if one), ""),
        reward=wire.reward or 0.0,
        truth=decode_truth(truth_json) if truth_json else "",
        truth_json=truth_json,
    )


def decode_truth(body: bytes) -> str:
    """The true answer of a message as text: one value as itself, several as JSON.

    Raises:
        DecodeError: it is no SeldonMessage.
    """
    truth = decode(body, what="Seldon feedback: `truth`")
    value = truth.value
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _message(wire: _Wire, what: str) -> Message:
    forms: dict[Form, object] = {
        "ndarray": wire.data.ndarray,
        "tensor": wire.data.tensor,
        "strData": wire.str_data,
        "jsonData": wire.json_data,
        "binData": wire.bin_data,
    }
    given = {form: value for form, value in forms.items() if value is not None}
    if len(given) != 1:
        raise DecodeError(
            f"{what}: fields",
            why=f"it has {' and '.join(given) or 'no values'}",
            fix="send one of `data.ndarray`, `data.tensor`, `strData`, `jsonData`, `binData`",
        )
    ((form, value),) = given.items()
    shape: tuple[int, ...] = ()
    if isinstance(value, _Tensor):
        shape, value = tuple(value.shape), value.values
    elif form == "binData":
        value = _bytes_of(str(value), what)
    puid = (wire.meta.puid if wire.meta else None) or ""
    return Message(form=form, value=value, names=tuple(wire.data.names or ()), shape=shape, puid=puid)


def _bytes_of(text: str, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise DecodeError(f"{what}: field `binData`", why=str(error), fix="encode the bytes as base64") from error
