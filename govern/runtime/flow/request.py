"""A request on its way: what is on the topics, and the visits that steps and loops are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from govern.pipeline.graph import Graph, Node, Port, Topic
from govern.runtime.flow import concurrent
from govern.runtime.flow.errors import StepFailed, TooManyVisits, of_step
from govern.runtime.flow.joins import WAIT, Arrival, Decision, Undecided, decide
from govern.runtime.flow.message import NOTHING, Call, Message, Part, Step, merged, taken
from govern.runtime.flow.order import Loop, Unit


@dataclass(slots=True)
class Request:
    """What happens to one request.

    Attributes:
        settled: topic -> what is on it, once that is known.
        received, returned: by each step on its last visit.
        under_way: steps that were called and have not returned anything.
    """

    graph: Graph
    steps: Mapping[str, Step]
    id: str
    inputs: Message
    settled: dict[Topic, Message] = field(default_factory=dict)
    returned: dict[str, Message] = field(default_factory=dict)
    received: dict[str, Message] = field(default_factory=dict)
    visits: dict[str, int] = field(default_factory=dict)
    under_way: set[str] = field(default_factory=set)

    def jobs(self, units: Sequence[Unit]) -> list[concurrent.Job]:
        self.settled[self.graph.entry] = self.inputs
        whole = _Pass(self.settled)
        return [_Round(self, unit) if isinstance(unit, Loop) else _Visit(self, unit, whole) for unit in units]

    def output(self, node: Node) -> Message:
        """What the exit joins, once the request is at rest.

        Raises:
            ConfigError: two outputs bring a tensor of the same name.
        """
        arrivals = [Arrival(taken(port, self.settled.get(port.topic, NOTHING))) for port in node.inputs]
        chosen = decide(node.inputs_join, arrivals, "inner", ())
        return NOTHING if isinstance(chosen, Undecided) else merged(_parts(node, arrivals, chosen))

    async def visit(self, node: Node, parts: tuple[Part, ...]) -> None:
        """Call the step and keep what it returned.

        Raises:
            StepRefused, StepFailed, TooManyVisits: as said.
        """
        before = self.visits.get(node.name, 0)
        if before > self.graph.max_revisits:
            too_many = TooManyVisits(
                f"pipeline {self.graph.name!r}, step {node.name!r}",
                why=f"request {self.id!r} has come back {before - 1} times, and maxStepRevisits allows no more",
                fix="let a step of the loop end it sooner, or raise maxStepRevisits",
            )
            too_many.step = node.name
            raise too_many
        self.visits[node.name] = before + 1
        self.under_way.add(node.name)
        try:
            answer = tuple(await self.steps[node.name](Call(self.id, before, parts)))
        except Exception as error:
            raise of_step(self.graph.name, node.name, error) from error
        self.under_way.remove(node.name)
        names = [tensor.name for tensor in answer]
        if len(set(names)) < len(names):
            failed = StepFailed(
                f"pipeline {self.graph.name!r}, step {node.name!r} returned {', '.join(names)}",
                why="a name comes twice, and references could not tell the tensors apart",
                fix="give each tensor a name of its own",
            )
            failed.step = node.name
            raise failed
        self.received[node.name] = tuple(tensor for part in parts for tensor in part.tensors)
        self.returned[node.name] = answer


@dataclass(slots=True)
class _Pass:
    """Where the visits of one pass read and write: the whole graph has one, a loop one after another.

    Attributes:
        settled: what this pass has written, and for the whole graph the request.
        outside: for a loop's pass, all that comes from outside.
        carried: what the last pass handed on over the edges that lead back; None in the first pass.
    """

    settled: dict[Topic, Message]
    loop: Loop | None = None
    outside: Mapping[Topic, Message] = field(default_factory=dict)
    carried: Mapping[Topic, Message] | None = None

    def arrival(self, node: Node, port: Port) -> Arrival:
        loop, topic = self.loop, port.topic
        if loop is None:
            found = self.settled.get(topic)
        elif topic not in loop.topics:
            return Arrival(taken(port, self.outside[topic]), stale=self.carried is not None)
        elif (topic, node.name) in loop.back:
            found = (self.carried or {}).get(topic, NOTHING)
        else:
            found = self.settled.get(topic)
        return Arrival(None if found is None else taken(port, found))


@dataclass(slots=True)
class _Visit:
    """The job of one step in one pass."""

    request: Request
    node: Node
    place: _Pass
    parts: tuple[Part, ...] = ()

    def decide(self) -> Decision:
        node = self.node
        inputs = [self.place.arrival(node, port) for port in node.inputs]
        triggers = [self.place.arrival(node, port) for port in node.triggers]
        chosen = decide(node.inputs_join, inputs, node.triggers_join, triggers)
        if not isinstance(chosen, Undecided):
            self.parts = _parts(node, inputs, chosen)
        return chosen

    def skip(self) -> None:
        self.place.settled[self.node.takes] = self.place.settled[self.node.gives] = NOTHING

    async def run(self) -> None:
        await self.request.visit(self.node, self.parts)
        self.place.settled[self.node.takes] = self.request.received[self.node.name]
        self.place.settled[self.node.gives] = self.request.returned[self.node.name]


@dataclass(slots=True)
class _Round:
    """The job of a whole loop."""

    request: Request
    loop: Loop

    def decide(self) -> Undecided | None:
        ports = (port for node in self.loop.nodes for port in node.ports)
        outside = (port.topic for port in ports if port.topic not in self.loop.topics)
        return None if all(topic in self.request.settled for topic in outside) else WAIT

    def skip(self) -> None:
        raise AssertionError("a loop is always entered; it may be that none of its steps runs")

    async def run(self) -> None:
        loop, request = self.loop, self.request
        carried: dict[Topic, Message] | None = None
        while carried is None or any(carried.values()):
            place = _Pass({}, loop, request.settled, carried)
            await concurrent.run([_Visit(request, node, place) for node in loop.nodes])
            carried = self._handed_on(place)
        for node in loop.nodes:
            request.settled[node.takes] = request.received.get(node.name, NOTHING)
            request.settled[node.gives] = request.returned.get(node.name, NOTHING)

    def _handed_on(self, place: _Pass) -> dict[Topic, Message]:
        """What is read over an edge that leads back, of what this pass returned."""
        ports = ((node, port) for node in self.loop.nodes for port in node.ports)
        back = (port for node, port in ports if (port.topic, node.name) in self.loop.back)
        return {port.topic: place.settled[port.topic] for port in back if taken(port, place.settled[port.topic])}


def _parts(node: Node, arrivals: Sequence[Arrival], chosen: Sequence[int]) -> tuple[Part, ...]:
    return tuple(Part(node.inputs[at].text, at, arrivals[at].message or NOTHING) for at in chosen)
