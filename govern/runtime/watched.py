"""The flow of a pipeline that watches a captured stream: what its called steps make of each captured inference.

Each inference is one request of the flow (`govern.runtime.flow`): the pipeline's inputs are the tensors of the captured
request, the captured model returns those of the captured response, and models, transformers, routers and combiners are
called. A detector gathers windows and says nothing of one inference; what it reads is joined like the inputs of any
step, and is handed to its window as rows of the schema that the detector was fitted on.

A flow is all or nothing. When one of its steps fails for an inference, none of it counts, neither outputs nor what
detectors would have read, so that giving the inference back repeats all of it and nothing twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from govern.codecs.frames import to_frame, to_tensors
from govern.codecs.inference import matrices, request_tensors, response_tensors
from govern.codecs.tensor import MIXED
from govern.detection import Detector
from govern.errors import GovernError
from govern.frame import Frame
from govern.pipeline import Pipeline
from govern.pipeline.check import Kinds
from govern.pipeline.graph import OUTPUT, Graph, Node, edges, fed, graph, reachable
from govern.pipeline.references import detector_kind
from govern.record import Feedback, Inference
from govern.runtime.flow.connections import Connections
from govern.runtime.flow.engine import Flow
from govern.runtime.flow.message import NOTHING, Call, Message, Step
from govern.runtime.flow.steps.router import Router
from govern.schema import FeatureSchema

#: How long one inference may take in all. Models have timeouts of their own; this ends a function that never returns.
DEADLINE_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Ran:
    """What a flow made of an inference.

    Attributes:
        inputs: what it was given.
        outputs: what the pipeline gives; empty when nothing reached its output.
        received: step -> what its inputs brought, for each step that ran; of a detector, what its window is to hold.
        returned: step -> what it returned.
    """

    inputs: Message
    outputs: Message
    received: Mapping[str, Message]
    returned: Mapping[str, Message]


@dataclass(frozen=True, slots=True)
class Failed:
    """Why a flow made nothing of an inference.

    Attributes:
        step: which one failed; `govern.pipeline.graph.OUTPUT` when it was the flow as a whole, "" when the inference
            could not be read.
    """

    error: GovernError
    step: str

    @classmethod
    def of(cls, error: GovernError) -> Failed:
        """Of what a flow raised."""
        return cls(error, getattr(error, "step", "") or OUTPUT)


class WatchedFlow:
    """Takes any number of inferences through the steps, side by side; nothing of an inference is kept.

    Made anywhere, used on one event loop, where its connections to models live.

    Attributes:
        routers: those that feedback teaches.
    """

    def __init__(self, pipeline: Pipeline, schema: FeatureSchema, *, connections: Connections | None = None) -> None:
        """
        Args:
            schema: of the captured requests.
            connections: makes the steps.

        Raises:
            ConfigError: a transformer's function is not what the file says.
            MissingExtra: a model is called over gRPC, and grpcio is absent.
        """
        self._schema = schema
        self._connections = connections or Connections()
        one = watched(pipeline)
        steps: dict[str, Step] = {}
        for node in one.steps:
            assert node.step is not None, "a step has what the file says of it"
            steps[node.name] = self._connections.step(node.step) or _nothing
        self._captured = frozenset(node.name for node in one.steps if _is_captured(node))
        self._flow = Flow(one, steps)
        self.routers = tuple(step for step in steps.values() if isinstance(step, Router) and step.learns)

    @property
    def graph(self) -> Graph:
        """Of the steps that run for each inference."""
        return self._flow.graph

    @property
    def name(self) -> str:
        return self.graph.name

    def learn(self, feedback: Feedback) -> bool:
        """Tell the routers what a request was worth; whether one of them knows more by it."""
        learned = [router.learn(feedback) for router in self.routers]
        return any(learned)

    def inputs(self, inference: Inference) -> Message:
        """The tensors of the captured request. Rows whose columns differ in type become one tensor for each feature.

        Raises:
            BadInput: they cannot be read.
        """
        tensors = tuple(request_tensors(inference, self._schema))
        if any(tensor.datatype == MIXED for tensor in tensors):
            return tuple(to_tensors(to_frame(tensors, self._schema)))
        return tensors

    async def run(self, inference: Inference, inputs: Message) -> Ran:
        """
        Args:
            inputs: of the same inference.

        Raises:
            GovernError: as `Flow.run`.
        """

        async def captured(call: Call, /) -> Message:
            return tuple(response_tensors(inference))

        outcome = await self._flow.run(
            inputs,
            request_id=inference.request_id or inference.id,
            deadline_s=DEADLINE_S,
            own=dict.fromkeys(self._captured, captured),
        )
        return Ran(inputs, outcome.outputs, outcome.received, outcome.returned)

    async def close(self) -> None:
        """Close the connections to models."""
        await self._connections.stack.aclose()


def watched(pipeline: Pipeline, *, kinds: Kinds = detector_kind) -> Graph:
    """The part of a pipeline's graph that runs for each captured inference; without nodes when there is none.

    A detector that reads nothing but the whole inference is not in it, nor what explains, nor a captured model that
    no node of it reads. The pipeline's exit is, as far as it gives what steps return: verdicts have a way of their own.
    """
    one = graph(pipeline, kinds=kinds)
    kept = [node for node in one.steps if node.role not in ("explainer", "detector") and not _is_captured(node)]
    kept += [node for node in one.steps if fed(node, one)]
    exit_ = next((node for node in one.nodes if node.name == OUTPUT), None)
    if exit_ is not None:
        judging = {node.gives for node in one.steps if node.role == "detector"}
        ports = tuple(port for port in exit_.inputs if port.topic not in judging)
        kept += [replace(exit_, inputs=ports)] if ports else []
    read = {port.topic for node in kept for port in node.ports}
    names = {node.name for node in kept}
    names |= {node.name for node in one.steps if _is_captured(node) and {node.gives, node.takes} & read}
    by_name = {node.name: node for node in (*one.nodes, *kept)}
    return Graph(one.name, tuple(by_name[node.name] for node in one.nodes if node.name in names), one.max_revisits)


def asked(one: Graph, step: str) -> tuple[str, ...]:
    """The steps on which it depends what reaches another one, and which may say otherwise when they are asked again:
    called models, functions, and routers that have learned meanwhile.
    """
    readers = edges(one)
    return tuple(node.name for node in one.steps if _may_change(node) and step in reachable(readers, node.name))


def rows_of(received: Message, detector: Detector, inference_id: str) -> Frame:
    """What a detector's inputs brought, as rows of its own schema, with the tensors that it compares as outputs.

    Raises:
        DecodeError: they are not of the schema.
    """
    compared = [tensor for tensor in received if tensor.name in detector.needs_outputs]
    features = [tensor for tensor in received if tensor.name not in detector.needs_outputs]
    frame = to_frame(features, detector.schema, instance_prefix=inference_id)
    return replace(frame, outputs=matrices(compared, len(frame)))


def _may_change(node: Node) -> bool:
    assert node.step is not None, "a step has what the file says of it"
    if node.step.router is not None:
        return node.step.router.strategy != "weighted"
    return node.step.transformer is not None or (node.step.model is not None and not _is_captured(node))


def _is_captured(node: Node) -> bool:
    return node.step is not None and node.step.model is not None and node.step.model.url is None


async def _nothing(call: Call, /) -> Message:
    """A detector, of one inference. That no two of its tensors have one name is found here."""
    assert call.tensors, "an input that has arrived brought something"
    return NOTHING
