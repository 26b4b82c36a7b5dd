"""A pipeline taken through by hand, one step after another: what `govern.runtime.flow` must agree with.

It reads the file's own words (the `spec` as a dict) and shares no code with what it checks. A message is a dict,
tensor -> number; what a step does is a function of its name, the visit and the messages that its inputs brought.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Message = dict[str, int]
#: (step, visit, [(input's position, what it brought)]) -> what it returns. Raises to fail.
Behaviour = Callable[[str, int, Sequence[tuple[int, Message]]], Message]


class Failed(Exception):
    """The request failed in this step; `visit` None: because it came too often."""

    def __init__(self, step: str, visit: int | None) -> None:
        super().__init__(step, visit)
        self.step, self.visit = step, visit


@dataclass
class Rest:
    """What is left of a request at rest; `outputs` None when two of them have the same name."""

    outputs: Message | None = None
    returned: dict[str, Message] = field(default_factory=dict)
    visits: dict[str, int] = field(default_factory=dict)


def interpret(pipeline: str, spec: Mapping[str, Any], request: Message, behave: Behaviour) -> Rest:
    return _Interpreter(pipeline, spec, behave).run(request)


def _split(reference: str) -> tuple[str, str, str]:
    node, side, tensor = [*reference.split(".", 2), "", ""][:3]
    return node, side or "outputs", tensor


class _Interpreter:
    def __init__(self, pipeline: str, spec: Mapping[str, Any], behave: Behaviour) -> None:
        self.pipeline, self.spec, self.behave = pipeline, spec, behave
        self.steps = {step["name"]: step for step in spec["steps"]}
        self.names = list(self.steps)
        self.rest = Rest()
        self.got: dict[str, Message] = {}
        self.reads = {name: {_split(one)[0] for one in self.references(name)} - {pipeline} for name in self.names}
        self.before = {name: set(found) for name, found in self.reads.items()}
        for middle in self.names:
            for name in self.names:
                if middle in self.before[name]:
                    self.before[name] |= self.before[middle]

    def references(self, name: str) -> list[str]:
        step = self.steps[name]
        return [*(step.get("inputs") or [f"{self.pipeline}.inputs"]), *step.get("triggers", [])]

    def run(self, request: Message) -> Rest:
        done: dict[tuple[str, str], Message] = {(self.pipeline, "inputs"): request}

        def look(reference: str) -> tuple[Message, bool]:
            return done[_split(reference)[:2]], False

        left = list(self.names)
        while left:
            for name in left:
                group = [one for one in left if one == name or (one in self.before[name] and name in self.before[one])]
                outside = {one for member in group for one in self.reads[member]} - set(group)
                if not outside & set(left):
                    break
            if name in self.before[name]:
                done |= self.loop(group, done)
            else:
                found = self.choose(name, look)
                done |= self.visit(name, found)
            left = [one for one in left if one not in group]
        output = self.spec["output"]
        parts = self.join(output.get("stepsJoin", "inner"), output["steps"], look)
        merged: Message | None = {}
        for _, part in self.renamed(output, output["steps"], parts or []):
            merged = None if merged is None or set(merged) & set(part) else merged | part
        self.rest.outputs = merged
        return self.rest

    def loop(self, group: list[str], done: dict[tuple[str, str], Message]) -> dict[tuple[str, str], Message]:
        entries = [one for one in group if any(_split(ref)[0] not in group for ref in self.references(one))]
        back: set[tuple[str, str]] = set()
        over: set[str] = set()

        def walk(name: str, path: tuple[str, ...]) -> None:
            for reader in group:
                if name in self.reads[reader]:
                    if reader in path:
                        back.add((name, reader))
                    elif reader not in over:
                        walk(reader, (*path, reader))
            over.add(name)

        for entry in entries or group[:1]:
            if entry not in over:
                walk(entry, (entry,))
        order: list[str] = []
        while len(order) < len(group):
            order.append(
                next(
                    one
                    for one in group
                    if one not in order
                    and all(w in order or (w, one) in back or w not in group for w in self.reads[one])
                )
            )
        last: dict[tuple[str, str], Message] = {}
        final = {(name, side): {} for name in group for side in ("inputs", "outputs")}
        first = True
        while True:
            now: dict[tuple[str, str], Message] = {}
            for name in order:

                def look(
                    reference: str, name: str = name, now: Any = now, last: Any = last, first: bool = first
                ) -> tuple[Message, bool]:
                    node, side, _ = _split(reference)
                    if node not in group:
                        return done[node, side], not first
                    return (last.get((node, side), {}) if (node, name) in back else now[node, side]), False

                found = self.choose(name, look)
                now |= self.visit(name, found)
                if found is not None:
                    final |= {key: now[key] for key in ((name, "inputs"), (name, "outputs"))}
            handed_on = any(
                self.read(ref, now[_split(ref)[:2]])
                for name in group
                for ref in self.references(name)
                if (_split(ref)[0], name) in back
            )
            if not handed_on:
                return final
            last, first = now, False

    def read(self, reference: str, message: Message) -> Message:
        tensor = _split(reference)[2]
        return {name: value for name, value in message.items() if tensor in ("", name)}

    def join(
        self, kind: str, references: Sequence[str], look: Callable[[str], tuple[Message, bool]]
    ) -> list[tuple[int, Message]] | None:
        """What arrived and is passed on; None when the join is not met."""
        arrived = [(at, self.read(ref, look(ref)[0]), look(ref)[1]) for at, ref in enumerate(references)]
        there = [one for one in arrived if one[1]]
        if kind == "inner" and len(there) < len(arrived):
            return None
        if kind == "any":
            there = ([one for one in there if not one[2]] + [one for one in there if one[2]])[:1]
        return [(at, message) for at, message, _ in there] or None

    def choose(self, name: str, look: Callable[[str], tuple[Message, bool]]) -> list[tuple[int, Message]] | None:
        step = self.steps[name]
        inputs = step.get("inputs") or [f"{self.pipeline}.inputs"]
        parts = self.join(step.get("inputsJoinType", "inner"), inputs, look)
        triggers = step.get("triggers", [])
        if parts is None:
            return None
        if triggers and self.join(step.get("triggersJoinType", "inner"), triggers, look) is None:
            return None
        if not any(self.read(ref, look(ref)[0]) and not look(ref)[1] for ref in self.references(name)):
            return None
        return self.renamed(step, inputs, parts)

    def renamed(
        self, section: Mapping[str, Any], references: Sequence[str], parts: list[tuple[int, Message]]
    ) -> list[tuple[int, Message]]:
        found = []
        for at, message in parts:
            node, side, _ = _split(references[at])
            names = {
                _split(text)[2]: new
                for text, new in section.get("tensorMap", {}).items()
                if _split(text)[:2] == (node, side)
            }
            found.append((at, {names.get(name, name): value for name, value in message.items()}))
        return found

    def visit(self, name: str, parts: list[tuple[int, Message]] | None) -> dict[tuple[str, str], Message]:
        if parts is None:
            return {(name, "inputs"): {}, (name, "outputs"): {}}
        before = self.rest.visits.get(name, 0)
        if before > self.spec["maxStepRevisits"]:
            raise Failed(name, None)
        self.rest.visits[name] = before + 1
        answer = self.behave(name, before, parts)
        self.rest.returned[name] = answer
        received: Message = {}
        for _, part in parts:
            received |= part
        return {(name, "inputs"): received, (name, "outputs"): answer}
