"""What a pipeline takes and gives, as far as its steps declare it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from govern.pipeline.graph import Node, Port
from govern.pipeline.spec import TensorSpec
from govern.runtime.flow.engine import Flow
from govern.runtime.serving.model import ModelMetadata, TensorMetadata

PLATFORM: Final = "govern_pipeline"
_ANY_SIZE: Final = (-1,)


def metadata(flow: Flow) -> ModelMetadata:
    """The pipeline's, under its own name. `inputs` and `outputs` are empty where a step does not declare its own, or
    where not every request brings, or gets, all of them.
    """
    graph = flow.graph
    return ModelMetadata(name=graph.name, inputs=_inputs(flow), outputs=_outputs(flow), platform=PLATFORM)


def _inputs(flow: Flow) -> tuple[TensorMetadata, ...]:
    found: dict[str, TensorMetadata] = {}
    for node in flow.graph.steps:
        if node.name in flow.idle:
            continue
        for port in node.ports:
            if port.topic != flow.graph.entry:
                continue
            declared = _declared(node, "inputs")
            if declared is None or port in node.triggers or node.inputs_join != "inner":
                return ()
            names = {new: old for old, new in port.names.items()}
            for one in declared:
                name = names.get(one.name, one.name)
                if one.optional:
                    return ()
                if port.tensor == name or (not port.tensor and len(node.inputs) == 1):
                    found.setdefault(name, _metadata(name, one))
    return tuple(found.values())


def _outputs(flow: Flow) -> tuple[TensorMetadata, ...]:
    if flow.output is None or flow.output.inputs_join != "inner":
        return ()
    found: list[TensorMetadata] = []
    for port in flow.output.inputs:
        writer = flow.graph.writer(port.topic)
        declared = None if writer is None else _declared(writer, "outputs")
        if declared is None:
            return ()
        found += _read(port, declared)
    return tuple(found)


def _read(port: Port, declared: Iterable[TensorSpec]) -> Iterable[TensorMetadata]:
    return (_metadata(port.names.get(one.name, one.name), one) for one in declared if port.tensor in ("", one.name))


def _declared(node: Node, side: str) -> tuple[TensorSpec, ...] | None:
    step = node.step
    typed = None if step is None else step.model or step.transformer
    if typed is None:
        return None
    if side == "inputs":
        return typed.inputs
    return None if typed.one_of else typed.outputs


def _metadata(name: str, spec: TensorSpec) -> TensorMetadata:
    return TensorMetadata(name=name, datatype=spec.datatype, shape=_ANY_SIZE if spec.shape is None else spec.shape)
