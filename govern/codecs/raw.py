"""Tensor elements as raw bytes, as V2's binary tensor data and gRPC's raw contents carry them.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_grpc.md, "Tensor Data":
row-major order, little-endian, no padding; a BOOL is one byte; a BYTES element is its length in 4 bytes, then itself.
BF16 (Triton) is the upper half of an FP32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from govern.codecs.arrays import shaped
from govern.codecs.tensor import DTYPES, Tensor, objects, text_or_bytes
from govern.errors import BadInput, DecodeError

#: Bytes of the length before each BYTES element.
_PREFIX: Final = 4

#: Bytes of a BF16 element, and how far it stands to the left in an FP32.
_BF16_BYTES: Final = 2
_BF16_SHIFT: Final = 16


def from_raw(data: bytes, datatype: str, shape: Sequence[int], *, where: str) -> npt.NDArray[np.generic]:
    """The array of `shape` whose elements are `data`; `datatype` and `shape` have passed `tensor.check_head`.

    Raises:
        DecodeError: not as many bytes as datatype and shape say, a BYTES element that is cut.
    """
    count = math.prod(shape)
    if datatype == "BYTES":
        elements = _split(data, where)
        if len(elements) != count:
            raise DecodeError(
                f"{where}: data does not fit shape {list(shape)}",
                why=f"the data has {len(elements)} elements",
                fix=f"send {count} elements, or correct the shape",
            )
        return shaped(objects(elements), shape, where=where)
    size = _BF16_BYTES if datatype == "BF16" else DTYPES[datatype].itemsize
    if len(data) != count * size:
        raise DecodeError(
            f"{where}: data does not fit shape {list(shape)}",
            why=f"it is {len(data)} bytes, {count} elements of {datatype} are {count * size}",
            fix="send as many bytes as datatype and shape say",
        )
    return shaped(_numbers(data, datatype), shape, where=where)


def to_raw(tensor: Tensor) -> bytes:
    """The elements of a tensor as bytes. A missing text (None) is empty; an FP32 loses what BF16 has no bits for.

    Raises:
        BadInput: a datatype that V2 does not have, or an element of BYTES that is neither valid text nor bytes.
    """
    if tensor.datatype not in DTYPES:
        raise BadInput(
            f"tensor {tensor.name!r}: datatype {tensor.datatype!r} cannot be sent over V2",
            why=f"the protocol has {', '.join(DTYPES)}",
            fix="send one tensor for each column, each of one datatype",
        )
    if tensor.datatype == "BYTES":
        elements = [to_bytes(element, tensor.name) for element in np.ravel(tensor.data).tolist()]
        return b"".join(len(element).to_bytes(_PREFIX, "little") + element for element in elements)
    numbers = np.ascontiguousarray(tensor.data, dtype=DTYPES[tensor.datatype])
    if tensor.datatype == "BF16":
        return (numbers.view(np.uint32) >> _BF16_SHIFT).astype("<u2").tobytes()
    return numbers.astype(numbers.dtype.newbyteorder("<"), copy=False).tobytes()


def to_bytes(element: object, name: str) -> bytes:
    """One element of BYTES; raises what `to_raw` does."""
    if isinstance(element, bytes):
        return element
    try:
        if element is None or isinstance(element, str):
            return (element or "").encode()
    except UnicodeEncodeError as error:
        raise BadInput(f"tensor {name!r}: an element", why=str(error), fix="send valid Unicode text") from error
    raise BadInput(
        f"tensor {name!r}: element {element!r}",
        why=f"BYTES holds text or bytes, this is {type(element).__name__}",
        fix="turn the elements to text",
    )


def _numbers(data: bytes, datatype: str) -> npt.NDArray[np.generic]:
    if datatype == "BOOL":
        return np.frombuffer(data, dtype=np.uint8).astype(np.bool_)
    if datatype == "BF16":
        upper: npt.NDArray[np.uint32] = np.frombuffer(data, dtype="<u2").astype(np.uint32)
        upper <<= _BF16_SHIFT
        return upper.view(np.float32)
    dtype = DTYPES[datatype]
    return np.frombuffer(data, dtype=dtype.newbyteorder("<")).astype(dtype)


def _split(data: bytes, where: str) -> list[str | bytes]:
    elements: list[str | bytes] = []
    start, end = 0, len(data)
    while start < end:
        first = start + _PREFIX
        size = int.from_bytes(data[start:first], "little")
        if first + size > end:
            raise DecodeError(
                f"{where}, element {len(elements)} is cut",
                why=f"at byte {start} its length says {size} bytes, {max(0, end - first)} follow",
                fix="send each BYTES element as its length in 4 bytes, little-endian, and then its bytes",
            )
        start = first + size
        elements.append(text_or_bytes(data[first:start]))
    return elements
