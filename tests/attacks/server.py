"""A classifier of handwritten digits as a V2 server: `python -m tests.attacks.server PORT`."""

from __future__ import annotations

import sys

import numpy as np
import uvicorn
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

from govern.codecs.tensor import Tensor
from govern.runtime.serving.application import create_app
from govern.runtime.serving.calls import Calls
from govern.runtime.serving.model import ModelMetadata
from govern.runtime.serving.repository import Repository, Source

#: Digits that the model learns from; the others are nobody's.
LEARNED = 700


class Digits:
    """`x`, FP64 (n, 64), in; `predict_proba`, FP64 (n, 10), out."""

    metadata = ModelMetadata(name="digits", inputs=(), outputs=())

    def __init__(self) -> None:
        digits = load_digits()
        self._model = MLPClassifier((64,), max_iter=80, alpha=0.1, random_state=0)
        self._model.fit(digits.data[:LEARNED] / 16, digits.target[:LEARNED])

    async def infer(self, inputs: list[Tensor], /, *, request_id: str = "") -> list[Tensor]:
        return [Tensor("predict_proba", "FP64", self._model.predict_proba(np.asarray(inputs[0].data) / 16))]


if __name__ == "__main__":
    app = create_app(Repository([Source("digits", Digits)]), Calls())
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="info")
