"""A pipeline as one V2 model: what `govern.runtime.serving` serves, and whoever holds a request can ask."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final

from govern.codecs.tensor import Tensor
from govern.errors import ConfigError
from govern.ids import uuid7
from govern.record import Feedback
from govern.runtime.flow.engine import Flow, Outcome
from govern.runtime.flow.errors import NoOutput
from govern.runtime.flow.steps.router import Router
from govern.runtime.serving.model import ModelMetadata

#: How long a request may take in all: three calls of models, each as slow as they may be by default.
DEFAULT_DEADLINE_S: Final = 30.0


class FlowModel:
    """The whole pipeline as a function of tensors.

    An `AsyncV2Model`: asked on the event loop, where its connections to other models live, for many requests at once.
    """

    def __init__(
        self,
        flow: Flow,
        metadata: ModelMetadata,
        *,
        routers: Sequence[Router] = (),
        resources: AsyncExitStack | None = None,
        deadline_s: float = DEFAULT_DEADLINE_S,
    ) -> None:
        """
        Args:
            metadata: without `inputs` (or `outputs`) where the file does not say what the pipeline takes (or gives);
                then any tensors may be sent.
            routers: those that learn from feedback.
            resources: closed with the model.

        Raises:
            ConfigError: the pipeline has no output.
        """
        if flow.output is None:
            raise ConfigError(
                f"pipeline {flow.graph.name!r} has no output",
                why="who calls a pipeline waits for what it gives",
                fix="name the steps whose tensors it gives in spec.output.steps",
            )
        self._flow = flow
        self._metadata = metadata
        self._routers = tuple(routers)
        self._resources = resources or AsyncExitStack()
        self._deadline_s = deadline_s

    @property
    def metadata(self) -> ModelMetadata:
        return self._metadata

    @property
    def name(self) -> str:
        return self._metadata.name

    @property
    def flow(self) -> Flow:
        return self._flow

    async def infer(self, inputs: Sequence[Tensor], /, *, request_id: str = "") -> list[Tensor]:
        """The pipeline's outputs.

        Args:
            request_id: a router's route follows from it, and feedback finds the route by it; a new one when empty.

        Raises:
            GovernError: what `Flow.run` raises.
            NoOutput: nothing reached the output.
        """
        outcome = await self.outcome(inputs, request_id=request_id)
        if not outcome.outputs:
            raise NoOutput(
                f"pipeline {self._flow.graph.name!r} has no output for this request",
                why=f"steps that ran: {', '.join(outcome.visits) or 'none'}; what the output joins did not all come",
                fix="give every branch a way to the output, with stepsJoin: any where only one of them runs",
            )
        return list(outcome.outputs)

    async def outcome(self, inputs: Sequence[Tensor], /, *, request_id: str = "") -> Outcome:
        """What each step said of the request, and the outputs, which may be none."""
        return await self._flow.run(inputs, request_id=request_id or uuid7(), deadline_s=self._deadline_s)

    @property
    def routers(self) -> Sequence[Router]:
        """Those that feedback teaches."""
        return self._routers

    def learn(self, feedback: Feedback) -> bool:
        """Tell the routers what a request was worth; whether one of them had routed it and now knows more."""
        learned = [router.learn(feedback) for router in self._routers]
        return any(learned)

    async def close(self) -> None:
        """Close the connections of its steps."""
        await self._resources.aclose()
