"""Past verdicts on what called steps said: the models are asked again, and their other answers are told as such."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from govern.bus import open_bus
from govern.bus.topics import specs, topic
from govern.codecs import cloudevents
from govern.codecs.tensor import Tensor
from govern.record import Verdict
from govern.runtime.flow import Call
from govern.runtime.loader import LoadedPipeline
from govern.runtime.past import Past
from govern.runtime.replay import Replayed
from tests.runtime.acting import loaded
from tests.runtime.flow.test_flow_property import tensor
from tests.runtime.test_flows import CALLED, Worked, double, inference

SAYS_LOCALLY = """
steps:
  - {name: m, model: {captured: true}}
  - {name: same, combiner: {method: mean, output: a}, inputs: [m.outputs.a]}
  - {name: behind, detector: {type: isolation_forest, artifact: x}, inputs: [same], batch: {size: 2}}
"""


async def triple(call: Call) -> Sequence[Tensor]:
    return [tensor(one.name, 3 * int(one.data[0])) for one in call.tensors]


async def silence(call: Call) -> Sequence[Tensor]:
    return []


async def replayed(
    folder: Path, then: LoadedPipeline, now: LoadedPipeline, *, score: float = 0.0
) -> dict[tuple[str, int], Replayed]:
    """Six inferences judged then and replayed now; by step and first offset.

    Args:
        score: what the records say of every row instead of what was judged; 0 for the truth.
    """
    given = [inference(i, answer=i) for i in range(6)]
    async with open_bus(f"embedded://{folder / 'bus.db'}") as bus:
        await bus.ensure_topics(specs("n", partitions=1))
        await bus.publish(topic("n", "inferences"), [cloudevents.to_message(one, source="/test") for one in given])
        judged = [one.verdict for one in (await Worked(then).of(*given)).judgements]
        said = [altered(one, score) if score else one for one in judged]
        await bus.publish(topic("n", "verdicts"), [cloudevents.to_message(one, source="/test") for one in said])
        past = Past(bus, "n")
        verdicts = await past.verdicts(lambda _: True)
        found = [one async for one in past.replay(verdicts, {"p": now})]
    return {(one.recorded.step, one.recorded.window.first_offset): one for one in found}


def altered(verdict: Verdict, score: float) -> Verdict:
    return replace(verdict, instances=tuple(replace(one, score=score) for one in verdict.instances))


async def test_who_is_asked_again_and_answers_the_same_gives_the_same_bits(tmp_path: Path) -> None:
    asked = 0

    async def counting(call: Call) -> Sequence[Tensor]:
        nonlocal asked
        asked += 1
        return await double(call)

    found = await replayed(tmp_path, loaded(CALLED, double=double), loaded(CALLED, double=counting))
    assert {key: one.outcome for key, one in found.items()} == dict.fromkeys(
        [(step, offset) for step in ("plain", "behind") for offset in (0, 2, 4)], "identical"
    )
    assert asked == 6, "once about each"


async def test_who_says_something_of_windows_that_overlap_is_asked_once_about_each(tmp_path: Path) -> None:
    asked = 0

    async def counting(call: Call) -> Sequence[Tensor]:
        nonlocal asked
        asked += 1
        return await double(call)

    slides = CALLED.replace("inputs: [double], batch: {size: 2}", "inputs: [double], batch: {size: 2, rolling: true}")
    found = await replayed(tmp_path, loaded(slides, double=double), loaded(slides, double=counting))
    of_windows = {offset: one.outcome for (step, offset), one in found.items() if step == "behind"}
    assert of_windows == dict.fromkeys(range(5), "identical")
    assert asked == 6


@pytest.mark.parametrize(("now", "differences"), [(triple, 4), (silence, 0)])
async def test_another_answer_is_the_explanation(tmp_path: Path, now: object, differences: int) -> None:
    found = await replayed(tmp_path, loaded(CALLED, double=double), loaded(CALLED, double=now))  # type: ignore[arg-type]
    one = found["behind", 2]
    assert one.outcome == "answers"
    assert "double" in one.why
    assert "the called model answered differently" in one.why
    assert len([each for each in one.differences if each.field.endswith(".score")]) * 2 == differences
    assert found["plain", 2].outcome == "identical"


async def test_what_no_model_had_a_say_in_is_no_answer_of_one(tmp_path: Path) -> None:
    found = await replayed(tmp_path, loaded(SAYS_LOCALLY), loaded(SAYS_LOCALLY), score=7.0)
    assert found["behind", 0].outcome == "values"


async def test_a_step_that_fails_by_now_is_named(tmp_path: Path) -> None:
    async def fails(call: Call) -> Sequence[Tensor]:
        raise ZeroDivisionError("a defect")

    found = await replayed(tmp_path, loaded(CALLED, double=double), loaded(CALLED, double=fails))
    assert found["behind", 0].outcome == "rows"
    assert "a defect" in found["behind", 0].why
