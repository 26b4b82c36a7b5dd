"""A pipeline's graph from a few lines of YAML, with Python functions as its steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import yaml

from govern.codecs.tensor import Tensor
from govern.pipeline.graph import Graph, graph
from govern.pipeline.spec import Pipeline
from govern.runtime.flow import Call, Flow

#: What a step does with the numbers that it is given, by name.
Function = Callable[..., Mapping[str, float]]


def graph_of(spec: str) -> Graph:
    """Of a pipeline `p`; a step that says nothing else is a transformer."""
    content = _tuples(yaml.safe_load(spec))
    for step in content["steps"]:
        if len({"router", "combiner", "model", "detector", "explainer"} & step.keys()) == 0:
            step["transformer"] = {"callable": "somewhere:something"}
    return graph(
        Pipeline.model_validate(
            {"apiVersion": "govern.io/v1alpha1", "kind": "Pipeline", "metadata": {"name": "p"}, "spec": content}
        )
    )


def flow_of(spec: str, **functions: Function) -> Flow:
    return Flow(graph_of(spec), {name.replace("_", "-"): step(function) for name, function in functions.items()})


def step(function: Function) -> Any:
    async def call(call: Call) -> list[Tensor]:
        return tensors(**function(**{one.name: float(one.data[0]) for one in call.tensors}))

    return call


def tensors(**values: float) -> list[Tensor]:
    return [Tensor(name, "FP64", np.array([value], np.float64)) for name, value in values.items()]


def numbers(message: Any) -> dict[str, float]:
    return {one.name: float(one.data[0]) for one in message}


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(one) for key, one in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
