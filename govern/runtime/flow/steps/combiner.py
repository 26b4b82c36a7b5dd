"""Combiner: one tensor of the tensors that its inputs bring, element by element."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from govern.codecs.tensor import Tensor
from govern.errors import BadInput, ConfigError
from govern.pipeline.spec import CombinerSpec
from govern.runtime.flow.message import Call, Part

#: What has all its values in an FP32, so that a mean of it is one.
_SINGLE = frozenset({"FP16", "BF16", "FP32"})


class Combiner:
    """`mean` and `weighted` give FP32 for narrow floats and FP64 for all other numbers; `vote` keeps the datatype.

    Of an outer join those inputs count that have arrived, and their weights.
    """

    def __init__(self, spec: CombinerSpec) -> None:
        self._spec = spec

    async def __call__(self, call: Call, /) -> list[Tensor]:
        tensors = [_only(part) for part in call.parts]
        _same([one.data.shape for one in tensors], "shape", call.parts)
        if self._spec.method == "vote":
            _same([one.datatype for one in tensors], "datatype", call.parts)
            return [Tensor(self._spec.output, tensors[0].datatype, _vote([one.data for one in tensors]))]
        for one, part in zip(tensors, call.parts, strict=True):
            if one.data.dtype.kind not in "fiub":
                raise BadInput(
                    f"{_name(part)} is {one.datatype}",
                    why=f"a {self._spec.method} is taken of numbers",
                    fix="read a tensor of numbers, or write method: vote",
                )
        narrow = all(one.datatype in _SINGLE for one in tensors)
        mean = np.average(
            np.stack([one.data.astype(np.float64) for one in tensors]), axis=0, weights=self._weights(call.parts)
        )
        kind = "FP32" if narrow else "FP64"
        return [Tensor(self._spec.output, kind, np.asarray(mean, dtype=np.float32 if narrow else np.float64))]

    def _weights(self, parts: Sequence[Part]) -> list[float] | None:
        if self._spec.method == "mean":
            return None
        weights = [self._spec.weights[part.position] for part in parts]
        if not any(weights):
            raise BadInput(
                f"only {', '.join(_name(part) for part in parts)} arrived",
                why="their weights are 0, so that their mean is undefined",
                fix="raise one of the weights, or join the inputs with inner",
            )
        return weights


def _only(part: Part) -> Tensor:
    if len(part.tensors) == 1:
        return part.tensors[0]
    raise ConfigError(
        f"{part.text or 'the pipeline'} brings {', '.join(one.name for one in part.tensors)}",
        why="a combiner takes one tensor from each input",
        fix="name it in the input: <step>.outputs.<tensor>",
    )


def _same(values: Sequence[object], what: str, parts: Sequence[Part]) -> None:
    for value, part in zip(values, parts, strict=True):
        if value != values[0]:
            first = list(values[0]) if isinstance(values[0], tuple) else values[0]
            raise BadInput(
                f"{_name(part)} has {what} {list(value) if isinstance(value, tuple) else value}",
                why=f"{_name(parts[0])} has {what} {first}, and elements are combined one by one",
                fix=f"let all inputs of the combiner have one {what}",
            )


def _name(part: Part) -> str:
    return f"{part.text.removesuffix('.' + part.tensors[0].name) or 'the pipeline'}: tensor {part.tensors[0].name!r}"


def _vote(arrays: Sequence[npt.NDArray[np.generic]]) -> npt.NDArray[np.generic]:
    """The most frequent of the values at each place; among equally frequent ones that of the first input."""
    votes = np.stack([sum(_equal(one, other).astype(np.intp) for other in arrays) for one in arrays])
    winner = np.argmax(votes, axis=0)
    elected: npt.NDArray[np.generic] = np.take_along_axis(np.stack(arrays), winner[np.newaxis], axis=0)[0]
    return elected


def _equal(one: npt.NDArray[np.generic], other: npt.NDArray[np.generic]) -> npt.NDArray[np.bool_]:
    equal = np.asarray(one == other, dtype=np.bool_)
    return equal | (np.isnan(one) & np.isnan(other)) if one.dtype.kind == "f" else equal
