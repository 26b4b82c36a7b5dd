"""What a frame of the spool holds: an exchange, an inference, or feedback that somebody else's logger sent.

Feedback travels as an inference does, so that nothing that kills a process loses or repeats it, but under an agent of
its own: `seq` counts the inferences of an agent, and feedback is none.
"""

from __future__ import annotations

from typing import Final

import msgspec

from govern.mirror.seen import Seen, inference
from govern.record import Capture, Feedback, Inference

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
_seen: Final = msgspec.msgpack.Decoder(Seen).decode
#: The first bytes of msgpack's arrays of so many elements: an inference is a map.
_FEEDBACK: Final = bytes([0x90 + len(CapturedFeedback.__struct_fields__)])
_SEEN: Final = bytes([0x90 + len(Seen.__struct_fields__)])


def decode(payload: bytes) -> Captured:
    """What a frame's payload holds.

    Raises:
        msgspec.DecodeError: none of the three.
    """
    first = payload[:1]
    if first == _SEEN:
        return inference(_seen(payload))
    if first == _FEEDBACK:
        return _feedback(payload)
    return _inference(payload)
