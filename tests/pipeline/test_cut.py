"""Pipelines whose steps are placed: the parts together say what the whole says, and each is a pipeline as people write
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import yaml
from hypothesis import event, given, reject, settings
from hypothesis import strategies as st

from govern.pipeline import PipelineError
from govern.pipeline.chain import ring
from govern.pipeline.checks.placed import refusals
from govern.pipeline.cut import cut
from govern.pipeline.load import load_pipelines
from govern.pipeline.spec import Pipeline
from tests.runtime.flow.interpreter import Failed, Message, interpret
from tests.runtime.flow.test_flow_property import World, as_tuples, make_spec

PLACEMENTS = ("gpu", "other", None)


@dataclass(frozen=True)
class Named(World):
    """Its steps look at the names of what they are given, and not at the input that brought it: parts are given that of
    several steps together.

    Attributes:
        judged: what reached the detector.
    """

    judged: list[Message] = field(default_factory=list)

    def answer(self, step: str, visit: int, parts: Sequence[tuple[int, Message]]) -> Message:
        names = [name for _, part in parts for name in part]
        if len(set(names)) < len(names):
            raise Failed(step, visit)
        merged = {name: part[name] for _, part in parts for name in part}
        if step == "judge":
            self.judged.append(merged)
            return {}
        return super().answer(step, visit, [(0, merged)])


def placed(seed: int) -> Pipeline:
    """A random graph whose steps run in several places, and that can be cut so."""
    chance = Random(seed)
    while True:
        spec = make_spec(chance.randint(2, 7), chance.random() < 0.3, chance.randrange(2**32))
        names = [step["name"] for step in spec["steps"]]
        judge: dict[str, Any] = {"name": "judge", "detector": {"type": "isolation_forest", "artifact": "a"}}
        judge["inputs"] = [
            f"{chance.choice(names)}.outputs{chance.choice(['', '.a'])}" for _ in range(chance.choice([1, 1, 2]))
        ]
        judge |= {"triggers": [f"{chance.choice(names)}.outputs.b"]} if chance.random() < 0.3 else {}
        spec["steps"].insert(chance.randrange(len(names) + 1), judge)
        for step in spec["steps"]:
            step |= {"placement": where} if (where := chance.choice(PLACEMENTS)) else {}
        one = whole(spec)
        if not refusals(one) and len(cut(one)) > 1:
            return one


def whole(spec: dict[str, Any], **labels: str) -> Pipeline:
    head = {"apiVersion": "govern.io/v1alpha1", "kind": "Pipeline", "metadata": {"name": "p", "labels": labels}}
    given = {"source": {"service": "s", "model": "m"}, "schema": "schema.yaml"}
    return Pipeline.model_validate({**head, "spec": as_tuples(given | spec)})


class ByHand:
    """Parts taken through one after another: what each returned is what the others read."""

    def __init__(self, parts: Sequence[Pipeline], request: Message, world: World) -> None:
        self.request = request
        self.outputs: dict[str, Message] = {}
        self.returned: dict[str, Message] = {}
        self.visits: dict[str, int] = {}
        for part in in_order(parts):
            spec = part.canonical()["spec"]
            spec = {"maxStepRevisits": 100} | spec | {"output": spec["output"] or {"steps": []}}
            given = request if "input" not in spec else self.joined(spec["input"])
            if not given:
                continue
            rest = interpret(part.name, spec, given, world.answer)
            assert rest.outputs is not None
            assert not rest.returned.keys() & self.returned.keys()
            self.outputs[part.name] = rest.outputs
            self.returned |= rest.returned
            self.visits |= rest.visits

    def joined(self, given: dict[str, Any]) -> Message:
        parts = [self.read(text, given) for text in given["externalInputs"]]
        triggers = [bool(self.read(text, given)) for text in given["externalTriggers"]]
        started = all(triggers) if given["triggersJoinType"] in (None, "inner") else any(triggers)
        if not all(parts) or (triggers and not started):
            return {}
        names = [name for part in parts for name in part]
        if len(set(names)) < len(names):
            raise Failed("", 0)
        return {name: value for part in parts for name, value in part.items()}

    def read(self, text: str, given: dict[str, Any]) -> Message:
        path = text.split(".")
        side, tensor = ".".join(path[:4] if path[1] == "step" else path[:2]), path[4 if path[1] == "step" else 2 :]
        message = self.request if path[1] == "inputs" else self.returned.get(path[2], {})
        renamed = {key.removeprefix(f"{side}."): name for key, name in given["tensorMap"].items()}
        return {renamed.get(name, name): value for name, value in message.items() if tensor in ([], [name])}


def in_order(parts: Sequence[Pipeline]) -> list[Pipeline]:
    left, done = list(parts), list[Pipeline]()
    while left:
        names = {one.name for one in left}
        ready = [one for one in left if not names & {text.split(".")[0] for text in read_by(one)}]
        assert ready, "a ring"
        done += ready
        left = [one for one in left if one not in ready]
    return done


def read_by(part: Pipeline) -> tuple[str, ...]:
    given = part.spec.input
    return () if given is None else (*given.external_inputs, *given.external_triggers)


@given(
    st.integers(0, 2**32).map(placed),
    st.dictionaries(st.sampled_from(["a", "b"]), st.integers(0, 9), min_size=1),
    st.builds(Named, st.integers(0, 2**32), st.just(False), st.just(0)),
)
@settings(max_examples=300, deadline=None)
def test_the_parts_together_say_what_the_whole_says(one: Pipeline, request: Message, world: World) -> None:
    parts = cut(one)
    event(f"{len(parts)} parts, {sum(len(read_by(part)) > 1 for part in parts)} of them join")
    assert sorted(step.name for part in parts for step in part.spec.steps) == sorted(s.name for s in one.spec.steps)
    assert ring({part.name: part for part in parts}) == ()
    spec = {"maxStepRevisits": 100} | one.canonical()["spec"]
    try:
        rest = interpret("p", spec, request, world.answer)
        expected = rest.outputs
    except Failed:
        expected = None
    if expected is None:
        event("fails as a whole")
        return
    judged = list(world.judged)
    world.judged.clear()
    found = ByHand(parts, request, world)
    assert world.judged == judged
    event("a detector is given rows" if judged else "a detector is given nothing")
    assert (found.returned, found.visits) == (rest.returned, rest.visits)
    assert found.outputs.pop("p", {}) == expected
    assert not any(found.outputs.values())


@given(st.integers(0, 2**32).map(placed))
@settings(max_examples=15, deadline=None)
def test_each_part_of_a_file_is_a_pipeline_as_people_write_them(tmp_path_factory: Any, one: Pipeline) -> None:
    folder: Path = tmp_path_factory.mktemp("parts")
    content = plain(one.canonical())
    if not one.spec.allow_cycles:
        del content["spec"]["maxStepRevisits"]
    (folder / "whole.yaml").write_text(yaml.safe_dump(content))
    try:
        (whole,) = load_pipelines(folder / "whole.yaml", schema=False)
    except PipelineError:
        reject()  # most random graphs hold something that never runs
    parts = cut(whole)
    (folder / "parts.yaml").write_text(yaml.safe_dump_all([plain(part.canonical()) for part in parts]))
    assert load_pipelines(folder / "parts.yaml", schema=False) == list(parts)


def plain(value: Any) -> Any:
    """Without what was left out: an empty list of references says nothing, and is refused."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items() if one not in (None, [], ())}
    return [plain(one) for one in value] if isinstance(value, (list, tuple)) else value
