"""One call of a model: the tensors in, those that were asked for out."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence

from starlette.concurrency import run_in_threadpool

from govern.codecs.tensor import Tensor
from govern.codecs.v2 import Request
from govern.errors import BadInput, NotFound
from govern.runtime.serving.calls import Calls
from govern.runtime.serving.model import ChoosesInputs, Labelled, Model, ModelMetadata
from govern.telemetry.metrics import labels


def find(models: Mapping[str, Model], name: str, version: str = "") -> Model:
    """The model of this name, in any version when none is named.

    Raises:
        NotFound: there is none, or not in this version.
    """
    model = models.get(name)
    if model is None:
        raise NotFound(f"model {name!r}", why=f"served are {', '.join(models) or 'none'}", fix="correct the name")
    versions = model.metadata.versions
    if version and version not in versions:
        raise NotFound(
            f"version {version!r} of model {name!r}",
            why=f"served are {', '.join(versions)}",
            fix="correct the version, or leave it out",
        )
    return model


async def infer(model: Model, asked: Request, calls: Calls) -> list[Tensor]:
    """
    Raises:
        BadInput: tensors that the model does not take or give, or cannot judge.
        Busy: there is no room.
    """
    names = [tensor.name for tensor in asked.inputs]
    if isinstance(model, ChoosesInputs):
        model.check_names(names)
    elif model.metadata.inputs:
        _check_names(names, model.metadata)
    async with calls.place(model.labels if isinstance(model, Labelled) else labels(model=model.metadata.name)):
        answer = await _answer(model, asked)
    return _select(answer, asked.outputs)


async def _answer(model: Model, asked: Request) -> list[Tensor]:
    if inspect.iscoroutinefunction(model.infer):
        waited: list[Tensor] = await model.infer(list(asked.inputs), request_id=asked.id)
        return waited
    return await run_in_threadpool(model.infer, list(asked.inputs))  # type: ignore[arg-type]


def _check_names(given: Sequence[str], metadata: ModelMetadata) -> None:
    wanted = [tensor.name for tensor in metadata.inputs]
    for name in given:
        if name not in wanted:
            raise BadInput(
                f"input tensor {name!r} is unknown",
                why=f"model {metadata.name!r} takes {', '.join(wanted)}",
                fix="correct the name",
            )
    for name in wanted:
        if name not in given:
            raise BadInput(
                f"input tensor {name!r} is absent",
                why=f"the request has {', '.join(given)}",
                fix="send every input of the model",
            )


def _select(outputs: list[Tensor], names: Sequence[str]) -> list[Tensor]:
    if not names:
        return outputs
    by_name = {tensor.name: tensor for tensor in outputs}
    for name in names:
        if name not in by_name:
            raise BadInput(
                f"output tensor {name!r} is unknown",
                why=f"the model gives {', '.join(by_name)}",
                fix="correct the name",
            )
    return [by_name[name] for name in names]
