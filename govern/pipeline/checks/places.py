"""Where the nodes of a graph stand in the document that it was made of."""

from __future__ import annotations

from govern.pipeline.errors import Where
from govern.pipeline.graph import OUTPUT, Graph, Node, Port


def step_place(one: Graph, node: Node) -> Where:
    """A step; or the pipeline's `input` or `output`."""
    if node.step is None:
        return "spec", node.role
    return "spec", "steps", [step.name for step in one.steps].index(node.name)


def place(one: Graph, node: Node, port: Port) -> Where:
    """A reference of a node; the node itself for what it reads unasked."""
    where = step_place(one, node)
    if not port.text:
        return where
    inputs, triggers = ("externalInputs", "externalTriggers") if node.step is None else ("inputs", "triggers")
    if node.name == OUTPUT:
        inputs = "steps"
    key, ports = (inputs, node.inputs) if port in node.inputs else (triggers, node.triggers)
    return *where, key, [one.text for one in ports].index(port.text)


def words(node: Node) -> str:
    return f"{node.role} step {node.name!r}" if node.step is not None else f"the pipeline's {node.role}"
