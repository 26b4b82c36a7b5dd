"""A pipeline as its data flows: nodes with joins at their entries, and the topics between them.

The pipeline's own entry and exit are nodes like any step: they join, and hand on what they were given. This is what the
checks of the flow, the drawings and the interpreter read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from govern.pipeline.check import Kinds
from govern.pipeline.references import Reference, Side, detector_kind, parse, parse_external
from govern.pipeline.spec import (
    DEFAULT_JOIN_WINDOW_MS,
    DEFAULT_MAX_STEP_REVISITS,
    Batch,
    JoinType,
    Pipeline,
    Step,
    StepRole,
)
from govern.pipeline.topology import window
from govern.record import Kind

Role = StepRole | Literal["input", "output"]

#: Names of the entry and the exit among the nodes; no step can have them, because a step's name has no brackets.
INPUT: Final = "<input>"
OUTPUT: Final = "<output>"


@dataclass(frozen=True, slots=True, order=True)
class Topic:
    """One side of a step, or of a pipeline (node ""), as a place where messages are."""

    pipeline: str
    node: str
    side: Side

    def __str__(self) -> str:
        return f"{self.pipeline}.step.{self.node}.{self.side}" if self.node else f"{self.pipeline}.{self.side}"


@dataclass(frozen=True, slots=True)
class Port:
    """What a node reads of a topic.

    Attributes:
        text: the reference as it was written; "" for the pipeline's inputs that a step reads unasked.
        tensor: the only tensor that is read; "" for all.
        names: tensor on the topic -> name under which the node receives it, for those that are renamed.
    """

    text: str
    topic: Topic
    tensor: str
    names: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Node:
    """A step, or the pipeline's entry or exit.

    Attributes:
        kind: of a detector.
        inputs, inputs_join: the data that the node waits for.
        triggers, triggers_join: what it waits for besides, and does not receive.
        window_ms: how long a part waits for the others.
        batch: None for a node that takes each request alone.
        takes, gives: the topics on which what it receives and what it returns can be read.
        looped: whether a request can come back to it.
    """

    name: str
    role: Role
    step: Step | None
    inputs: tuple[Port, ...]
    inputs_join: JoinType
    triggers: tuple[Port, ...]
    triggers_join: JoinType
    window_ms: int
    batch: Batch | None
    takes: Topic
    gives: Topic
    kind: Kind | None = None
    looped: bool = False

    @property
    def ports(self) -> tuple[Port, ...]:
        return self.inputs + self.triggers


@dataclass(frozen=True, slots=True)
class Graph:
    """A pipeline's nodes: the entry when it reads other pipelines, the steps in the file's order, the exit if any.

    Attributes:
        max_revisits: how often a request may come back to a step after its first visit.
    """

    name: str
    nodes: tuple[Node, ...]
    max_revisits: int

    @property
    def entry(self) -> Topic:
        """Where the pipeline's requests are put."""
        return Topic(self.name, "", "inputs")

    @property
    def steps(self) -> tuple[Node, ...]:
        return tuple(node for node in self.nodes if node.step is not None)

    def writer(self, topic: Topic) -> Node | None:
        """The node that writes a topic; None for other pipelines' topics and the entry of a pipeline that is called."""
        return next((node for node in self.nodes if topic in (node.takes, node.gives)), None)


def graph(pipeline: Pipeline, *, kinds: Kinds = detector_kind) -> Graph:
    """The flow of a pipeline whose references were checked.

    Raises:
        GovernError: what `kinds` raises for a detector type that cannot be used.
    """
    name, spec = pipeline.name, pipeline.spec
    nodes = [_step(one, name, kinds) for one in spec.steps]
    entry = Topic(name, "", "inputs")
    if spec.input is not None:
        given = spec.input
        nodes.insert(
            0,
            Node(
                name=INPUT,
                role="input",
                step=None,
                inputs=_external(given.external_inputs, given.tensor_map),
                inputs_join=given.join_type or "inner",
                triggers=_external(given.external_triggers, {}),
                triggers_join=given.triggers_join_type or "inner",
                window_ms=DEFAULT_JOIN_WINDOW_MS if given.join_window_ms is None else given.join_window_ms,
                batch=None,
                takes=entry,
                gives=entry,
            ),
        )
    if spec.output is not None:
        result = spec.output
        nodes.append(
            Node(
                name=OUTPUT,
                role="output",
                step=None,
                inputs=_ports(result.steps, name, result.tensor_map),
                inputs_join=result.steps_join or "inner",
                triggers=(),
                triggers_join="inner",
                window_ms=DEFAULT_JOIN_WINDOW_MS if result.join_window_ms is None else result.join_window_ms,
                batch=None,
                takes=Topic(name, "", "outputs"),
                gives=Topic(name, "", "outputs"),
            )
        )
    revisits = DEFAULT_MAX_STEP_REVISITS if spec.max_step_revisits is None else spec.max_step_revisits
    return _with_loops(Graph(name=name, nodes=tuple(nodes), max_revisits=revisits))


def fed(node: Node, one: Graph) -> bool:
    """Whether a node is a detector that is handed what other steps return, or a part of the inference only.

    The others read the inference as it was captured, whole: the pipeline's inputs, and a captured model's outputs.
    """
    if node.role != "detector":
        return False
    if node.triggers or any(port.names for port in node.inputs):
        return True
    if node.inputs_join != "inner" and len(node.inputs) > 1:
        return True
    return not all(_of_inference(port, one) for port in node.inputs)


def _of_inference(port: Port, one: Graph) -> bool:
    if port.topic == one.entry:
        return not port.tensor
    writer = one.writer(port.topic)
    model = writer.step.model if writer is not None and writer.step is not None else None
    return model is not None and model.url is None and port.topic.side == "outputs"


def reachable(edges: Mapping[str, Iterable[str]], start: str) -> set[str]:
    """The names that can be reached from one, itself only over a cycle."""
    found: set[str] = set()
    waiting = list(edges.get(start, ()))
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(edges.get(name, ()))
    return found


def edges(one: Graph) -> dict[str, set[str]]:
    """Node -> the nodes that read it."""
    found: dict[str, set[str]] = {node.name: set() for node in one.nodes}
    for node in one.nodes:
        for port in node.ports:
            writer = one.writer(port.topic)
            if writer is not None:
                found[writer.name].add(node.name)
    return found


def _step(step: Step, pipeline: str, kinds: Kinds) -> Node:
    role = step.role
    kind = kinds(step.detector.type) if step.detector is not None else None
    size, window_ms = window(step, kind)
    batch = Batch(size=size or step.batch.size, window_ms=window_ms or step.batch.window_ms, rolling=step.batch.rolling)
    ports = _ports(step.inputs, pipeline, step.tensor_map)
    if not ports:
        whole = Topic(pipeline, "", "inputs")
        ports = (Port("", whole, "", dict(_names(whole, step.tensor_map, pipeline))),)
    return Node(
        name=step.name,
        role=role,
        step=step,
        inputs=ports,
        inputs_join=step.inputs_join_type or "inner",
        triggers=_ports(step.triggers, pipeline, {}),
        triggers_join=step.triggers_join_type or ("any" if role == "explainer" else "inner"),
        window_ms=DEFAULT_JOIN_WINDOW_MS if step.join_window_ms is None else step.join_window_ms,
        batch=batch if batch.size or batch.window_ms else None,
        takes=Topic(pipeline, step.name, "inputs"),
        gives=Topic(pipeline, step.name, "outputs"),
        kind=kind,
    )


def _ports(texts: Iterable[str], pipeline: str, tensor_map: Mapping[str, str]) -> tuple[Port, ...]:
    ports = []
    for text in texts:
        reference = parse(text)
        assert reference is not None, "checked before"
        topic = _topic(reference, pipeline)
        ports.append(Port(text, topic, reference.tensor, dict(_names(topic, tensor_map, pipeline))))
    return tuple(ports)


def _external(texts: Iterable[str], tensor_map: Mapping[str, str]) -> tuple[Port, ...]:
    ports = []
    for text in texts:
        reference = parse_external(text)
        assert reference is not None, "checked before"
        topic = Topic(reference.pipeline, reference.node, reference.side)
        ports.append(Port(text, topic, reference.tensor, dict(_names(topic, tensor_map, ""))))
    return tuple(ports)


def _names(topic: Topic, tensor_map: Mapping[str, str], pipeline: str) -> Iterator[tuple[str, str]]:
    """The entries of a tensorMap that rename tensors of this topic. No `pipeline`: they name other pipelines'."""
    for text, name in tensor_map.items():
        reference = parse(text) if pipeline else parse_external(text)
        if reference is None:
            continue
        named = _topic(reference, pipeline) if pipeline else Topic(reference.pipeline, reference.node, reference.side)
        if named == topic:
            yield reference.tensor, name


def _topic(reference: Reference, pipeline: str) -> Topic:
    return Topic(pipeline, "" if reference.node == pipeline else reference.node, reference.side)


def _with_loops(one: Graph) -> Graph:
    reads = edges(one)
    looped = {node.name for node in one.nodes if node.name in reachable(reads, node.name)}
    nodes = tuple(replace(node, looped=node.name in looped) for node in one.nodes)
    return Graph(name=one.name, nodes=nodes, max_revisits=one.max_revisits)
