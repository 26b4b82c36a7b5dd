"""Tensor: what every protocol's payload decodes to, and the Open Inference Protocol's datatypes.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md,
"Tensor Data Types".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

#: Protocol datatype -> numpy dtype. BYTES elements are Python `str` (or `bytes` when no UTF-8) in an object array.
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
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(object),
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named array.

    Attributes:
        name: as on the wire.
        datatype: a key of `DTYPES`, or "MIXED" for rows whose columns differ in type (V1 JSON, object dtype).
        data: array of the tensor's shape.
    """

    name: str
    datatype: str
    data: npt.NDArray[np.generic]
