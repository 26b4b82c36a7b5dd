"""What a partition of inferences, and one of parts, gives: whatever the order of the streams and whoever crashes."""

from __future__ import annotations

import json
from dataclasses import replace as with_fields
from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from govern.bus import Message, Outgoing, Partition
from govern.codecs.inference import request_tensors
from govern.record import Inference, Redaction, encode
from govern.runtime import retry
from govern.runtime.chained import parts
from govern.runtime.chained.joins import SILENT_NS
from govern.runtime.chained.tasks import JoinedPipeline, JoinTask, Made, SortTask
from tests.runtime.chained.conftest import SCHEMA, called, column
from tests.runtime.conftest import START_NS, as_message, message_of

INFERENCES = Partition("govern.default.inferences", 0)
PARTS = Partition("govern.default.joins", 0)


def sorted_parts(both: JoinedPipeline, *inferences: Inference) -> Made:
    task = SortTask(INFERENCES, "default", [both])
    return task.process(message_of(one, at) for at, one in enumerate(inferences))


def joined_of(both: JoinedPipeline, messages: list[Message]) -> Made:
    return JoinTask(PARTS, "default", [both]).process(messages)


def on_topic(messages: list[Outgoing]) -> list[Message]:
    return [as_message(one, at, topic=PARTS.topic) for at, one in enumerate(messages)]


def test_the_parts_of_a_request_become_one_request(both: JoinedPipeline) -> None:
    price, stock = called("price", 7), called("stock", 7, 400)
    stock = replace(stock, redactions=(Redaction(path="response.name", action="drop"),))
    made = joined_of(both, on_topic(sorted_parts(both, stock, price).parts))
    ((request, lane),) = made.requests
    assert (request.service, request.model, request.request_id, lane) == ("shop", "both.inputs", "request-7", 0)
    assert (request.t_request, request.t_response) == (price.t_request, stock.t_response)
    assert request.redactions == stock.redactions
    assert request.capture.agent == "both.inputs/agent-price"
    found = {tensor.name: tensor.data.tolist() for tensor in request_tensors(request, SCHEMA)}
    assert found == {"x": [[7.0]], "y": [[70.0]], "z": [[70.0]]}


def test_what_does_not_bring_what_is_read_is_no_part(both: JoinedPipeline) -> None:
    other = called("price", 1, outputs=[column("q", 1.0)])
    failed = replace(called("stock", 1), status_code=500)
    synthetic = replace(called("stock", 1), synthetic=True)
    made = sorted_parts(both, other, failed, synthetic, called("other", 1))
    assert [parts.decode_part(one.value or b"").port for one in made.parts] == [0]  # its inputs
    assert made.dead_letters == []


def test_what_cannot_be_read_or_joined_is_a_dead_letter(both: JoinedPipeline) -> None:
    cut = replace(called("stock", 1), truncated=("response",))
    (letter,) = sorted_parts(both, cut).dead_letters
    assert (letter.pipeline, letter.source_topic, "cut" in letter.what) == ("both", INFERENCES.topic, True)
    again = retry.to_message(replace(letter, value=encode(called("stock", 1)), value_size=0))
    assert len(SortTask(INFERENCES, "default", [both]).process([as_message(again, 1)]).parts) == 1

    chain = both.chain
    unnamed = with_fields(chain.inputs[2], port=with_fields(chain.inputs[2].port, names={}))
    alike = with_fields(both, chain=with_fields(chain, inputs=(*chain.inputs[:2], unnamed)))
    made = joined_of(alike, on_topic(sorted_parts(alike, called("price", 1), called("stock", 1)).parts))
    (letter,) = made.dead_letters
    assert (letter.pipeline, letter.what, made.requests) == ("both", "tensor 'y' arrives twice", [])


def test_who_waits_for_a_silent_stream_is_given_up_when_somebody_has_watched_for_long_enough(
    both: JoinedPipeline,
) -> None:
    task = JoinTask(PARTS, "default", [both])
    arrived = START_NS // 10**6 * 10**6
    task.restore({}, None, arrived)
    task.process(on_topic(sorted_parts(both, called("price", 1)).parts))
    over = arrived + 10**9 + SILENT_NS
    assert dict(task.expire(over).dropped) == {}
    assert dict(task.expire(over + 10**7).dropped) == {"both": 1}


def test_what_waits_for_a_pipeline_that_was_taken_out_or_joins_less_is_deleted(both: JoinedPipeline) -> None:
    task = JoinTask(PARTS, "default", [both])
    task.process(on_topic(sorted_parts(both, called("price", 1), called("stock", 2)).parts))
    table = {key: value for key, value in task.changed_state() if value is not None}
    less = with_fields(both, chain=with_fields(both.chain, inputs=both.chain.inputs[:2]))
    for pipelines, kept in (([], set[str]()), ([less], {"request-1"})):
        heir, rest = JoinTask(PARTS, "default", pipelines), dict(table)
        heir.restore(table, None, START_NS)
        for key, value in heir.changed_state():
            rest.pop(key, None) if value is None else rest.__setitem__(key, value)
        assert {json.loads(key)[1] for key in rest if key != parts.POSITION_KEY} == kept


calls = st.lists(st.integers(0, 5), max_size=8, unique=True)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=40)
@given(calls, calls, st.randoms(use_true_random=False))
def test_any_interleaving_and_any_crashes_give_the_requests_that_an_uninterrupted_run_gives(
    both: JoinedPipeline, prices: list[int], stocks: list[int], chance: Random
) -> None:
    """Two partitions of inferences, one model in each; crashes lose what was not committed."""
    streams = []
    for model, numbers in (("price", prices), ("stock", stocks)):
        stream = [called(model, number, 300 * at) for at, number in enumerate(numbers)]
        last = called(model, 99, 10**6)  # all windows are over
        streams.append(on_topic(sorted_parts(both, *stream, last).parts))
    expected = joined_of(both, _numbered([*streams[0], *streams[1]]))

    order = [number for number, stream in enumerate(streams) for _ in stream]
    chance.shuffle(order)
    rest = [iter(stream) for stream in streams]
    topic = _numbered([next(rest[number]) for number in order])
    task, table, published, at = JoinTask(PARTS, "default", [both]), dict[bytes, bytes](), Made(), 0
    while at < len(topic):
        made = task.process(topic[at : at + chance.randint(1, 4)])
        committed = chance.random() < 0.7
        if committed:
            for key, value in task.changed_state():
                table.pop(key, None) if value is None else table.__setitem__(key, value)
            published.requests += made.requests
            at = task.position
        if not committed or chance.random() < 0.3:
            task = JoinTask(PARTS, "default", [both])
            assert task.restore(table, None, START_NS) == at
    assert sorted(encode(one) for one, _ in published.requests) == sorted(encode(one) for one, _ in expected.requests)
    assert set(table) == {parts.POSITION_KEY, *(key for key in table if b"request-99" in key)}


def _numbered(messages: list[Message]) -> list[Message]:
    return [replace(one, offset=at) for at, one in enumerate(messages)]
