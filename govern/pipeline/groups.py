"""Which steps of a pipeline run together when some of them are placed elsewhere. Pure.

A group has one placement and is run by one worker as a pipeline of its own, so each of its steps must run exactly when
it would in the whole pipeline. That holds for three kinds of groups, and no others are made:

| what reaches it | which steps are in it |
| --- | --- |
| what the pipeline is given | steps that read that, captured models and each other, joined as they like |
| one step of another group | steps that read that step and each other, joined as they like |
| several steps of other groups | one step, whose inputs are an inner join; and steps that read it |

Steps in a loop are in one group. A captured model is called by nobody: it is wherever it is read. An explainer runs
where the detectors are that trigger it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from typing import Final

from govern.pipeline.check import Kinds
from govern.pipeline.graph import Graph, Node, Topic, edges, graph, reachable
from govern.pipeline.references import detector_kind, parse
from govern.pipeline.spec import Pipeline

#: Label of a pipeline that says which workers run it: those that were started with this placement.
PLACEMENT: Final = "govern.io/placement"


@dataclass(slots=True)
class Group:
    """Steps that run together.

    Attributes:
        placement: of the workers that run it; "" for those of none.
        reads: the topics of other groups that reach it; none for a group that is given what the pipeline is given.
        first: of a group that reads others, the step that it began with, or those of a loop.
        steps: in the order in which they were added: each after what it reads.
    """

    placement: str
    reads: tuple[Topic, ...]
    first: tuple[str, ...] = ()
    steps: list[str] = field(default_factory=list)

    @property
    def at_source(self) -> bool:
        return not self.reads

    @property
    def joins(self) -> bool:
        return len(self.reads) > 1


@dataclass(frozen=True, slots=True)
class Groups:
    """
    Attributes:
        main: the group that gives what the pipeline gives, and has its name.
        groups: each after those that it reads.
        captured: names of the captured models.
    """

    main: Group
    groups: tuple[Group, ...]
    captured: tuple[str, ...]

    @property
    def joined(self) -> frozenset[str]:
        """The steps for which what they read is joined by request id."""
        return frozenset(group.steps[0] for group in self.groups if group.joins)

    def of(self, step: str) -> Group | None:
        """The group that has a step; None for a captured model."""
        return next((group for group in self.groups if step in group.steps), None)


def home(pipeline: Pipeline) -> str:
    """The placement of a pipeline, and of those of its steps that name none."""
    return pipeline.metadata.labels.get(PLACEMENT, "")


def is_placed(pipeline: Pipeline) -> bool:
    """Whether a step is placed elsewhere than its pipeline."""
    return any(step.placement not in (None, home(pipeline)) for step in pipeline.spec.steps)


def grouped(pipeline: Pipeline, *, kinds: Kinds = detector_kind) -> Groups:
    """The groups of a pipeline whose references were checked. That each of its steps can run in its group,
    `govern.pipeline.checks.placed` says.

    Raises:
        GovernError: what `kinds` raises for a detector type that cannot be used.
    """
    return _Grouping(pipeline, graph(pipeline, kinds=kinds)).run()


class _Grouping:
    def __init__(self, pipeline: Pipeline, one: Graph) -> None:
        self._pipeline = pipeline
        self._graph = one
        self._nodes = {node.name: node for node in one.steps}
        self._captured = tuple(name for name, node in self._nodes.items() if is_captured(node))
        self._given = given(one)
        self._groups: list[Group] = []

    def run(self) -> Groups:
        for unit in self._units():
            self._add(unit)
        for node in self._graph.steps:
            if node.role == "explainer":
                triggers = {port.topic.node for port in node.triggers}
                groups = (group for group in self._groups if triggers & set(group.steps))
                next(groups, self._groups[0]).steps.append(node.name)
        main = self._main()
        return Groups(main, tuple(self._groups), self._captured)

    def _units(self) -> list[list[Node]]:
        """The steps that are grouped, those of a loop together, each unit after those that it reads."""
        readers = edges(self._graph)
        mine = [n for n in self._graph.steps if n.role != "explainer" and n.name not in self._captured]
        after = {node.name: reachable(readers, node.name) for node in mine}
        first: dict[str, str] = {}
        for node in mine:
            first[node.name] = next(
                one.name
                for one in mine
                if one is node or (one.name in after[node.name] and node.name in after[one.name])
            )
        units = {name: [node for node in mine if first[node.name] == name] for name in dict.fromkeys(first.values())}
        reads = {
            name: {first[up] for node in unit for up in self._written(node) if up in first} - {name}
            for name, unit in units.items()
        }
        return [units[name] for name in TopologicalSorter(reads).static_order()]

    def _written(self, node: Node) -> list[str]:
        writers = (self._graph.writer(port.topic) for port in node.ports)
        return [writer.name for writer in writers if writer is not None]

    def _add(self, unit: list[Node]) -> None:
        placement, names = placement_of(unit[0], self._pipeline), [node.name for node in unit]
        topics = dict.fromkeys(p.topic for node in unit for p in node.ports if p.topic.node not in names)
        if all(topic in self._given or self._runs_at_source(topic, placement) for topic in topics):
            self._at_source(placement).steps += names
            return
        for group in self._groups:
            shared = () if group.joins else group.reads
            if group.placement == placement and all(t in shared or t.node in group.steps for t in topics):
                group.steps += names
                return
        self._groups.append(Group(placement, tuple(topics), tuple(names), list(names)))

    def _runs_at_source(self, topic: Topic, placement: str) -> bool:
        return any(g.at_source and g.placement == placement and topic.node in g.steps for g in self._groups)

    def _at_source(self, placement: str) -> Group:
        for group in self._groups:
            if group.at_source and group.placement == placement:
                return group
        self._groups.append(Group(placement, ()))
        return self._groups[-1]

    def _main(self) -> Group:
        named = output_steps(self._pipeline)
        called = [name for name in named if self._nodes[name].role != "detector"]
        at = home(self._pipeline)
        for name in (called or named)[:1]:
            if name in self._captured:
                return self._at_source(at)
            return next((group for group in self._groups if name in group.steps), self._groups[0])
        return next((group for group in self._groups if group.placement == at), self._groups[0])


def given(one: Graph) -> frozenset[Topic]:
    """The topics of what a pipeline is given: its inputs, and both sides of the captured models."""
    captured = [node for node in one.steps if is_captured(node)]
    return frozenset({one.entry, *(node.takes for node in captured), *(node.gives for node in captured)})


def placement_of(node: Node, pipeline: Pipeline) -> str:
    assert node.step is not None, "a step has what the file says of it"
    return home(pipeline) if node.step.placement is None else node.step.placement


def output_steps(pipeline: Pipeline) -> list[str]:
    """The steps that the output names, in its order."""
    output = pipeline.spec.output
    references = [parse(text) for text in (output.steps if output is not None else ())]
    return [one.node for one in references if one is not None]


def is_captured(node: Node) -> bool:
    return node.step is not None and node.step.model is not None and node.step.model.url is None
