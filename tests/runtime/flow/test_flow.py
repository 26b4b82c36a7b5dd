"""The graphs that Seldon Core v2's documentation shows, in their form, and how requests fail."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from govern.errors import BadInput, ConfigError, Unavailable
from govern.runtime.flow import Flow, FlowModel
from govern.runtime.flow.errors import DeadlinePassed, NoOutput, StepFailed, StepRefused, TooManyVisits
from govern.runtime.serving.model import ModelMetadata
from tests.runtime.flow.conftest import flow_of, graph_of, numbers, step, tensors
from tests.runtime.flow.virtual import run

CHAIN = """
steps:
  - {name: one}
  - {name: two, inputs: [one], tensorMap: {one.outputs.y: x}}
output: {steps: [two]}
"""
CONDITIONAL = """
steps:
  - {name: choose}
  - {name: ten, inputs: [choose.outputs.big], tensorMap: {choose.outputs.big: x}}
  - {name: add, inputs: [choose.outputs.small], tensorMap: {choose.outputs.small: x}}
output: {steps: [ten, add], stepsJoin: any}
"""
TRIGGERS = """
steps:
  - {name: mul, inputs: [p.inputs.x], triggers: [p.inputs.ok1, p.inputs.ok2], triggersJoinType: any}
  - {name: add, inputs: [p.inputs.x], triggers: [p.inputs.ok3]}
output: {steps: [mul, add], stepsJoin: any}
"""
COUNTER = """
allowCycles: true
maxStepRevisits: 100
steps:
  - {name: counter, inputsJoinType: any, inputs: [p.inputs, again.outputs]}
  - {name: out, inputs: [counter.outputs], triggers: [counter.outputs.stop], joinWindowMs: 1}
  - {name: again, inputs: [counter.outputs.x], triggers: [counter.outputs.continue], joinWindowMs: 1}
output: {steps: [out.outputs]}
"""


async def given(flow: Flow, **inputs: float) -> dict[str, float]:
    return numbers((await flow.run(tensors(**inputs), request_id="r")).outputs)


def same(**values: float) -> dict[str, float]:
    return values


async def test_a_chain_renames_on_its_way() -> None:
    flow = flow_of(CHAIN, one=lambda x: {"y": x + 1}, two=lambda x: {"z": x * 2})
    assert await given(flow, x=3) == {"z": 8}


async def test_a_step_that_returns_one_tensor_or_the_other_chooses_the_branch() -> None:
    flow = flow_of(
        CONDITIONAL,
        choose=lambda x: {"big" if x > 5 else "small": x},
        ten=lambda x: {"y": x * 10},
        add=lambda x: {"y": x + 10},
    )
    assert await given(flow, x=6) == {"y": 60}
    assert await given(flow, x=1) == {"y": 11}
    outcome = await flow.run(tensors(x=1), request_id="r")
    assert outcome.visits == {"choose": 1, "add": 1}


@pytest.mark.parametrize(("ok", "answer"), [("ok1", {"y": 20}), ("ok2", {"y": 20}), ("ok3", {"y": 12}), ("no", {})])
async def test_triggers_start_a_step_and_do_not_reach_it(ok: str, answer: dict[str, float]) -> None:
    flow = flow_of(TRIGGERS, mul=lambda x: {"y": x * 10}, add=lambda x: {"y": x + 10})
    assert await given(flow, x=2, **{ok: 1}) == answer


@pytest.mark.parametrize(("start", "visits"), [(0, 10), (9, 1), (42, 1)])
async def test_a_loop_ends_when_a_step_says_so(start: int, visits: int) -> None:
    flow = flow_of(
        COUNTER, counter=lambda x, **_: {"x": x + 1, "continue" if x + 1 < 10 else "stop": 0}, out=same, again=same
    )
    outcome = await flow.run(tensors(x=start), request_id="r")
    assert numbers(outcome.outputs)["x"] == max(10, start + 1)
    assert outcome.visits == {"counter": visits, "out": 1} | ({"again": visits - 1} if visits > 1 else {})


async def test_a_loop_without_end_is_ended_by_the_limit() -> None:
    flow = flow_of(COUNTER, counter=lambda x, **_: {"x": x + 1, "continue": 0}, out=same, again=same)
    with pytest.raises(TooManyVisits, match=r"step 'counter': request 'r' has come back 100 times.*maxStepRevisits"):
        await given(flow, x=0)


async def test_two_inputs_that_bring_one_name_are_told_apart_by_a_tensor_map() -> None:
    text = "{steps: [{name: one}, {name: two}, {name: both, inputs: [one, two]}], output: {steps: [both]}}"
    flow = flow_of(text, one=same, two=same, both=same)
    with pytest.raises(StepRefused, match=r"step 'both': tensor 'x' arrives twice: one brings it.*tensorMap"):
        await given(flow, x=1)
    flow = flow_of("{steps: [{name: one}, {name: two}], output: {steps: [one, two]}}", one=same, two=same)
    with pytest.raises(ConfigError, match="tensor 'x' arrives twice"):
        await given(flow, x=1)


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        (BadInput("x is negative", why="so", fix="do"), StepRefused, 422),
        (Unavailable("the store", why="so", fix="do"), StepFailed, 503),
        (ZeroDivisionError("a defect"), StepFailed, 500),
    ],
)
async def test_a_failure_names_its_step_and_keeps_its_status(error: Exception, kind: Any, status: int) -> None:
    def fail(**_: float) -> dict[str, float]:
        raise error

    with pytest.raises(kind, match="pipeline 'p', step 'two'") as caught:
        await given(flow_of(CHAIN, one=lambda x: {"y": x}, two=fail), x=1)
    assert caught.value.http_status == status
    assert caught.value.__cause__ is error


def test_of_two_that_fail_the_first_in_the_file_is_reported_however_slow_and_what_runs_is_ended() -> None:
    ended: list[str] = []

    def failing(name: str, after_s: float) -> Any:
        async def call(_: Any) -> Any:
            try:
                await asyncio.sleep(after_s)
            except asyncio.CancelledError:
                ended.append(name)
                raise
            raise ValueError(name)

        return call

    text = "{steps: [{name: slow}, {name: fast}, {name: endless}], output: {steps: [slow]}}"
    steps = {"slow": failing("slow", 5), "fast": failing("fast", 1), "endless": failing("endless", 1e9)}
    with pytest.raises(StepFailed, match="'slow' failed: ValueError: slow"):
        run(Flow(graph_of(text), steps).run(tensors(x=1), request_id="r"))
    assert ended == ["endless"]


def test_the_deadline_names_who_was_under_way_and_ends_them() -> None:
    ended: list[str] = []

    async def endless(_: Any) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("endless")

    text = "{steps: [{name: quick}, {name: endless}], output: {steps: [quick]}}"
    flow = Flow(graph_of(text), {"quick": step(same), "endless": endless})
    with pytest.raises(DeadlinePassed, match="endless had not answered after 2 s"):
        run(flow.run(tensors(x=1), request_id="r", deadline_s=2))
    assert ended == ["endless"]


def test_who_gives_up_waiting_ends_the_steps() -> None:
    ended: list[str] = []

    async def endless(_: Any) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("endless")

    async def give_up() -> None:
        flow = Flow(graph_of("{steps: [{name: endless}], output: {steps: [endless]}}"), {"endless": endless})
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await flow.run(tensors(x=1), request_id="r")
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(give_up())
    assert ended == ["endless"]


async def test_a_step_that_says_nothing_of_one_request_is_idle_and_so_is_who_reads_it() -> None:
    text = "{steps: [{name: one}, {name: watched}, {name: after, inputs: [watched]}], output: {steps: [one]}}"
    flow = flow_of(text, one=same, after=same)
    assert flow.idle == {"watched", "after"}
    assert await given(flow, x=1) == {"x": 1}
    with pytest.raises(ConfigError, match=r"its output reads after.*waits for one that says nothing"):
        flow_of(text.replace("steps: [one]}", "steps: [after]}"), one=same, after=same)


async def test_a_model_needs_an_output_and_says_when_nothing_reached_it() -> None:
    nothing = ModelMetadata(name="p", inputs=(), outputs=())
    with pytest.raises(ConfigError, match="pipeline 'p' has no output"):
        FlowModel(flow_of("{steps: [{name: one}]}", one=same), nothing)
    model = FlowModel(flow_of(TRIGGERS, mul=same, add=same), nothing)
    with pytest.raises(NoOutput, match="steps that ran: none"):
        await model.infer(tensors(x=1))
    assert numbers(await model.infer(tensors(x=1, ok3=1), request_id="r")) == {"x": 1}
    await model.close()
