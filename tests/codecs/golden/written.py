"""What the golden bodies of this folder are, as their makers write it down.

They are made with the programs that are the oracles, tritonclient and MLServer, which are not part of this project's
environments. In one of its own, and in two processes, as both register the protobuf package `inference`:

    python3.11 -m venv /tmp/oracle
    /tmp/oracle/bin/pip install mlserver==1.7.1 'tritonclient[http,grpc]==2.73.0'
    /tmp/oracle/bin/python tests/codecs/golden/make_triton.py
    /tmp/oracle/bin/python tests/codecs/golden/make_mlserver.py

`triton.json` and `mlserver.json` say of each body how it was sent, and which tensors its maker reads or wrote in it.
Floating values are their repr, times (datatype TIME) ISO 8601, bytes that are no UTF-8 {"hex": ...}.
"""

from __future__ import annotations

import json
import struct
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent

NUMBERS: dict[str, np.ndarray] = {
    "bool": np.array([[True], [False]]),
    **{
        kind: np.array([[np.iinfo(kind).min, 1], [2, np.iinfo(kind).max]], kind)
        for kind in ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64")
    },
    "fp32": np.array([[0.1, -3.0e38], [np.nan, np.inf]], np.float32),
    "fp64": np.array([[0.1, 5e-324], [np.nan, -np.inf]], np.float64),
}


class Manifest:
    """The bodies of one maker."""

    def __init__(self, name: str) -> None:
        self._path = HERE / name
        self._bodies: dict[str, dict[str, Any]] = {}

    def write(self, name: str, body: bytes, tensors: dict[str, Any], **sent: Any) -> None:
        (HERE / name).write_bytes(body)
        self._bodies[name] = {**sent, "tensors": tensors}

    def close(self) -> None:
        text = json.dumps(self._bodies, ensure_ascii=False)
        self._path.write_text(text + "\n", encoding="utf-8")


def plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"hex": value.hex()}
    return repr(value) if isinstance(value, float) else value


def tensor(datatype: str, shape: Any, elements: Any) -> dict[str, Any]:
    return {"datatype": datatype, "shape": list(shape), "elements": [plain(element) for element in elements]}


def frame(message: bytes, *, packed: bytes | None = None) -> bytes:
    body = message if packed is None else packed
    return struct.pack(">BI", packed is not None, len(body)) + body
