"""What a frame of the spool holds: an inference, or feedback that somebody else's logger sent.

Feedback travels as an inference does, so that nothing that kills a process loses or repeats it, but under an agent of
its own: `seq` counts the inferences of an agent, and feedback is none.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from govern.record import Capture, Feedback, Inference, Payload

#: msgpack's fixarray of two: an inference is a map.
_ARRAY_OF_2: Final = 0x92
#: What is kept of a label that is no single value.
LABEL_CHARS_MAX: Final = 4096


class SentFeedback(Feedback, frozen=True, kw_only=True, omit_defaults=True):
    """Feedback as it was sent.

    Attributes:
        truth: the SeldonMessage that the label was made of, in which rules of redaction find their way; empty when
            there was none, or one too long to be carried.
    """

    truth: bytes = b""

    @property
    def record(self) -> Feedback:
        """What of it goes onto the bus."""
        return Feedback(**{name: getattr(self, name) for name in Feedback.__struct_fields__})


class CapturedFeedback(msgspec.Struct, frozen=True, array_like=True):
    """Feedback and how it was captured."""

    capture: Capture
    feedback: SentFeedback


Captured = Inference | CapturedFeedback

_inference: Final = msgspec.msgpack.Decoder(Inference).decode
_feedback: Final = msgspec.msgpack.Decoder(CapturedFeedback).decode


def decode(payload: bytes) -> Captured:
    """What a frame's payload holds.

    Raises:
        msgspec.DecodeError: neither of the two.
    """
    if payload[:1] == bytes([_ARRAY_OF_2]):
        return _feedback(payload)
    return _inference(payload)


def digested(record: Inference) -> Inference:
    """The record with the digests that its capture left for later: those of bodies that are all there."""
    request = record.request if "request" in record.missing else _digested(record.request)
    response = record.response if "response" in record.missing else _digested(record.response)
    if request is record.request and response is record.response:
        return record
    return msgspec.structs.replace(record, request=request, response=response)


def _digested(payload: Payload) -> Payload:
    if payload.sha256 or len(payload.body) < payload.size:
        return payload
    return msgspec.structs.replace(payload, sha256=hashlib.sha256(payload.body).hexdigest())
