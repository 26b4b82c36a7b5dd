"""Tensor: what every protocol's payload decodes to, and the Open Inference Protocol's datatypes.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md,
"Tensor Data Types".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from govern.errors import DecodeError

#: Protocol datatype -> numpy dtype. BYTES elements are Python `str` (or `bytes` when no UTF-8) in an object array.
#: numpy has no BF16: its values are held in FP32, which has all of them.
DTYPES: Final[dict[str, np.dtype[np.generic]]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "BF16": np.dtype(np.float32),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(object),
}

#: The datatype of rows whose columns differ in type (V1 JSON); no key of `DTYPES`.
MIXED: Final = "MIXED"

#: What numpy 1.26 can hold.
MAX_DIMENSIONS: Final = 32

_MAX_SIZE: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named array.

    Attributes:
        name: as on the wire.
        datatype: a key of `DTYPES`, or `MIXED` (object dtype).
        data: array of the tensor's shape.
    """

    name: str
    datatype: str
    data: npt.NDArray[np.generic]


class Plain(NamedTuple):
    """The tensors of a message, all with as many rows, as JSON has them: nothing but their number is checked.

    Attributes:
        kinds: name, datatype and shape of each. Messages of the same kinds can become arrays together.
        data: the elements of each, flat and in row-major order.
    """

    kinds: tuple[tuple[str, str, tuple[int, ...]], ...]
    rows: int
    data: Sequence[list[object]]


def text_or_bytes(element: bytes) -> str | bytes:
    """A BYTES element as `DTYPES` says: text where it is UTF-8."""
    try:
        return element.decode("utf-8")
    except UnicodeDecodeError:
        return element


def objects(elements: Sequence[object]) -> npt.NDArray[np.generic]:
    """A flat object array of the elements, whatever they are."""
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array


def check_head(datatype: str, shape: Sequence[int], *, where: str) -> None:
    """Refuse what a V2 tensor announces before its elements are read.

    Raises:
        DecodeError: an unknown datatype, or a shape that no array can have.
    """
    if datatype not in DTYPES:
        raise DecodeError(
            f"{where}: datatype {datatype!r} is unknown",
            why=f"the protocol has {', '.join(DTYPES)}",
            fix="declare one of them",
        )
    if len(shape) > MAX_DIMENSIONS or not all(0 <= size <= _MAX_SIZE for size in shape):
        raise DecodeError(
            f"{where}: field `shape`",
            why=f"it has more than {MAX_DIMENSIONS} dimensions, or one that is negative or no INT64",
            fix="send the tensor's actual shape; -1 belongs to model metadata only",
        )


def check_names(names: Sequence[str], *, side: str) -> None:
    """Refuse a V2 message without tensors, or with two of one name; `side` is "input" or "output".

    Raises:
        DecodeError: as said.
    """
    if not names:
        raise DecodeError(
            f"V2 message has no {side} tensor", why=f"`{side}s` is empty", fix=f"send at least one {side}"
        )
    if len(set(names)) < len(names):
        again = next(name for position, name in enumerate(names) if name in names[:position])
        raise DecodeError(f"{side} tensor {again!r}", why=f"it comes twice in `{side}s`", fix="name each tensor once")
