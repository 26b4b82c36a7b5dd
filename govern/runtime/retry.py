"""Dead letters given back to the topic that they came from, for whoever gave them up. Pure.

A retried message says in CloudEvents extension attributes which dead letter it is and who is to read it, so that the
pipelines and steps that had judged it the first time do not judge it twice.
https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md#extension-context-attributes
"""

from __future__ import annotations

from typing import Final, NamedTuple

from govern.bus.protocol import Message, Outgoing
from govern.errors import BadInput
from govern.record import DeadLetter

_LETTER: Final = "ce_governletter"
_PIPELINE: Final = "ce_governpipeline"
_STEP: Final = "ce_governstep"


class Target(NamedTuple):
    """Who is to read a retried message; "" is everybody."""

    pipeline: str
    step: str

    def names(self, pipeline: str) -> bool:
        return self.pipeline in ("", pipeline)

    def takes(self, step: str) -> bool:
        return self.step in ("", step)


EVERYBODY: Final = Target("", "")


def to_message(letter: DeadLetter) -> Outgoing:
    """The original message, once more on its partition.

    Raises:
        BadInput: the letter does not hold all of the original.
    """
    if not letter.value or len(letter.value) < letter.value_size:
        held = f"it holds {len(letter.value):,} of the {letter.value_size:,} bytes of the original"
        raise BadInput(
            f"dead letter {letter.id}",
            why=f"{held}, which the bus has deleted" if letter.value_size else "the original had no value",
            fix="have the producer send it again",
        )
    before = [(name, value) for name, value in letter.headers.items() if name not in (_LETTER, _PIPELINE, _STEP)]
    addressed = ((_LETTER, letter.id), (_PIPELINE, letter.pipeline), (_STEP, letter.step))
    return Outgoing(
        key=letter.key,
        value=letter.value,
        headers=(*before, *((name, text.encode()) for name, text in addressed if text)),
        partition=letter.source_partition,
    )


def target(message: Message) -> Target | None:
    """Who is to read a message; None where it is no retried one."""
    headers = dict(message.headers)
    if _LETTER not in headers:
        return None
    return Target(headers.get(_PIPELINE, b"").decode(), headers.get(_STEP, b"").decode())
