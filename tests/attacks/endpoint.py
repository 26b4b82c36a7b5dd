"""What an attacker has: a V2 endpoint, and a count of the rows asked."""

from __future__ import annotations

import httpx
import numpy as np
import numpy.typing as npt

from govern.codecs import v2, v2_binary
from govern.codecs.tensor import Tensor

Floats = npt.NDArray[np.float64]


class Endpoint:
    """
    Attributes:
        queries: rows asked so far.
    """

    def __init__(self, url: str) -> None:
        self._client, self._url = httpx.Client(timeout=60), url
        self.queries = 0

    def answers(self, rows: Floats) -> Floats:
        """(n, d) -> (n, k) probabilities."""
        body, size = v2.encode_binary_request([Tensor("x", "FP64", rows)])
        answer = self._client.post(self._url, content=body, headers={v2_binary.HEADER: str(size)}).raise_for_status()
        self.queries += len(rows)
        found = v2.decode_response(answer.content, json_size=v2_binary.json_size(answer.headers))
        return np.asarray(found.outputs[0].data, dtype=np.float64)

    def labels(self, rows: Floats) -> npt.NDArray[np.int64]:
        """(n, d) -> (n,), all that a decision-based attack may look at."""
        return self.answers(rows).argmax(axis=1)

    def close(self) -> None:
        self._client.close()
