"""One request through a whole pipeline graph.

A request's tensors are put where the pipeline's inputs are read; each step runs once its joins are met
(`govern.runtime.flow.joins`), on what its inputs brought under the names that its tensorMap gives, and what it returns
is read by the steps after it. Steps that are ready run side by side.

- **Result**: a function of graph, request and the steps' answers, never of who was quicker. All steps that can run do,
  also those that the output does not read (they are there for what they say elsewhere); then the request is at rest.
- **Failure**: the request fails with the first step that fails when the steps run one after another in their order
  (`govern.runtime.flow.order`): after what they read, and otherwise as the file has them. What would have run behind it
  is cancelled.
- **Branches**: a step that returns no tensor, or not the one that is read, sends nothing there. What cannot run any
  more is settled and holds nobody up.
- **Loops**: passes over the loop's steps, each of which a pass visits at most once. What comes from outside the loop is
  there in every pass, but only the first visits can be for its sake: a later one needs something that this pass or the
  last one returned inside the loop. So messages of different passes are never joined, which Seldon warns of. The loop
  is at rest after a pass that handed nothing on; steps behind it then run once, on what each of its steps returned on
  its last visit. A visit beyond `maxStepRevisits` fails.
- **Batches**: `batch` gathers rows of many requests into windows, for detectors in a worker. Inline there is one
  request, which is not held back until others come: its rows are the batch, and `size`, `windowMs` and `rolling` have
  no meaning. Nor has `joinWindowMs` (see the joins).
- **Chained pipelines**: who calls a pipeline puts the request where its `externalInputs` would arrive, joined and
  named; what other pipelines emit does not reach it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from govern.codecs.tensor import Tensor
from govern.errors import ConfigError
from govern.pipeline.graph import OUTPUT, Graph, edges, reachable
from govern.runtime.flow import concurrent
from govern.runtime.flow.errors import DeadlinePassed
from govern.runtime.flow.message import NOTHING, Message, Step
from govern.runtime.flow.order import units
from govern.runtime.flow.request import Request


@dataclass(frozen=True, slots=True)
class Outcome:
    """A request at rest.

    Attributes:
        outputs: the pipeline's; empty when nothing reached its output, and for a pipeline without one.
        received: step -> what its inputs brought on its last visit, for each step that ran.
        returned: step -> what it returned then.
        visits: step -> how often, for each step that ran.
    """

    outputs: Message
    received: Mapping[str, Message]
    returned: Mapping[str, Message]
    visits: Mapping[str, int]


class Flow:
    """A graph with its steps. Serves any number of requests side by side; nothing of a request is kept.

    Attributes:
        output: the pipeline's exit; None for a pipeline that gives nothing.
        idle: steps that do nothing for a single request (a drift detector judges many, a captured model is not called),
            and all that read them: they are left to a worker.
    """

    def __init__(self, graph: Graph, steps: Mapping[str, Step]) -> None:
        """
        Args:
            steps: name -> what it does. A step without one is idle.

        Raises:
            ConfigError: the output reads an idle step.
        """
        self.graph = graph
        self.idle = _idle(graph, steps)
        self._steps = steps
        self.output = next((node for node in graph.nodes if node.name == OUTPUT), None)
        active = tuple(node for node in graph.nodes if node.name not in self.idle)
        self._units = units(Graph(graph.name, active, graph.max_revisits))

    async def run(
        self,
        inputs: Sequence[Tensor],
        *,
        request_id: str,
        deadline_s: float | None = None,
        own: Mapping[str, Step] | None = None,
    ) -> Outcome:
        """Take one request through the graph.

        Cancelled, it cancels the steps that run and waits for them.

        Args:
            own: name -> what the step does for this request only.

        Raises:
            StepRefused, StepFailed: a step raised.
            TooManyVisits: in a loop.
            DeadlinePassed: not at rest in time.
            ConfigError: two outputs bring a tensor of the same name.
        """
        request = Request(self.graph, {**self._steps, **(own or {})}, request_id, tuple(inputs))
        try:
            async with asyncio.timeout(deadline_s):
                await concurrent.run(request.jobs(self._units))
        except TimeoutError as error:
            raise DeadlinePassed(
                f"pipeline {self.graph.name!r}, request {request_id!r}",
                why=f"{', '.join(sorted(request.under_way)) or 'no step'} had not answered after {deadline_s:g} s",
                fix="allow the request more time, or bound the slow step by its timeoutMs",
            ) from error
        return Outcome(
            outputs=request.output(self.output) if self.output is not None else NOTHING,
            received=request.received,
            returned=request.returned,
            visits=request.visits,
        )


def _idle(graph: Graph, steps: Mapping[str, Step]) -> frozenset[str]:
    readers = edges(graph)
    able = {node.name for node in graph.nodes if node.step is None or node.name in steps}
    idle = {node.name for node in graph.nodes} - able
    for name in tuple(idle):
        idle |= reachable(readers, name)
    if OUTPUT in idle:
        output = next(node for node in graph.nodes if node.name == OUTPUT)
        for port in output.inputs:
            writer = graph.writer(port.topic)
            if writer is not None and writer.name in idle:
                raise ConfigError(
                    f"pipeline {graph.name!r}: its output reads {port.text}, which a call cannot answer with",
                    why=f"{writer.role} step {writer.name!r} {'waits for one that ' * (writer.name in able)}"
                    "says nothing of a single request",
                    fix="name other steps in output.steps, or leave this pipeline to a worker",
                )
    return frozenset(idle)
