"""Records that outgrow a message of the bus are shortened and say so: nothing may stop a worker for good."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from govern import record as records
from govern.bus.protocol import MAX_MESSAGE_BYTES, Outgoing
from govern.codecs import cloudevents
from govern.record import DeadLetter, ExplainRequest, Explanation, FeatureResult, InstanceResult, Verdict

#: What a message's key and headers may take beside the record.
_ENVELOPE_BYTES: Final = 8 * 1024
RECORD_BYTES_MAX: Final = MAX_MESSAGE_BYTES - _ENVELOPE_BYTES


def to_message(record: records.Record, *, source: str) -> Outgoing:
    """The bus message of a record, short enough for the bus.

    A verdict that is too long keeps as many of its instances and features as fit, those first that matter most; its
    window still says how many there were. A dead letter keeps a prefix of the original bytes; `source_*` name the rest.
    A request to explain loses its row and an explanation its attributions, so both end as failed explanations.
    """
    message = cloudevents.to_message(record, source=source)
    if len(message.value or b"") <= RECORD_BYTES_MAX:
        return message
    match record:
        case Verdict():
            return cloudevents.to_message(_shorter_verdict(record), source=source)
        case DeadLetter():
            return cloudevents.to_message(_shorter_letter(record), source=source)
        case ExplainRequest():
            return cloudevents.to_message(replace(record, inputs_json=""), source=source)
        case Explanation():
            return cloudevents.to_message(_untold(record), source=source)
        case _:
            return message


def _shorter_verdict(verdict: Verdict) -> Verdict:
    instances = sorted(verdict.instances, key=_strangeness)
    features = sorted(verdict.features, key=_improbability)

    def cut(share: float) -> Verdict:
        return replace(
            verdict,
            instances=tuple(instances[: math.floor(share * len(instances))]),
            features=tuple(features[: math.floor(share * len(features))]),
        )

    return cut(_largest_share(lambda share: len(records.encode(cut(share))) <= RECORD_BYTES_MAX))


def _strangeness(one: InstanceResult) -> tuple[bool, float]:
    return not one.flagged, -one.score


def _improbability(one: FeatureResult) -> tuple[bool, float]:
    return not one.is_drift, one.p_value


def _largest_share(fits: Callable[[float], bool]) -> float:
    """The largest share of the whole that fits, to a thousandth; 0 where not even that does."""
    low, high = 0, 1000
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle / 1000) else (low, middle - 1)
    return low / 1000


def _untold(explanation: Explanation) -> Explanation:
    n_features = len(explanation.attributions)
    return replace(
        explanation,
        status="failed",
        error=f"the explanation of {n_features} features is longer than a message of the bus",
        attributions=(),
        reasons=(),
    )


def _shorter_letter(letter: DeadLetter) -> DeadLetter:
    excess = len(records.encode(letter)) - RECORD_BYTES_MAX
    return replace(letter, value=letter.value[: max(0, len(letter.value) - excess)])
