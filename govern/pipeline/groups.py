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

from collections.abc import Iterable
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from typing import Final, NamedTuple

from govern.pipeline.check import Kinds
from govern.pipeline.checks.places import place, step_place
from govern.pipeline.errors import Where
from govern.pipeline.graph import Graph, Node, Topic, edges, graph, reachable
from govern.pipeline.references import detector_kind, parse
from govern.pipeline.spec import Pipeline

#: Label of a pipeline that says which workers run it: those that were started with this placement.
PLACEMENT: Final = "govern.io/placement"


class Refusal(NamedTuple):
    """Why a pipeline cannot be cut so, where it says so, and what to write instead."""

    where: Where
    what: str
    why: str
    fix: str


@dataclass(slots=True)
class Group:
    """Steps that run together.

    Attributes:
        placement: of the workers that run it; "" for those of none.
        reads: the topics of other groups that reach it; none for a group that is given what the pipeline is given.
        steps: in the order in which they were added: each after what it reads.
    """

    placement: str
    reads: tuple[Topic, ...]
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
        groups: each after those that it reads.
        captured: names of the captured models.
        main: the group that gives what the pipeline gives, and has its name.
        refused: why the pipeline cannot be cut so; then the groups are not all there.
    """

    groups: tuple[Group, ...]
    captured: tuple[str, ...]
    main: Group | None
    refused: tuple[Refusal, ...]

    @property
    def joined(self) -> frozenset[str]:
        """The steps for which what they read is joined by request id."""
        return frozenset(group.steps[0] for group in self.groups if group.joins)


def home(pipeline: Pipeline) -> str:
    """The placement of a pipeline, and of those of its steps that name none."""
    return pipeline.metadata.labels.get(PLACEMENT, "")


def is_placed(pipeline: Pipeline) -> bool:
    """Whether a step is placed elsewhere than its pipeline."""
    return any(step.placement not in (None, home(pipeline)) for step in pipeline.spec.steps)


def grouped(pipeline: Pipeline, *, kinds: Kinds = detector_kind) -> Groups:
    """The groups of a pipeline whose references were checked.

    Raises:
        GovernError: what `kinds` raises for a detector type that cannot be used.
    """
    return _Grouping(pipeline, graph(pipeline, kinds=kinds)).run()


class _Grouping:
    def __init__(self, pipeline: Pipeline, one: Graph) -> None:
        self._pipeline = pipeline
        self._graph = one
        self._nodes = {node.name: node for node in one.steps}
        self._captured = tuple(name for name, node in self._nodes.items() if _is_captured(node))
        self._given = {one.entry, *(topic for name in self._captured for topic in _sides(self._nodes[name]))}
        self._groups: list[Group] = []
        self._refused: list[Refusal] = []

    def run(self) -> Groups:
        for position, step in enumerate(self._pipeline.spec.steps):
            if step.placement is not None and (step.explainer is not None or step.name in self._captured):
                self._refuse_placement(position)
        for unit in self._units():
            self._add(unit)
        if not self._refused:
            self._explainers()
        if not self._refused and self._captured and self._gives_captured():
            self._at_source(home(self._pipeline))
        if not self._refused:
            self._output()
        main = None if self._refused else self._main()
        return Groups(tuple(self._groups), self._captured, main, tuple(self._refused))

    def _refuse(self, where: Where, what: str, why: str, fix: str) -> None:
        self._refused.append(Refusal(where, what, why, fix))

    def _refuse_placement(self, position: int) -> None:
        step = self._pipeline.spec.steps[position]
        why = "a captured model was called already, by whom it was captured"
        if step.explainer is not None:
            why = "explanations are asked for where the detector runs, and made by `govern explain worker`"
        where = ("spec", "steps", position, "placement")
        self._refuse(where, f"`placement` of {step.role} step {step.name!r} has no use", why, "remove `placement`")

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
        placements = {self._placement(node) for node in unit}
        if len(placements) > 1:
            places = " and ".join(sorted(f"at {one}" if one else "nowhere" for one in placements))
            why = f"its steps are placed {places}, and what comes back to a step within a request does not leave it"
            where = step_place(self._graph, unit[0])
            self._refuse(where, f"step {unit[0].name!r} is in a loop that is cut", why, "place all of its steps alike")
            return
        (placement,) = placements
        names = {node.name for node in unit}
        topics = dict.fromkeys(p.topic for node in unit for p in node.ports if p.topic.node not in names)
        if all(topic in self._given or self._runs_at_source(topic, placement) for topic in topics):
            self._at_source(placement).steps += [node.name for node in unit]
            return
        for group in self._groups:
            shared = () if group.joins else group.reads
            if group.placement == placement and all(t in shared or t.node in group.steps for t in topics):
                group.steps += [node.name for node in unit]
                return
        self._check_reads(unit, tuple(topics))
        self._groups.append(Group(placement, tuple(topics), [node.name for node in unit]))

    def _runs_at_source(self, topic: Topic, placement: str) -> bool:
        return any(g.at_source and g.placement == placement and topic.node in g.steps for g in self._groups)

    def _placement(self, node: Node) -> str:
        assert node.step is not None, "a step has what the file says of it"
        return home(self._pipeline) if node.step.placement is None else node.step.placement

    def _at_source(self, placement: str) -> Group:
        for group in self._groups:
            if group.at_source and group.placement == placement:
                return group
        self._groups.append(Group(placement, ()))
        return self._groups[-1]

    def _check_reads(self, unit: list[Node], topics: tuple[Topic, ...]) -> None:
        """That what a new group reads is published, and joined to the same wherever it comes from."""
        for node in unit:
            for port in node.ports:
                where = place(self._graph, node, port)
                if port.topic in topics and port.topic.side == "inputs" and port.topic not in self._given:
                    why = f"what a step is given does not leave its part of the pipeline, and {node.name} is in another"
                    self._refuse(where, port.text, why, f"read what step {port.topic.node!r} reads")
                if len(topics) > 1 and port.topic == self._graph.entry and self._pipeline.spec.source is None:
                    why = f"{self._graph.name} reads other pipelines, and what it is given of them does not leave it"
                    fix = f"place {node.name} where the steps are that it reads"
                    self._refuse(where, port.text or f"{self._graph.name}.inputs", why, fix)
        if len(topics) < 2:
            return
        node = unit[0]
        where = step_place(self._graph, node)
        fix = "place it where the steps are that it reads"
        if node.looped:
            why = "its steps wait for several steps that run elsewhere, and what those say comes to it joined, once"
            self._refuse(where, f"step {node.name!r} is in a loop", why, fix)
        elif node.inputs_join != "inner" and len(node.inputs) > 1:
            why = "of steps that run elsewhere nobody knows what will still come, nor which comes first"
            self._refuse((*where, "inputsJoinType"), f"{node.inputs_join} join", why, f"{fix}, or write inner")
        elif node.role == "combiner":
            for port in node.inputs:
                if not port.tensor:
                    why = f"{node.name} takes one tensor of each input, and those of several steps come together"
                    fix = "name the tensor: <step>.outputs.<tensor>"
                    self._refuse(place(self._graph, node, port), port.text or node.name, why, fix)

    def _explainers(self) -> None:
        """Each into the group of its triggers, which must be given the rows that it explains."""
        for node in self._graph.steps:
            if node.role != "explainer":
                continue
            groups = [group for port in node.triggers for group in self._groups if port.topic.node in group.steps]
            apart = next((n for n, group in enumerate(groups) if group is not groups[0] or not group.at_source), None)
            if apart is not None:
                port = node.triggers[apart]
                why = "its part of the pipeline is not given the model's inputs, which an explainer explains"
                if groups[apart].at_source:
                    why = f"{groups[0].steps[0]} is placed elsewhere, and {node.name} runs where its triggers do"
                fix = "trigger it by detectors in one place that read the pipeline's inputs"
                self._refuse(place(self._graph, node, port), port.text, why, fix)
            elif groups:
                groups[0].steps.append(node.name)

    def _output(self) -> None:
        """All that the pipeline gives must come of one group; verdicts may come of each."""
        named = self._output_steps()
        judging = [name for name in named if self._nodes[name].role == "detector"]
        called = [name for name in named if name not in judging]
        first = self._group_of(called[0]) if called else None
        for position, name in enumerate(named):
            if name in called and self._group_of(name) is not first:
                why = f"it runs in another part of the pipeline than {called[0]}, and each part gives what is its own"
                fix = "name one step that reads them all"
                self._refuse(("spec", "output", "steps", position), f"step {name!r}", why, fix)
        for group in self._groups if judging else ():
            judges = [name for name in group.steps if self._nodes[name].role == "detector"]
            if judges and not set(judges) & set(judging):
                why = "the output names other detectors, and a part of its own publishes what its detectors say"
                where = step_place(self._graph, self._nodes[judges[0]])
                self._refuse(where, f"step {judges[0]!r} judges for nobody", why, "name it in the output")

    def _output_steps(self) -> list[str]:
        output = self._pipeline.spec.output
        references = [parse(text) for text in (output.steps if output is not None else ())]
        return [one.node for one in references if one is not None]

    def _gives_captured(self) -> bool:
        return bool(set(self._output_steps()) & set(self._captured))

    def _group_of(self, step: str) -> Group:
        if step in self._captured:
            return self._at_source(home(self._pipeline))
        return next(group for group in self._groups if step in group.steps)

    def _main(self) -> Group:
        named = self._output_steps()
        called = [name for name in named if self._nodes[name].role != "detector"]
        for name in (called or named)[:1]:
            return self._group_of(name)
        own = (group for group in self._groups if group.placement == home(self._pipeline))
        return next(own, self._groups[0])


def _is_captured(node: Node) -> bool:
    return node.step is not None and node.step.model is not None and node.step.model.url is None


def _sides(node: Node) -> Iterable[Topic]:
    return node.takes, node.gives
