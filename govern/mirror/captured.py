"""What a frame of the spool holds: an inference, or feedback that somebody else's logger sent.

Feedback travels as an inference does, so that nothing that kills a process loses or repeats it, but under an agent of
its own: `seq` counts the inferences of an agent, and feedback is none.
"""

from __future__ import annotations

from typing import Final

import msgspec

from govern.record import Capture, Feedback, Inference

#: msgpack's fixarray of two: an inference is a map.
_ARRAY_OF_2: Final = 0x92


class CapturedFeedback(msgspec.Struct, frozen=True, array_like=True):
    """Feedback and how it was captured."""

    capture: Capture
    feedback: Feedback


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
