"""Feedback under the rules: the truth that was sent, and the label that is made of it."""

from __future__ import annotations

import msgspec

from govern.codecs.seldon_message import decode_truth
from govern.mirror.captured import LABEL_CHARS_MAX, SentFeedback
from govern.mirror.redaction.body import Context, Rules, redact_body, redactions
from govern.mirror.redaction.change import Withhold


def redact_truth(feedback: SentFeedback, rules: Rules, features: tuple[str, ...]) -> SentFeedback:
    """Apply the rules to the truth as to a response, and make the label anew of what they leave.

    Raises:
        Withhold: as `redact_body`, or the truth was not carried.
        DecodeError: what they leave is no message any more.
    """
    if not feedback.truth:
        raise Withhold("the message that the label is of was not carried")
    context = Context(side="response", content_type="application/json", headers={}, method="", features=features)
    truth = redact_body(feedback.truth, rules, context).body
    done = redactions("truth", rules)
    if not done:
        return feedback
    return msgspec.structs.replace(
        feedback,
        label=decode_truth(truth)[:LABEL_CHARS_MAX],
        truth=truth,
        redactions=(*feedback.redactions, *done),
    )
