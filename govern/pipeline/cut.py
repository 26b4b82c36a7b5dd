"""A pipeline whose steps are placed, cut into the chained pipelines that are deployed. Pure.

Each group of steps (`govern.pipeline.groups`) becomes a pipeline with a placement, a part: one reads what the steps of
another return from the inferences topic, as any chained pipeline does (`govern.pipeline.chain`). The part that gives
what the pipeline gives has its name; the others are named `<pipeline>-<step>`, after the first of their steps. Parts
are pipelines like any: nothing that runs them knows that they were cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from govern.pipeline.check import Kinds
from govern.pipeline.graph import Topic
from govern.pipeline.groups import PLACEMENT, Group, Groups, grouped, is_placed
from govern.pipeline.references import Reference, detector_kind, parse
from govern.pipeline.spec import Input, Metadata, Output, Pipeline, Step

#: Label of a part: the pipeline that was cut.
PART_OF: Final = "govern.io/part-of"


def cut(pipeline: Pipeline, *, kinds: Kinds = detector_kind) -> tuple[Pipeline, ...]:
    """The parts of a pipeline that was checked; itself, as it is, when none of its steps is placed elsewhere.

    Raises:
        GovernError: what `kinds` raises for a detector type that cannot be used.
    """
    if not is_placed(pipeline):
        return (pipeline,)
    groups = grouped(pipeline, kinds=kinds)
    names = part_names(pipeline, groups)
    return tuple(_Part(pipeline, groups, names, at).pipeline() for at in range(len(names)))


def part_names(pipeline: Pipeline, groups: Groups) -> tuple[str, ...]:
    """The name of each group's part."""
    order = [step.name for step in pipeline.spec.steps]
    names = []
    for group in groups.groups:
        first = min(group.steps or groups.captured, key=order.index)
        names.append(pipeline.name if group is groups.main else f"{pipeline.name}-{first}")
    return tuple(names)


def part_with(name: str, step: str, pipelines: Mapping[str, Pipeline]) -> Pipeline:
    """The pipeline of this name; the part of it that has the step, where it was cut and another one has."""
    family = [one for one in pipelines.values() if one.metadata.labels.get(PART_OF) == name]
    having = (one for one in (pipelines[name], *family) if any(each.name == step for each in one.spec.steps))
    return next(having, pipelines[name])


def part_at_source(name: str, pipelines: Mapping[str, Pipeline]) -> Pipeline:
    """The pipeline of this name; where it was cut, a part of it that watches what the whole watches."""
    family = (one for one in pipelines.values() if one.metadata.labels.get(PART_OF) == name)
    whole = pipelines[name]
    return whole if whole.spec.source is not None else next((one for one in family if one.spec.source), whole)


class _Part:
    """One group's pipeline in the making."""

    def __init__(self, whole: Pipeline, groups: Groups, names: tuple[str, ...], at: int) -> None:
        self._whole = whole
        self._groups = groups
        self._names = names
        self._group = groups.groups[at]
        self._name = names[at]

    def pipeline(self) -> Pipeline:
        spec = self._whole.spec
        steps = tuple(self._step(step) for step in spec.steps if step.name in self._group.steps)
        if self._group.at_source:
            captured = [step for step in spec.steps if step.name in self._groups.captured]
            steps = (*captured, *steps)
        loops = _loops(self._group, spec.steps)
        changed: dict[str, object] = {
            "steps": steps,
            "output": self._output(),
            "allow_cycles": spec.allow_cycles and loops,
            "max_step_revisits": spec.max_step_revisits if loops else None,
        }
        if not self._group.at_source:
            changed |= {"source": None, "input": self._input()}
        return self._whole.model_copy(update={"metadata": self._metadata(), "spec": spec.model_copy(update=changed)})

    def _metadata(self) -> Metadata:
        metadata = self._whole.metadata
        labels = {key: value for key, value in metadata.labels.items() if key != PLACEMENT}
        labels |= {PART_OF: self._whole.name}
        labels |= {PLACEMENT: self._group.placement} if self._group.placement else {}
        return metadata.model_copy(update={"name": self._name, "labels": labels})

    def _input(self) -> Input:
        """What reaches the part: the records of one step, or those of several, joined as its first step joins them."""
        if not self._group.joins:
            return Input(external_inputs=(self._external(self._group.reads[0]),))
        step = self._first()
        inputs = step.inputs or (f"{self._whole.name}.inputs",)
        renamed = {self._outside(text): name for text, name in step.tensor_map.items()}
        if step.combiner is not None:
            renamed = {self._outside(text): f"input-{at}" for at, text in enumerate(inputs)}
        return Input(
            external_inputs=tuple(self._outside(text) for text in inputs),
            join_window_ms=step.join_window_ms,
            external_triggers=tuple(self._outside(text) for text in step.triggers),
            triggers_join_type=step.triggers_join_type,
            tensor_map=renamed,
        )

    def _first(self) -> Step:
        return next(step for step in self._whole.spec.steps if step.name == self._group.steps[0])

    def _step(self, step: Step) -> Step:
        step = step.model_copy(update={"placement": None})
        given = f"{self._name}.inputs"
        if self._group.joins and step.name == self._group.steps[0]:
            inputs: tuple[str, ...] = (given,)
            if step.combiner is not None:
                inputs = tuple(f"{given}.input-{at}" for at in range(len(step.inputs)))
            changed: dict[str, object] = {
                "inputs": inputs,
                "triggers": (),
                "tensor_map": {},
                **dict.fromkeys(("inputs_join_type", "triggers_join_type", "join_window_ms")),
            }
        else:
            changed = {
                "inputs": tuple(map(self._inside, step.inputs)) or (given,),
                "triggers": tuple(map(self._inside, step.triggers)),
                "tensor_map": {self._inside(text): name for text, name in step.tensor_map.items()},
            }
            if self._group.at_source and not step.inputs:
                changed["inputs"] = ()
        if step.detector is not None and not self._group.at_source and not changed["triggers"]:
            # It is there for each request, so it holds up none; and a detector that is triggered is handed rows of the
            # schema that it was fitted on, as one that reads a step in the whole pipeline is.
            changed["triggers"] = (given,)
        return step.model_copy(update=changed)

    def _output(self) -> Output | None:
        output = self._whole.spec.output
        if output is None:
            return None
        main = self._group is self._groups.main
        steps = tuple(text for text in output.steps if self._gives(_parsed(text).node, main=main))
        if not steps:
            return None
        kept = {text: name for text, name in output.tensor_map.items() if _parsed(text).node in map(_node, steps)}
        return output.model_copy(update={"steps": steps, "tensor_map": kept})

    def _gives(self, step: str, *, main: bool) -> bool:
        return step in self._group.steps or (main and step in self._groups.captured)

    def _inside(self, text: str) -> str:
        """A reference as a step of this part writes it."""
        reference = _parsed(text)
        if _topic(reference, self._whole.name) in self._group.reads or reference.node == self._whole.name:
            return str(Reference(self._name, "inputs", reference.tensor))
        return text

    def _outside(self, text: str) -> str:
        """A reference of the whole pipeline as this part reads it of another one."""
        reference = _parsed(text)
        return self._external(_topic(reference, self._whole.name), reference.tensor)

    def _external(self, topic: Topic, tensor: str = "") -> str:
        captured = not topic.node or topic.node in self._groups.captured
        parts = zip(self._groups.groups, self._names, strict=True)
        part = next(name for group, name in parts if (group.at_source if captured else topic.node in group.steps))
        return str(Reference(topic.node, topic.side, tensor, part))


def _loops(group: Group, steps: Iterable[Step]) -> bool:
    """Whether a request can come back to a step of the group."""
    reads = {
        step.name: {_parsed(text).node for text in (*step.inputs, *step.triggers)} & set(group.steps)
        for step in steps
        if step.name in group.steps
    }
    left = dict(reads)
    while free := [name for name, read in left.items() if not read & left.keys()]:
        for name in free:
            del left[name]
    return bool(left)


def _topic(reference: Reference, pipeline: str) -> Topic:
    return Topic(pipeline, "" if reference.node == pipeline else reference.node, reference.side)


def _node(text: str) -> str:
    return _parsed(text).node


def _parsed(text: str) -> Reference:
    reference = parse(text)
    assert reference is not None, "checked before"
    return reference
