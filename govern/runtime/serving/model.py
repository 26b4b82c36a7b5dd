"""A V2 model: what is served, whatever it is made of."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Final, Protocol, runtime_checkable

import msgspec

from govern.codecs.tensor import Tensor
from govern.schema import FeatureSchema

#: Digits of an artifact's digest that are its model's version: enough to tell the fits of one step apart.
VERSION_DIGITS: Final = 12


class TensorMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor that a model takes or gives. In `shape` -1 is any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class ModelMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to `GET /v2/models/{name}`."""

    name: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]
    versions: tuple[str, ...] = ("1",)
    platform: str = "govern"


class V2Model(Protocol):
    """What the server serves.

    A model whose metadata has no `inputs` is given whatever tensors are sent; any other those of these names.
    """

    @property
    def metadata(self) -> ModelMetadata: ...

    def infer(self, inputs: list[Tensor], /) -> list[Tensor]:
        """Outputs for the inputs. Called in a worker thread.

        Raises:
            BadInput: shapes or values that the model cannot take.
        """
        ...


class AsyncV2Model(Protocol):
    """A model that waits for others: asked on the event loop, for many requests at once."""

    @property
    def metadata(self) -> ModelMetadata: ...

    def infer(self, inputs: Sequence[Tensor], /, *, request_id: str = "") -> Awaitable[list[Tensor]]:
        """As `V2Model.infer`; `request_id` is "" when the caller gave none."""
        ...


@runtime_checkable
class ChoosesInputs(Protocol):
    """A model that takes its inputs in more than one form, and so checks their names itself."""

    def check_names(self, names: Sequence[str], /) -> None:
        """
        Raises:
            BadInput: it cannot take tensors of these names.
        """
        ...


@runtime_checkable
class Labelled(Protocol):
    """A model that knows the labels of its metrics."""

    @property
    def labels(self) -> tuple[str, ...]: ...


Model = V2Model | AsyncV2Model


def feature_inputs(schema: FeatureSchema) -> tuple[TensorMetadata, ...]:
    """The inputs of a model that takes rows of the schema, one tensor for each feature."""
    # The schema does not say how long an embedding is, or how large an image.
    wide: dict[str, tuple[int, ...]] = {"embedding": (-1,), "image": (-1, -1, -1)}
    return tuple(
        TensorMetadata(name=one.name, datatype=one.datatype, shape=(-1, *wide.get(one.kind, (1,))))
        for one in schema.features
    )
