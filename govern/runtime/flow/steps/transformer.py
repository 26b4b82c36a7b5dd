"""Transformer: a Python function of tensors, found by its entry point."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import numpy as np

from govern import plugins
from govern.codecs.tensor import DTYPES, Tensor, objects
from govern.errors import ConfigError, GovernError
from govern.pipeline.spec import Param, TransformerSpec
from govern.runtime.flow.message import Call

#: `function(tensors, **params) -> tensors`, both name -> Tensor; a numpy array in place of a Tensor has its datatype.
Function = Callable[..., Any]

_DATATYPES: Final = {dtype: name for name, dtype in DTYPES.items() if name != "BF16"}


class BadReturn(GovernError):
    """A transformer gave something that is no tensors."""

    code = "bad-return"


class Transformer:
    """Runs the function: a coroutine function on the event loop, any other in a thread.

    A thread cannot be stopped: at the request's deadline its caller is answered, and the function runs on unheard.
    """

    def __init__(self, function: Function, params: Mapping[str, Param]) -> None:
        self._function = function
        self._params = dict(params)

    async def __call__(self, call: Call, /) -> list[Tensor]:
        given = {tensor.name: tensor for tensor in call.tensors}
        if inspect.iscoroutinefunction(self._function):
            answer = await self._function(given, **self._params)
        else:
            answer = await asyncio.to_thread(self._function, given, **self._params)
        if not isinstance(answer, Mapping):
            raise BadReturn(
                f"the function returned {type(answer).__name__}",
                why="the flow reads a mapping, name -> tensor",
                fix="return a dict; an empty one when there is nothing to say",
            )
        return [_tensor(name, value) for name, value in answer.items()]


def transformer(step: str, spec: TransformerSpec) -> Transformer:
    """The transformer of a step.

    Raises:
        ConfigError: there is no such function, or it does not take the step's params.
    """
    where = f"step {step!r}: transformer.callable {spec.callable}"
    function = plugins.function(spec.callable, where=where)
    try:
        # Some functions of C do not tell what they take.
        with suppress(ValueError):
            inspect.signature(function).bind({}, **spec.params)
    except TypeError as error:
        fix = "let it take the tensors, and the params by their names"
        raise ConfigError(where, why=f"it does not take the step's params: {error}", fix=fix) from error
    return Transformer(function, spec.params)


def _tensor(name: object, value: object) -> Tensor:
    if isinstance(name, str) and isinstance(value, Tensor):
        return Tensor(name, value.datatype, value.data)
    if isinstance(name, str) and isinstance(value, np.ndarray):
        data = objects(value.ravel().tolist()).reshape(value.shape) if value.dtype.kind in "US" else value
        datatype = _DATATYPES.get(data.dtype)
        if datatype is not None:
            return Tensor(name, datatype, data)
        why = f"V2 has no datatype for numpy's {value.dtype}"
    else:
        why = f"it is {type(value).__name__}, no Tensor and no numpy array"
    raise BadReturn(f"the function returned {name!r}", why=why, fix="return name -> Tensor")
