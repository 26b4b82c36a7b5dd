"""One request through a whole pipeline graph, inline: the engine, and the steps that are called."""

from govern.runtime.flow.engine import Flow, Outcome
from govern.runtime.flow.message import Call, Message, Part, Step
from govern.runtime.flow.model import FlowModel

__all__ = ["Call", "Flow", "FlowModel", "Message", "Outcome", "Part", "Step"]
