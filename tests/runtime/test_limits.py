"""Nothing is too long for the bus: what would be is shortened, keeps what matters most, and says so."""

from __future__ import annotations

import math

import pytest

from govern import record as records
from govern.bus.protocol import MAX_MESSAGE_BYTES, Outgoing
from govern.codecs import cloudevents
from govern.record import (
    Attribution,
    DeadLetter,
    ExplainRequest,
    Explanation,
    FeatureResult,
    InstanceResult,
    Verdict,
    Window,
)
from govern.runtime.limits import to_message

INSTANCES = tuple(
    InstanceResult(instance_id=f"i/{n}", request_id=f"{n}" * 400, score=float(n % 97), flagged=n % 50 == 0)
    for n in range(3000)
)
FEATURES = tuple(
    FeatureResult(feature=f"feature-{n}" * 20, p_value=(n * 7919 % 9000) / 9000, is_drift=n % 500 == 0)
    for n in range(9000)
)


def read(kind: type[records.R], message: Outgoing) -> records.R:
    size = len(message.key) + len(message.value or b"") + sum(len(k) + len(v) for k, v in message.headers)
    assert size <= MAX_MESSAGE_BYTES
    return records.decode(kind, message.value or b"")


@pytest.mark.parametrize(
    "record",
    [
        Verdict(id="v", instances=INSTANCES[:100]),
        DeadLetter(id="d", value=b"x" * 900_000),
        ExplainRequest(id="e", inputs_json="{}"),
    ],
    ids=lambda record: type(record).__name__,
)
def test_what_fits_is_left_alone(record: records.Record) -> None:
    assert to_message(record, source="/t") == cloudevents.to_message(record, source="/t")


def test_a_long_verdict_keeps_the_flagged_and_strangest_instances() -> None:
    verdict = Verdict(id="v", alarm=True, instances=INSTANCES, window=Window(n_instances=len(INSTANCES)))
    found = read(Verdict, to_message(verdict, source="/t"))
    assert (found.alarm, found.window.n_instances) == (True, 3000)
    kept = {one.instance_id for one in found.instances}
    assert {one.instance_id for one in INSTANCES if one.flagged} <= kept
    weakest = min(one.score for one in found.instances if not one.flagged)
    assert all(one.instance_id in kept for one in INSTANCES if one.score > weakest)
    assert len(records.encode(found)) > 0.9 * MAX_MESSAGE_BYTES, "as many as fit"


def test_a_long_verdict_keeps_the_drifted_and_least_probable_features() -> None:
    found = read(Verdict, to_message(Verdict(id="v", features=FEATURES), source="/t"))
    kept = {one.feature for one in found.features}
    assert {one.feature for one in FEATURES if one.is_drift} <= kept
    likeliest = max(one.p_value for one in found.features if not one.is_drift)
    assert all(one.feature in kept for one in FEATURES if one.p_value < likeliest)


def test_a_long_dead_letter_keeps_the_beginning_and_says_how_long_it_was() -> None:
    letter = DeadLetter(id="d", source_topic="t", source_offset=7, value=b"ab" * 600_000, value_size=1_200_000)
    found = read(DeadLetter, to_message(letter, source="/t"))
    assert found.value_size == 1_200_000
    assert 900_000 < len(found.value) < 1_000_000
    assert letter.value.startswith(found.value)
    assert (found.source_topic, found.source_offset) == ("t", 7)


def test_a_row_too_long_to_be_handed_on_is_asked_for_without_it() -> None:
    request = ExplainRequest(id="e", request_id="r", inputs_json="[" + "1," * 800_000 + "1]")
    found = read(ExplainRequest, to_message(request, source="/t"))
    assert (found.id, found.request_id, found.inputs_json) == ("e", "r", "")


def test_an_explanation_of_too_many_features_says_that_it_cannot_be_told() -> None:
    shares = tuple(Attribution(feature=f"feature-{n}" * 20, contribution=math.pi) for n in range(9000))
    found = read(Explanation, to_message(Explanation(id="e", status="ok", attributions=shares), source="/t"))
    assert (found.id, found.status, found.attributions) == ("e", "failed", ())
    assert "9000 features" in found.error
