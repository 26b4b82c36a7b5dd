"""Flows of captured inferences: what they hand to windows, what they give, and what becomes of those that fail."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from govern.bus.protocol import Message, Partition
from govern.codecs import v2
from govern.codecs.tensor import Tensor
from govern.errors import BadInput, Unavailable
from govern.pipeline.graph import OUTPUT
from govern.record import DeadLetter, Feedback, Inference, Verdict
from govern.runtime import flows as module
from govern.runtime import retry
from govern.runtime.flow import Call
from govern.runtime.flow.errors import Unreachable
from govern.runtime.flows import AT_ONCE, TRIES, Flows
from govern.runtime.loader import LoadedPipeline
from govern.runtime.outputs import lineage
from govern.runtime.task import Effects, PartitionTask
from govern.schema import Feature
from tests.runtime.acting import SCHEMA, loaded
from tests.runtime.conftest import START_NS, as_message, message_of, payload
from tests.runtime.flow.test_flow_property import numbers, tensor

TP = Partition("govern.n.inferences", 0)
CALLED = """
steps:
  - {name: double, model: {url: "http://nowhere"}}
  - {name: plain, detector: {type: isolation_forest, artifact: x}, batch: {size: 2}}
  - {name: behind, detector: {type: isolation_forest, artifact: x}, inputs: [double], batch: {size: 2}}
output: {steps: [double.outputs.a]}
"""


async def double(call: Call) -> Sequence[Tensor]:
    return [tensor(one.name, 2 * int(one.data[0])) for one in call.tensors]


def inference(i: int, *, answer: int = 0, **changes: Any) -> Inference:
    return Inference(
        **{
            "schema_version": 1,
            "id": f"i{i}",
            "request_id": f"r{i}",
            "namespace": "n",
            "service": "s",
            "model": "m",
            "protocol": "v2",
            "t_response": START_NS + i,
            "status_code": 200,
            "request": payload(v2.encode_request([tensor("a", i)])),
            "response": payload(v2.encode_response("m", [tensor("a", answer)])),
            **changes,
        }
    )


def messages(*inferences: Inference) -> list[Message]:
    return [message_of(one, offset=at, topic=TP.topic) for at, one in enumerate(inferences)]


class Worked:
    """One partition's task and the flows that run before it."""

    def __init__(self, *pipelines: LoadedPipeline, **options: Any) -> None:
        self.flows = Flows(pipelines, **options)
        self.task = PartitionTask(TP, "n", pipelines)

    async def of(self, *found: Inference | Message) -> Effects:
        start = self.task.position
        given = [
            one if isinstance(one, Message) else message_of(one, offset=start + at, topic=TP.topic)
            for at, one in enumerate(found)
        ]
        return self.task.process(given, await self.flows.run(given))


def rows(effects: Effects, step: str) -> list[tuple[str, int]]:
    verdicts: list[Verdict] = [one.verdict for one in effects.judgements if one.verdict.step == step]
    return [(one.instance_id, int(one.score)) for verdict in verdicts for one in verdict.instances]


def outputs(effects: Effects) -> list[tuple[str, dict[str, int]]]:
    return [
        (one.record.request_id, numbers(v2.decode_response(one.record.response.body).outputs))
        for one in effects.outputs
    ]


def steps(letters: Sequence[DeadLetter]) -> list[tuple[int, str]]:
    return [(one.source_offset, one.step) for one in letters]


async def test_a_called_model_feeds_a_window_and_gives_an_inference_of_its_own() -> None:
    effects = await Worked(loaded(CALLED, double=double)).of(inference(3), inference(4))
    assert not effects.dead_letters
    assert rows(effects, "plain") == [("i3/0", 3), ("i4/0", 4)]
    assert rows(effects, "behind") == [("i3/0", 6), ("i4/0", 8)]
    assert outputs(effects) == [("r3", {"a": 6}), ("r4", {"a": 8})]
    first = effects.outputs[0].record
    assert (first.service, first.model, lineage(first)) == ("s", "p", ("p",))
    assert numbers(v2.decode_request(first.request.body).inputs) == {"a": 3}


async def test_a_router_lets_a_detector_see_one_branch() -> None:
    spec = """
    steps:
      - {name: split, router: {strategy: weighted, seed: 1, routes: [{name: left}, {name: right}]}}
      - name: left-only
        detector: {type: isolation_forest, artifact: x}
        inputs: [p.inputs]
        triggers: [split.outputs.left]
        batch: {size: 1}
      - name: right-only
        detector: {type: isolation_forest, artifact: x}
        triggers: [split.outputs.right]
        batch: {size: 1}
    """
    worked = Worked(loaded(spec))
    effects = await worked.of(*(inference(i) for i in range(20)))
    left, right = rows(effects, "left-only"), rows(effects, "right-only")
    assert left
    assert right
    assert sorted([*left, *right]) == sorted((f"i{i}/0", i) for i in range(20))
    again = await Worked(loaded(spec)).of(*(inference(i) for i in range(20)))
    assert (rows(again, "left-only"), rows(again, "right-only")) == (left, right), (
        "a route follows from the request's id"
    )


async def test_the_captured_answer_is_joined_with_that_of_another_model() -> None:
    spec = """
    steps:
      - {name: m, model: {captured: true}}
      - {name: double, model: {url: "http://nowhere"}}
      - {name: both, combiner: {method: mean, output: a}, inputs: [m.outputs.a, double.outputs.a]}
      - {name: judge, detector: {type: isolation_forest, artifact: x}, inputs: [both], batch: {size: 1}}
    """
    worked = Worked(loaded(spec, double=double))
    effects = await worked.of(inference(4, answer=2), inference(5, response=payload(b"{")))
    assert rows(effects, "judge") == [("i4/0", 5)]
    assert steps(effects.dead_letters) == [(1, "m")]


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (BadInput("x is negative", why="it was not trained on that", fix="send x >= 0"), 1),
        (Unavailable("model", why="HTTP 500", fix="see its log"), TRIES),
        (ZeroDivisionError("a defect"), 1),
    ],
)
async def test_a_step_that_fails_makes_a_dead_letter_and_leaves_a_gap_behind_it(error: Exception, tries: int) -> None:
    asked = 0

    async def fails(call: Call) -> Sequence[Tensor]:
        nonlocal asked
        if int(call.tensors[0].data[0]) != 1:
            return await double(call)
        asked += 1
        raise error

    given = messages(inference(0), inference(1), inference(2))
    effects = await Worked(loaded(CALLED, double=fails)).of(*given)
    assert asked == tries
    (letter,) = effects.dead_letters
    assert (letter.pipeline, letter.step, letter.source_offset, letter.value) == ("p", "double", 1, given[1].value)
    assert str(error).partition(":")[0] in f"{letter.what} {letter.why}"
    assert rows(effects, "behind") == [("i0/0", 0), ("i2/0", 4)]
    assert [one.verdict.window.completeness for one in effects.judgements if one.verdict.step == "behind"] == [2 / 3]
    assert [name for name, _ in outputs(effects)] == ["r0", "r2"]
    assert rows(effects, "plain") == [("i0/0", 0), ("i1/0", 1)]


async def test_a_failed_flow_given_back_is_repeated_whole_and_nothing_else_is() -> None:
    broken = True

    async def fails(call: Call) -> Sequence[Tensor]:
        if broken:
            raise BadInput("no", why="no", fix="no")
        return await double(call)

    worked = Worked(loaded(CALLED, double=fails))
    (letter,) = (await worked.of(inference(1))).dead_letters
    broken = False
    given_back = as_message(retry.to_message(letter), offset=worked.task.position, topic=TP.topic)
    effects = await worked.of(given_back)
    assert outputs(effects) == [("r1", {"a": 2})]
    assert not effects.observed
    effects.extend(await worked.of(inference(2)))
    assert rows(effects, "behind") == [("i1/0", 2), ("i2/0", 4)]
    assert rows(effects, "plain") == [("i1/0", 1), ("i2/0", 2)], "it had judged the first one when it came"


async def test_what_one_detector_could_not_read_is_given_back_to_it_alone() -> None:
    name = "b"

    async def renames(call: Call) -> Sequence[Tensor]:
        return [tensor(name, int(call.tensors[0].data[0]))]

    spec = CALLED.replace("[double.outputs.a]", "[double]")
    worked = Worked(loaded(spec, double=renames))
    effects = await worked.of(inference(1))
    assert steps(effects.dead_letters) == [(0, "behind")]
    assert outputs(effects) == [("r1", {"b": 1})]
    name = "a"
    given_back = as_message(retry.to_message(effects.dead_letters[0]), offset=1, topic=TP.topic)
    again = await worked.of(given_back)
    assert not again.outputs, "they were given when it came first"
    again.extend(await worked.of(inference(2)))
    assert rows(again, "behind") == [("i1/0", 1), ("i2/0", 2)]
    assert rows(again, "plain") == [("i1/0", 1), ("i2/0", 2)]


async def test_two_outputs_of_one_name_are_nobody_elses_letter() -> None:
    spec = CALLED.replace("[double.outputs.a]", "[double, twice]")
    spec = spec.replace("  - {name: plain", '  - {name: twice, model: {url: "http://nowhere"}}\n  - {name: plain')
    worked = Worked(loaded(spec, double=double, twice=double))
    effects = await worked.of(inference(1))
    assert steps(effects.dead_letters) == [(0, OUTPUT)]
    given_back = as_message(retry.to_message(effects.dead_letters[0]), offset=1, topic=TP.topic)
    effects = await worked.of(given_back, inference(2))
    assert rows(effects, "plain") == [("i1/0", 1), ("i2/0", 2)]


async def test_a_model_that_is_away_is_waited_for_until_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKOFF_S", (0.0, 0.0))
    now, asked, away_until = 0.0, 0, 0.0

    async def comes_and_goes(call: Call) -> Sequence[Tensor]:
        nonlocal now, asked
        now, asked = now + 1, asked + 1
        if now < away_until:
            raise Unreachable("model", why="connection refused", fix="start it")
        return await double(call)

    worked = Worked(loaded(CALLED, double=comes_and_goes), patience_s=100.0, clock=lambda: now)
    away_until = 50.0
    effects = await worked.of(inference(0))
    assert (asked, steps(effects.dead_letters), outputs(effects)) == (50, [], [("r0", {"a": 0})])
    away_until, asked = 1000.0, 0
    effects = await worked.of(inference(1))
    assert steps(effects.dead_letters) == [(1, "double")]
    assert asked == 100
    asked = 0
    effects = await worked.of(inference(2))
    assert (asked, steps(effects.dead_letters)) == (1, [(2, "double")]), "patience is over, so once is enough"
    now, asked = 1000.0, 0
    await worked.of(inference(3))
    away_until = now + 50
    effects = await worked.of(inference(4))
    assert (steps(effects.dead_letters), [name for name, _ in outputs(effects)]) == ([], ["r4"]), "and it is new"


async def test_a_pipeline_whose_model_hangs_takes_no_room_from_others() -> None:
    hangs, others_done = asyncio.Event(), 0

    async def waits(call: Call) -> Sequence[Tensor]:
        await hangs.wait()
        return await double(call)

    async def counts(call: Call) -> Sequence[Tensor]:
        nonlocal others_done
        others_done += 1
        if others_done == 2 * AT_ONCE:
            hangs.set()
        return await double(call)

    worked = Worked(loaded(CALLED, double=waits), loaded(CALLED, name="q", double=counts))
    async with asyncio.timeout(60):
        effects = await worked.of(*(inference(i) for i in range(2 * AT_ONCE)))
    assert len(effects.outputs) == 4 * AT_ONCE


async def test_flows_run_side_by_side_and_no_more_than_so_many() -> None:
    under_way = most = 0
    full = asyncio.Event()

    async def waits(call: Call) -> Sequence[Tensor]:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        if under_way == AT_ONCE:
            full.set()
        await full.wait()
        under_way -= 1
        return await double(call)

    effects = await Worked(loaded(CALLED, double=waits)).of(*(inference(i) for i in range(2 * AT_ONCE)))
    assert most == AT_ONCE
    assert [one.record.request_id for one in effects.outputs] == [f"r{i}" for i in range(2 * AT_ONCE)]


async def test_a_ring_of_pipelines_ends_where_it_began() -> None:
    """What `p` gave is read by `q`, and what `q` makes of it by `p` no more."""
    first = loaded(CALLED.replace("steps:", "source: {service: s, model: q}\nsteps:", 1), double=double)
    second = loaded(CALLED.replace("steps:", "source: {service: s, model: p}\nsteps:", 1), name="q", double=double)
    worked = Worked(first, second)
    given: list[Inference] = [inference(1, model="q")]
    seen, read = [], []
    while given:
        effects = await worked.of(*given)
        read += [name for name, _ in effects.observed]
        given = [one.record for one in effects.outputs]
        seen += [(one.model, lineage(one)) for one in given]
        assert not effects.dead_letters
    assert seen == [("p", ("p",)), ("q", ("q", "p"))]
    assert read == ["p", "q"]


@pytest.mark.parametrize(
    "changes",
    [{"synthetic": True}, {"status_code": 500}, {"error": "reset"}, {"model": "other"}, {"service": "other"}],
)
async def test_no_model_is_asked_about_what_is_not_judged(changes: dict[str, Any]) -> None:
    async def never(call: Call) -> Sequence[Tensor]:
        raise AssertionError("it was asked")

    effects = await Worked(loaded(CALLED, double=never)).of(inference(1, **changes))
    assert not effects.dead_letters
    assert not effects.outputs


async def test_an_unreadable_request_is_one_letter_of_the_pipeline() -> None:
    worked = Worked(loaded(CALLED, double=double))
    effects = await worked.of(inference(1, request=payload(b"{")))
    assert steps(effects.dead_letters) == [(0, "")]
    assert not effects.outputs


async def test_rows_of_a_flow_survive_a_crash_in_the_checkpoint() -> None:
    one = loaded(CALLED, double=double)
    worked = Worked(one)
    await worked.of(inference(1))
    table = {key: value for key, value in worked.task.changed_state() if value is not None}
    heir = Worked(one)
    assert heir.task.restore(table, None) == 1
    effects = await heir.of(inference(2))
    assert rows(effects, "behind") == [("i1/0", 2), ("i2/0", 4)]


async def test_routers_learn_where_they_have_routed() -> None:
    spec = """
    steps:
      - {name: choice, router: {strategy: thompson, routes: [{name: good}, {name: bad}]}}
    output: {steps: [choice]}
    """
    one = loaded(spec)
    worked = Worked(one)
    (learner,) = worked.flows.learners()
    for i in range(40):
        ((request, route),) = outputs(await worked.of(inference(i)))
        reward = Feedback(schema_version=1, id=f"f{i}", request_id=request, reward=float("good" in route))
        assert learner.learn(reward)
    later = outputs(await worked.of(*(inference(i) for i in range(40, 60))))
    assert sum("good" in route for _, route in later) >= 18


async def test_columns_of_mixed_rows_reach_a_step_one_by_one() -> None:
    seen: list[tuple[str, str]] = []

    async def looks(call: Call) -> Sequence[Tensor]:
        seen.extend((one.name, one.datatype) for one in call.tensors)
        return call.tensors

    body = b'{"instances": [[1], ["2"]]}'
    effects = await Worked(loaded(CALLED, double=looks)).of(inference(1, protocol="v1", request=payload(body)))
    assert not effects.dead_letters
    assert seen == [("a", "FP64")]


async def test_what_only_the_flow_cannot_read_is_given_back_to_the_flow_alone() -> None:
    """A missing integer is no hindrance to a detector, and no tensor of V2."""
    count = Feature(name="a", kind="numeric", datatype="INT64")
    schema = replace(SCHEMA, features=(count, Feature(name="name", kind="text", datatype="BYTES")))
    worked = Worked(loaded(CALLED, schema=schema, double=double))
    body = b'{"instances": [[null, "x"], [1, "y"]]}'
    effects = await worked.of(inference(1, protocol="v1", request=payload(body)))
    assert steps(effects.dead_letters) == [(0, OUTPUT)]
    assert [one.verdict.step for one in effects.judgements] == ["plain"]
    effects = await worked.of(as_message(retry.to_message(effects.dead_letters[0]), offset=1, topic=TP.topic))
    assert steps(effects.dead_letters) == [(1, OUTPUT)]
    assert not effects.judgements


def test_what_is_not_called_needs_no_flow() -> None:
    detectors = "steps:\n  - {name: judge, detector: {type: isolation_forest, artifact: x}}\n"
    one = loaded(detectors)
    assert (one.flow, one.fed) == (None, frozenset())
    flows = Flows([one])
    assert not flows


async def test_a_connection_is_closed_when_its_flow_is_replaced() -> None:
    closed: list[str] = []

    def one(name: str) -> LoadedPipeline:
        found = loaded(CALLED, name=name, double=double)
        assert found.flow is not None
        found.flow._connections.stack.callback(closed.append, name)
        return found

    stays, goes = one("stays"), one("goes")
    before, after = Flows([stays, goes]), Flows([stays])
    await before.close(but=after)
    assert closed == ["goes"]
    await after.close()
    assert closed == ["goes", "stays"]
