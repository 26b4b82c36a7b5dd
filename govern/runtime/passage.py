"""A message on its way through one pipeline: which steps are to read it, and where it leaves its traces. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from govern.bus.protocol import Message
from govern.errors import GovernError
from govern.frame import Frame
from govern.pipeline.graph import OUTPUT
from govern.record import DeadLetter, Inference
from govern.runtime import dead_letters
from govern.runtime.checkpoint import WindowKey
from govern.runtime.loader import LoadedPipeline
from govern.runtime.retry import Target
from govern.runtime.windows import Rows


@dataclass(frozen=True, slots=True)
class Passage:
    """
    Attributes:
        wanted: who is to read it, when it is a retried one.
        lost: instances that capture had dropped before it.
    """

    loaded: LoadedPipeline
    inference: Inference
    message: Message
    wanted: Target | None
    lost: int

    def _takes(self, step: str, wanted: Target) -> bool:
        """Whether a detector is to read a retried one; a flow that failed fed none, and feeds all of its own now."""
        return wanted.takes(step) or (step in self.loaded.fed and self.takes_outputs)

    @property
    def takes_outputs(self) -> bool:
        """Whether what the flow gives is new: it was given before when one detector could not read its part."""
        return self.wanted is None or self.wanted.step not in self.loaded.detectors

    @property
    def unread(self) -> str:
        """The step of a letter whose flow could not read what the detectors beside it have read."""
        return OUTPUT if self.loaded.detectors.keys() - self.loaded.fed else ""

    def keys(self) -> dict[str, WindowKey]:
        """The windows of the detectors that are to read it, by step."""
        name, revision, endpoint = self.loaded.plan.name, self.inference.revision, self.inference.endpoint
        steps = self.loaded.detectors
        if self.wanted is None:
            return {step: WindowKey(name, step, revision, endpoint) for step in steps}
        return {step: WindowKey(name, step, revision, endpoint) for step in steps if self._takes(step, self.wanted)}

    def rows(self, frame: Frame) -> Rows:
        trace = next((v.decode("latin-1") for k, v in self.message.headers if k == "traceparent"), None)
        return Rows.of_message(
            frame,
            offset=self.message.offset,
            time_ns=self.inference.t_response,
            request_id=self.inference.request_id,
            traceparent=self.inference.traceparent if trace is None else trace,
        )

    def letter(self, error: GovernError, step: str = "") -> DeadLetter:
        plan = self.loaded.plan
        return dead_letters.of_message(self.message, error, namespace=plan.namespace, pipeline=plan.name, step=step)
