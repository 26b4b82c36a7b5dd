"""The redactor: a record as captured to the record that may leave the pod's memory."""

from __future__ import annotations

import gzip
import logging
from collections.abc import Callable
from typing import Final, NamedTuple, TypeVar

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

from govern.codecs import sealed
from govern.codecs.packing import unpack
from govern.errors import BadInput, ConfigError
from govern.mirror.captured import CapturedFeedback
from govern.mirror.redaction.body import Context, redact_body, redactions
from govern.mirror.redaction.change import AskedFor, Change, Place, Withhold
from govern.mirror.redaction.config import RedactionConfig, RedactionRule, Side
from govern.mirror.redaction.keys import read_keys
from govern.mirror.redaction.truth import redact_truth
from govern.record import Inference, Payload, Redaction
from govern.schema import FeatureSchema

_log: Final = logging.getLogger(__name__)

#: From this status on a response tells of an error, often with the input in it.
_ERROR_STATUS: Final = 400
_WITHHELD_TEXT: Final = "withheld"
#: A log line for the first body that had to be withheld and every thousandth: it must not flood the log.
_LOG_EVERY: Final = 1000


T = TypeVar("T")


class _Side(NamedTuple):
    payload: Payload
    redactions: tuple[Redaction, ...] = ()


class Redactor:
    """Applies one set of rules. It never changes and never raises: where it is in doubt, it withholds the body.

    Args:
        config: the section `redaction`.
        body_bytes: the longest body that a record may carry.

    Raises:
        ConfigError: a key or file that the rules need is missing or unusable.
    """

    def __init__(self, config: RedactionConfig, *, body_bytes: int) -> None:
        self._body_bytes = body_bytes
        self._withhold_errors = config.errors == "withhold"
        self._keys = read_keys(config) if config.rules else None
        schema = _schema(config)
        self._features: tuple[str, ...] = () if schema is None else schema.names
        self._recipient = _recipient(config)
        places = [place for rule in config.rules for place in _places(rule, schema)]
        sides: tuple[Side, ...] = ("request", "response")
        self._places = {side: tuple(place for place in places if side in place.sides) for side in sides}
        self.active = bool(config.rules)
        self._withheld = 0

    def of(self, record: Inference) -> Inference:
        """The record without what the rules take out; the record itself when they take nothing."""
        if not self.active:
            return record
        request = self._side(record, record.request, "request")
        response = self._side(record, record.response, "response")
        error, redactions = record.error, (*request.redactions, *response.redactions)
        if error and self._withhold_errors:
            error, redactions = _WITHHELD_TEXT, (*redactions, Redaction(path="error", action="withhold"))
        if not redactions:
            return record
        return msgspec.structs.replace(
            record,
            request=request.payload,
            response=response.payload,
            error=error,
            redactions=(*record.redactions, *redactions),
        )

    def of_feedback(self, captured: CapturedFeedback) -> CapturedFeedback:
        """Feedback without what the rules take out: its truth is a message like the response that it is about.

        There is no part of it that could be sealed, so `encrypt` drops.
        """
        feedback, places = captured.feedback, self._places["response"]
        if not feedback.label or not places:
            return captured
        rules = [(place, Change("drop" if place.action == "encrypt" else place.action, self._keys)) for place in places]
        redacted = None
        if not any(place.whole_body for place in places):
            redacted = self._attempt(
                f"the truth of feedback {feedback.id}", lambda: redact_truth(feedback, rules, self._features)
            )
        if redacted is None:
            withheld = Redaction(path="truth", action="withhold")
            redacted = msgspec.structs.replace(
                feedback, label="", truth=b"", redactions=(*feedback.redactions, withheld)
            )
        return msgspec.structs.replace(captured, feedback=redacted)

    def _side(self, record: Inference, payload: Payload, side: Side) -> _Side:
        places = self._places[side]
        failed = side == "response" and record.status_code >= _ERROR_STATUS and self._withhold_errors
        if not payload.size and not payload.body:
            return _Side(payload)
        if Redaction(path=side, action="withhold") in record.redactions:
            return _Side(payload)  # by the rules before these
        if failed or any(place.whole_body for place in places):
            return self._withhold(payload, side)
        if not places:
            return _Side(payload)
        redacted = self._attempt(
            f"the {side} body of inference {record.id}", lambda: self._redacted(record, payload, side, places)
        )
        return redacted or self._withhold(payload, side)

    def _attempt(self, what: str, redact: Callable[[], T]) -> T | None:
        """What is left after the rules; None when it must be withheld."""
        try:
            return redact()
        except AskedFor:
            pass
        except Withhold as reason:
            self._report(what, str(reason))
        except Exception as error:  # noqa: BLE001 - a defect must cost the body, not show it
            self._report(what, type(error).__name__)  # its text may hold a value
        return None

    def _redacted(self, record: Inference, payload: Payload, side: Side, places: tuple[Place, ...]) -> _Side:
        if side in record.truncated:
            raise Withhold("of the body only a prefix was captured")
        if not payload.body:
            raise Withhold("the body was not captured")
        try:
            body = unpack(payload.body, payload.content_encoding, what=side)
        except BadInput:
            raise Withhold("the body cannot be unpacked") from None
        rules = [(place, Change(place.action, self._keys)) for place in places]
        context = Context(
            side=side,
            content_type=payload.content_type,
            headers=payload.headers,
            method=record.path.rpartition("/")[2],
            features=self._features,
        )
        written = redact_body(body, rules, context)
        found = [(place, change) for place, change in rules if change.count]
        if not found:
            return _Side(payload)
        return _Side(
            self._fitting(
                msgspec.structs.replace(
                    payload,
                    body=written.body,
                    content_encoding="",
                    headers={**payload.headers, **written.headers},
                    sha256=self._digest(payload),
                    sealed=self._sealed(record, side, found) or payload.sealed,
                )
            ),
            redactions(side, found),
        )

    def _fitting(self, payload: Payload) -> Payload:
        """The payload, packed if it has outgrown what a message of the bus can take."""
        if len(payload.body) + len(payload.sealed) <= self._body_bytes:
            return payload
        packed = gzip.compress(payload.body, mtime=0)
        if len(packed) + len(payload.sealed) > self._body_bytes:
            raise Withhold("the redacted body is longer than body_bytes")
        return msgspec.structs.replace(payload, body=packed, content_encoding="gzip")

    def _sealed(self, record: Inference, side: Side, found: list[tuple[Place, Change]]) -> bytes:
        taken: dict[str, list[object]] = {}
        for place, change in found:
            if change.action == "encrypt":
                taken.setdefault(f"{side}.{place.label}", []).extend(change.taken)
        if not taken or self._recipient is None:
            return b""
        return sealed.seal(taken, self._recipient, inference_id=record.id, side=side)

    def _withhold(self, payload: Payload, side: Side) -> _Side:
        return _Side(
            msgspec.structs.replace(payload, body=b"", sha256=self._digest(payload)),
            (Redaction(path=side, action="withhold"),),
        )

    def _digest(self, payload: Payload) -> str:
        """The keyed digest; nothing without a key, since a digest of few possible bodies gives them away."""
        return self._keys.digest(payload.sha256) if self._keys is not None and payload.sha256 else ""

    def _report(self, what: str, reason: str) -> None:
        if self._withheld % _LOG_EVERY == 0:
            _log.warning("%s is withheld: %s (%d so far)", what, reason, self._withheld + 1)
        self._withheld += 1


def _places(rule: RedactionRule, schema: FeatureSchema | None) -> list[Place]:
    if rule.feature_class is None:
        return [Place(rule)]
    features = () if schema is None else schema.features
    return [Place(rule, column=feature.name) for feature in features if getattr(feature, rule.feature_class)]


def _schema(config: RedactionConfig) -> FeatureSchema | None:
    if config.schema_file is None:
        return None
    try:
        schema = FeatureSchema.load(config.schema_file)
    except BadInput as error:
        raise ConfigError(f"redaction.schema_file: {error.what}", why=error.why, fix=error.fix) from error
    for rule in config.rules:
        if rule.feature_class and not any(getattr(feature, rule.feature_class) for feature in schema.features):
            raise ConfigError(
                f"redaction.rules: class {rule.feature_class}",
                why=f"no feature of {config.schema_file} is marked `{rule.feature_class}: true`",
                fix="mark the features there, or remove the rule",
            )
    return schema


def _recipient(config: RedactionConfig) -> X25519PublicKey | None:
    if config.seal_to is None:
        return None
    try:
        pem = config.seal_to.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"redaction.seal_to {config.seal_to}", why=f"it cannot be read: {error.strerror}", fix="name the file"
        ) from error
    try:
        return sealed.public_key(pem, origin=f"redaction.seal_to {config.seal_to}")
    except BadInput as error:
        raise ConfigError(error.what, why=error.why, fix=error.fix) from error
