"""What came of asking a step, as the caller is told: a header of the response, or a refusal in the response's stead.

The header is an item of RFC 8941: a token (`ok`, `alarm`, `unjudged`, `skipped`) with parameters. Numbers are strings
in it, because a decimal of RFC 8941 ends after three digits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from govern.errors import GovernError
from govern.mirror.inline.config import InlineConfig, InlineStep

#: `skipped`: there was nothing for the step to judge. `unjudged`: it should have judged and did not.
Said = Literal["ok", "alarm", "unjudged", "skipped"]
#: Why a step did not judge that may well do so when it is asked again; a body stays too long.
_PASSING_REASONS_END = "too-long"


class Outcome(NamedTuple):
    """
    Attributes:
        reason: why there is no judgement, a token.
    """

    step: InlineStep
    said: Said
    reason: str = ""
    score: float | None = None
    threshold: float | None = None

    @property
    def field(self) -> bytes:
        """The value of the step's header."""
        numbers = {"score": self.score, "threshold": self.threshold}
        told = [f'{name}="{value!r}"' for name, value in numbers.items() if value is not None]
        return "; ".join([self.said, *([f"reason={self.reason}"] if self.reason else []), *told]).encode()


class Refusal(NamedTuple):
    """What the caller gets in the model's stead.

    Attributes:
        retry: whether the same call may pass a moment later.
    """

    status: int
    step: str
    error: GovernError
    retry: bool


class Blocked(GovernError):
    """A step alarmed that may block."""

    code = "inline-alarm"


class Unjudged(GovernError):
    """A step gave no judgement without which no call may pass."""

    code = "inline-unjudged"


def headers(outcomes: Iterable[Outcome]) -> dict[bytes, bytes]:
    """The response headers that tell of the outcomes."""
    return {outcome.step.header.encode(): outcome.field for outcome in outcomes}


def refusal(inline: InlineConfig, outcomes: Sequence[Outcome]) -> Refusal | None:
    """Why a call must not pass, if so: an alarm before a judgement that is missing, and then in the steps' order."""
    for outcome in outcomes:
        name = outcome.step.step
        if outcome.said == "alarm" and outcome.step.on_alarm == "block":
            error: GovernError = Blocked(
                f"the step {name} blocks this call",
                why=f"it scores {outcome.score}, its threshold is {outcome.threshold}",
                fix=f"see the step {name} of the pipeline {inline.pipeline}",
            )
            return Refusal(inline.block_status, name, error, retry=False)
    for outcome in outcomes:
        name = outcome.step.step
        if outcome.said == "unjudged" and outcome.step.on_failure == "closed":
            retry = outcome.reason != _PASSING_REASONS_END
            error = Unjudged(
                f"the step {name} could not judge this call",
                why=outcome.reason,
                fix="send the call again" if retry else f"send at most {inline.body_bytes} bytes (inline.body_bytes)",
            )
            return Refusal(503, name, error, retry)
    return None
