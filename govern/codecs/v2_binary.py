"""V2's binary tensor data: tensors as raw bytes behind the JSON of a REST body.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md. The header
`Inference-Header-Content-Length` gives the size of the JSON; each tensor without `data` names its own share of the
bytes that follow in the parameter `binary_data_size`, in the order of the tensors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from govern.errors import DecodeError

#: The header that gives the size of the JSON.
HEADER: Final = "inference-header-content-length"
#: The parameter of a tensor whose data lies behind the JSON.
SIZE: Final = "binary_data_size"
#: The parameter of a request that asks for all outputs in this form.
OUTPUT: Final = "binary_data_output"
#: The parameter of one requested output that asks for this form, or for JSON although all others come in this one.
WANTED: Final = "binary_data"
#: What a server that reads and writes this form has among the `extensions` of its metadata.
EXTENSION: Final = "binary_tensor_data"


def json_size(headers: Mapping[str, str]) -> int | None:
    """The header's value among a message's headers (names in lower case), None when it is not there.

    Raises:
        DecodeError: it is no number.
    """
    value = headers.get(HEADER)
    if value is None:
        return None
    # Ten digits are more than any body has, and few enough for int().
    if not (value.isascii() and value.isdigit() and len(value) <= 10):
        raise DecodeError(
            f"header {HEADER} is {value[:40]!r}",
            why="it is no number of bytes",
            fix="send the size of the JSON that the body begins with",
        )
    return int(value)


class Tail:
    """The bytes behind the JSON, handed out tensor by tensor."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: object, *, where: str) -> bytes:
        """The next `size` bytes.

        Raises:
            DecodeError: no size, or more than there is.
        """
        left = len(self._data) - self._at
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= left:
            raise DecodeError(
                f"{where}: parameter `{SIZE}` is {str(size)[:40]}",
                why=f"{left} bytes of binary tensor data are left for it",
                fix="send the tensor's bytes behind the JSON, and their number in the parameter",
            )
        self._at += size
        return self._data[self._at - size : self._at]

    def end(self, *, what: str) -> None:
        """Refuse bytes that no tensor has taken.

        Raises:
            DecodeError: there are some.
        """
        left = len(self._data) - self._at
        if left:
            raise DecodeError(
                f"{what} has {left} bytes too many behind its JSON",
                why=f"no tensor's parameter `{SIZE}` asks for them",
                fix=f"send each binary tensor's size as its `{SIZE}`, and the size of the JSON as {HEADER}",
            )


def split(body: bytes, size: int | None, *, what: str) -> tuple[bytes, Tail]:
    """The JSON of a body and what follows it.

    Args:
        size: of the JSON, as the header says; None when it was not captured: the JSON ends where its
            object does.

    Raises:
        DecodeError: a size beyond the body.
    """
    if size is None:
        size = _size_of_json(body) if f'"{SIZE}"'.encode() in body else len(body)
    if not 0 <= size <= len(body):
        raise DecodeError(
            f"{what}: header {HEADER} is {size}",
            why=f"the body has {len(body)} bytes",
            fix="send the size of the JSON that the body begins with",
        )
    return body[:size], Tail(body[size:])


def _size_of_json(body: bytes) -> int:
    try:
        # latin-1 has a character for each byte, so that positions in the text are positions in the body.
        _, end = json.JSONDecoder().raw_decode(body.decode("latin-1"))
    except (ValueError, RecursionError):
        return len(body)  # the JSON parser says what is wrong with it
    return end
