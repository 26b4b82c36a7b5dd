"""Whether a step runs, and on what: the joins of its inputs and triggers, for one request.

| join | of inputs | of triggers |
| --- | --- | --- |
| inner | all must have arrived, and all are passed on | all must have arrived |
| outer | at least one must have arrived, and those that have are passed on | at least one must have arrived |
| any | the first that has arrived is passed on, alone | at least one must have arrived |

A step runs when both joins are met; one without triggers needs its inputs only. An input has *arrived* when the step
that it names returned something, or, where it names a tensor, that tensor.

Nothing here depends on time. On topics nobody knows what will still come, so Seldon waits `joinWindowMs` and takes for
`any` what came first. Inside one call it is known: a step that cannot run any more is settled like one that has
answered. So `outer` waits for what can come and not for a window, `any` takes the first in the order in which the
inputs are written (waiting for those before it to be settled), and `joinWindowMs` has nothing to say; what bounds a
slow step is its own timeout and the deadline of the request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from govern.pipeline.spec import JoinType
from govern.runtime.flow.message import NOTHING, Message


class Undecided(Enum):
    """WAIT: what is missing can still come. NEVER: it cannot, and the step does not run."""

    WAIT = auto()
    NEVER = auto()


WAIT: Final = Undecided.WAIT
NEVER: Final = Undecided.NEVER
#: The positions of the inputs that are passed on.
Decision = tuple[int, ...] | Undecided


@dataclass(frozen=True, slots=True)
class Arrival:
    """What is known of one input or trigger.

    Attributes:
        message: None while its step is not settled.
        stale: whether an earlier visit in the same loop saw it already; then it is there, but starts no visit.
    """

    message: Message | None
    stale: bool = False


def decide(
    inputs_join: JoinType, inputs: Sequence[Arrival], triggers_join: JoinType, triggers: Sequence[Arrival]
) -> Decision:
    """Whether the step runs, as soon as what is settled decides it. What is settled later never changes it."""
    chosen = _inputs(inputs_join, inputs)
    allowed = _triggers(triggers_join, triggers)
    if NEVER in (chosen, allowed):
        return NEVER
    if WAIT in (chosen, allowed):
        return WAIT
    fresh = [one for one in (*inputs, *triggers) if not one.stale]
    if any(one.message for one in fresh):
        return chosen
    return WAIT if any(one.message is None for one in fresh) else NEVER


def _inputs(join: JoinType, arrivals: Sequence[Arrival]) -> Decision:
    messages = [one.message for one in arrivals]
    match join:
        case "inner":
            if NOTHING in messages:
                return NEVER
            return WAIT if None in messages else tuple(range(len(messages)))
        case "outer":
            if None in messages:
                return WAIT
            return tuple(position for position, one in enumerate(messages) if one) or NEVER
        case "any":
            order = sorted(range(len(arrivals)), key=lambda position: arrivals[position].stale)
            for position in order:
                if messages[position] is None:
                    return WAIT
                if messages[position]:
                    return (position,)
            return NEVER


def _triggers(join: JoinType, arrivals: Sequence[Arrival]) -> Decision:
    messages = [one.message for one in arrivals]
    if not messages:
        return ()
    if join == "inner":
        return _inputs("inner", arrivals)
    if any(messages):
        return ()
    return WAIT if None in messages else NEVER
