"""Random graph x random interleaving x random failures: the engine gives what the interpreter gives."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
from hypothesis import event, given, settings
from hypothesis import strategies as st

from govern.codecs.tensor import Tensor
from govern.errors import ConfigError
from govern.pipeline.graph import graph
from govern.pipeline.spec import Pipeline
from govern.runtime.flow import Call, Flow
from govern.runtime.flow.errors import StepFailed, StepRefused, TooManyVisits
from tests.runtime.flow.interpreter import Failed, Message, interpret
from tests.runtime.flow.virtual import run

TENSORS = ("a", "b", "c")
JOINS = ("inner", "outer", "any")


def make_spec(size: int, cyclic: bool, seed: int) -> dict[str, Any]:
    """A graph in the file's words: any joins, triggers and renamings, with cycles or not."""
    chance = Random(seed)
    names = [f"s{at}" for at in range(size)]
    steps: list[dict[str, Any]] = []
    for at, name in enumerate(names):
        known = [*names, names[(at + 1) % size], names[at - 1]] if cyclic else names[:at]
        tensors = ["", *(f".outputs.{one}" for one in TENSORS), ".inputs"]
        references = [f"{one}{rest}" for one in known for rest in tensors]
        references += ["p.inputs", "p.inputs.a", "p.inputs.b"] * (1 + len(references) // 6)
        step: dict[str, Any] = {"name": name, "transformer": {"callable": "nowhere:nothing"}}
        inputs = some(chance, references, chance.choice([0, 1, 2, 2, 3]))
        triggers = some(chance, references, chance.choice([0, 0, 1, 2]))
        step |= {"inputs": inputs} if inputs else {}
        step |= {"triggers": triggers} if triggers else {}
        for key in ("inputsJoinType", "triggersJoinType"):
            # A loop that has inner joins only is never entered.
            step |= {key: chance.choice((*JOINS, "any"))} if cyclic or chance.random() < 0.5 else {}
        step["tensorMap"] = renamings(chance, inputs or ["p.inputs"])
        steps.append(step)
    chance.shuffle(steps)
    output: dict[str, Any] = {"steps": some(chance, names, chance.choice([1, 1, 2, 3]))}
    output |= {"stepsJoin": chance.choice(JOINS)} if chance.random() < 0.7 else {}
    output["tensorMap"] = renamings(chance, output["steps"])
    limit = chance.choice([0, 2, 10])
    return {"allowCycles": cyclic, "maxStepRevisits": limit, "steps": steps, "output": output}


def some(chance: Random, values: Sequence[str], count: int) -> list[str]:
    return list(dict.fromkeys(chance.choice(values) for _ in range(count)))


def renamings(chance: Random, references: Sequence[str]) -> dict[str, str]:
    """Mostly all tensors, or most joins would bring a name twice."""
    found = {}
    for position, reference in enumerate(references):
        node, side, tensor = [*reference.split(".", 2), "", ""][:3]
        for name in [tensor] if tensor else TENSORS:
            if chance.random() < 0.9:
                found[f"{node}.{side or 'outputs'}.{name}"] = f"{name}{position}" if chance.random() < 0.5 else name
    return found


@dataclass(frozen=True)
class World:
    """What the steps do (the same for both), and how long it takes them (for the engine only)."""

    behaviour: int
    failing: bool
    delays: int

    def answer(self, step: str, visit: int, parts: Sequence[tuple[int, Message]]) -> Message:
        names = [name for _, part in parts for name in part]
        if len(set(names)) < len(names):
            raise Failed(step, visit)
        said = repr((self.behaviour, step, visit, [(at, sorted(part.items())) for at, part in parts]))
        chance = Random(said)
        if self.failing and chance.random() < 0.1:
            raise Failed(step, visit)
        # Fewer at each visit, so that a loop comes to rest at times.
        return {name: chance.randrange(1000) for name in TENSORS if chance.random() < 0.8 - visit / 8}

    def step(self, name: str, chance: Random) -> Any:
        async def call(call: Call) -> list[Tensor]:
            parts = [(part.position, {one.name: int(one.data[0]) for one in part.tensors}) for part in call.parts]
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(chance.choice([0, 0.001, 0.01, 1]))
            return [tensor(*item) for item in self.answer(name, call.visit, parts).items()]

        return call


def tensor(name: str, value: int) -> Tensor:
    return Tensor(name, "INT64", np.array([value]))


def numbers(message: Sequence[Tensor]) -> Message:
    return {one.name: int(one.data[0]) for one in message}


async def engine(spec: dict[str, Any], request: Message, world: World) -> object:
    pipeline = Pipeline.model_validate(
        {"apiVersion": "govern.io/v1alpha1", "kind": "Pipeline", "metadata": {"name": "p"}, "spec": as_tuples(spec)}
    )
    chance = Random(world.delays)
    flow = Flow(graph(pipeline), {step["name"]: world.step(step["name"], chance) for step in spec["steps"]})
    try:
        outcome = await flow.run([tensor(*item) for item in request.items()], request_id="r")
    except (StepRefused, StepFailed) as error:
        cause = error.__cause__
        return ("failed", cause.step, cause.visit) if isinstance(cause, Failed) else cause
    except TooManyVisits as error:
        return "failed", error.what.split("'")[3], None
    except ConfigError:
        return "two outputs of one name"
    finally:
        assert asyncio.all_tasks() == {asyncio.current_task()}
    returned = {name: numbers(message) for name, message in outcome.returned.items()}
    return numbers(outcome.outputs), returned, dict(outcome.visits)


def by_hand(spec: dict[str, Any], request: Message, world: World) -> object:
    try:
        rest = interpret("p", spec, request, world.answer)
    except Failed as error:
        return "failed", error.step, error.visit
    if rest.outputs is None:
        return "two outputs of one name"
    return rest.outputs, rest.returned, rest.visits


def as_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: as_tuples(one) for key, one in value.items()}
    return tuple(map(as_tuples, value)) if isinstance(value, list) else value


@given(
    st.builds(make_spec, st.integers(1, 7), st.booleans(), st.integers(0, 2**32)),
    st.dictionaries(st.sampled_from(["a", "b"]), st.integers(0, 9), min_size=1),
    st.builds(World, st.integers(0, 2**32), st.booleans(), st.integers(0, 2**32)),
)
@settings(max_examples=500, deadline=None)
def test_whatever_the_interleaving_it_is_what_one_step_after_another_gives(
    spec: dict[str, Any], request: Message, world: World
) -> None:
    wanted = by_hand(spec, request, world)
    event(str(wanted[0] if wanted[0] == "failed" else "output" if wanted[0] else "no output"))
    if isinstance(wanted[-1], dict):
        event(f"most visits of a step: {max(wanted[-1].values(), default=0)}")
    assert run(engine(spec, request, world)) == wanted
