"""A graph's nodes in words, for the drawings."""

from __future__ import annotations

from govern.pipeline.graph import Node, Port
from govern.pipeline.groups import PLACEMENT
from govern.pipeline.spec import JoinType, Pipeline


def what(node: Node) -> str:
    """What a node is, in one line: `drift · tabular · window 500 rows or 60 s`."""
    if node.step is None:
        return "what it reads of other pipelines" if node.role == "input" else "what the pipeline gives"
    step = node.step
    parts: list[str] = [node.kind or node.role]
    if step.detector is not None:
        parts.append(step.detector.type)
    elif step.explainer is not None:
        parts += [step.explainer.name, f"up to {step.explainer.max_per_window} a window"]
    elif step.model is not None:
        parts.append("its captured responses" if step.model.url is None else f"called at {step.model.url}")
    elif step.transformer is not None:
        parts.append(step.transformer.callable)
    elif step.router is not None:
        weighted = step.router.strategy == "weighted"
        routes = [f"{one.name} {one.weight:g}" if weighted else one.name for one in step.router.routes]
        parts += [step.router.strategy, ", ".join(routes)]
    elif step.combiner is not None:
        weights = ", ".join(f"{one:g}" for one in step.combiner.weights)
        parts.append(f"{step.combiner.method} {weights}".rstrip())
    if step.placement is not None:
        parts.append(f"placed at {step.placement}")
    if node.batch is not None:
        limits = [f"{node.batch.size} rows"] if node.batch.size else []
        limits += [seconds(node.batch.window_ms)] if node.batch.window_ms else []
        parts.append(f"{'rolling ' if node.batch.rolling else ''}window {' or '.join(limits)}")
    return " · ".join(parts)


def reads(node: Node) -> str:
    """What a node waits for: `reads the first of a.outputs, b.outputs`."""
    return f"reads {_joined([port_text(port) for port in node.inputs], node.inputs_join, node.window_ms)}"


def waits(node: Node) -> str:
    """What has to be there besides; "" for a node without triggers."""
    texts = [port_text(port) for port in node.triggers]
    return f"when there is {_joined(texts, node.triggers_join, node.window_ms)}" if texts else ""


def port_text(port: Port) -> str:
    names = [f"{tensor} as {name}" for tensor, name in port.names.items()]
    return (port.text or str(port.topic)) + (f" ({', '.join(names)})" if names else "")


def seconds(milliseconds: int) -> str:
    return f"{milliseconds / 1000:g} s"


def _joined(texts: list[str], join: JoinType, window_ms: int) -> str:
    if len(texts) == 1:
        return texts[0]
    match join:
        case "inner":
            return f"{', '.join(texts[:-1])} and {texts[-1]}"
        case "any":
            return f"the first of {', '.join(texts)}"
        case "outer":
            return f"what comes within {seconds(window_ms)} of {', '.join(texts)}"


def placement(part: Pipeline) -> str:
    """A part of a pipeline that was cut, in one line: `fraud-embed, placed at gpu: embed`."""
    at = part.metadata.labels.get(PLACEMENT, "")
    names = [step.name for step in part.spec.steps if step.model is None or step.model.url is not None]
    where = f"placed at {at}" if at else "placed nowhere"
    return f"{part.name}, {where}: {', '.join(names or (step.name for step in part.spec.steps))}"
