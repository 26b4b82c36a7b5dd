"""What travels in a flow: tensors from step to step, and the call that one visit of a step is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from govern.codecs.tensor import Tensor
from govern.errors import ConfigError
from govern.pipeline.graph import Port

Message = tuple[Tensor, ...]

#: What a step that returned no tensor, or did not run, gives. Whoever waits for it need wait no longer.
NOTHING: Final[Message] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """What one input of a step brought.

    Attributes:
        text: the reference as the pipeline has it; "" for the pipeline's inputs that a step reads unasked.
        position: among the step's inputs, from 0. Inputs that brought nothing have no part.
    """

    text: str
    position: int
    tensors: Message


@dataclass(frozen=True, slots=True)
class Call:
    """One visit of a step by one request.

    Attributes:
        visit: how often the request was here before; above 0 in a loop only.
        parts: in the order of the step's inputs; at least one.
    """

    request_id: str
    visit: int
    parts: tuple[Part, ...]

    @property
    def tensors(self) -> Message:
        """The tensors of all parts.

        Raises:
            ConfigError: two parts bring a tensor of the same name.
        """
        return merged(self.parts)


class Step(Protocol):
    """What a node of the graph does with a request. One object serves all requests, many of them at once."""

    async def __call__(self, call: Call, /) -> Sequence[Tensor]:
        """The tensors that it returns, each of another name: none when there is nothing to say.

        Which of its tensors a step returns is how it chooses a branch: an input or trigger that names a tensor has
        arrived only when the step has returned that tensor.
        """
        ...


def taken(port: Port, message: Message) -> Message:
    """What an input or trigger reads of a message, under the names that the step's tensorMap gives."""
    return tuple(
        Tensor(port.names[one.name], one.datatype, one.data) if one.name in port.names else one
        for one in message
        if port.tensor in ("", one.name)
    )


def merged(parts: Sequence[Part]) -> Message:
    """The tensors of all parts, in their order.

    Raises:
        ConfigError: two of them have the same name.
    """
    found: dict[str, Part] = {}
    tensors: list[Tensor] = []
    for part in parts:
        for tensor in part.tensors:
            if tensor.name in found:
                first = found[tensor.name].text or "the pipeline's inputs"
                raise ConfigError(
                    f"tensor {tensor.name!r} arrives twice",
                    why=f"{first} brings it, and {part.text or 'the inputs of the pipeline'} does too",
                    fix="rename one of them in tensorMap, or read one tensor only: <step>.outputs.<tensor>",
                )
            found[tensor.name] = part
            tensors.append(tensor)
    return tuple(tensors)
