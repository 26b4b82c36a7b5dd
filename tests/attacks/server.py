"""Classifiers of handwritten digits and of the census as a V2 server: `python -m tests.attacks.server PORT`."""

from __future__ import annotations

import sys
from typing import Protocol

import numpy as np
import numpy.typing as npt
import uvicorn
from sklearn.datasets import load_digits
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from govern.codecs.tensor import Tensor
from govern.runtime.serving.application import create_app
from govern.runtime.serving.calls import Calls
from govern.runtime.serving.model import ModelMetadata
from govern.runtime.serving.repository import Repository, Source
from tests.attacks.people import people

#: Rows that the models learn from; the others are nobody's.
DIGITS_LEARNED, PEOPLE_LEARNED = 700, 1500


class Classifier(Protocol):
    def predict_proba(self, rows: npt.NDArray[np.float64], /) -> npt.NDArray[np.float64]: ...


class Served:
    """`x`, FP64 (n, d), in; `predict_proba`, FP64 (n, k), out."""

    def __init__(self, name: str, classifier: Classifier) -> None:
        self.metadata = ModelMetadata(name=name, inputs=(), outputs=())
        self._classifier = classifier

    async def infer(self, inputs: list[Tensor], /, *, request_id: str = "") -> list[Tensor]:
        return [Tensor("predict_proba", "FP64", self._classifier.predict_proba(np.asarray(inputs[0].data)))]


def digits() -> Served:
    data = load_digits()
    network = MLPClassifier((64,), max_iter=80, alpha=0.1, random_state=0)
    model = make_pipeline(FunctionTransformer(_share_of_white), network)
    return Served("digits", model.fit(data.data[:DIGITS_LEARNED], data.target[:DIGITS_LEARNED]))


def _share_of_white(pixels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return pixels / 16


def census() -> Served:
    schema, rows, employed = people()
    kinds = [feature.kind == "categorical" for feature in schema.features]
    model = HistGradientBoostingClassifier(categorical_features=kinds, max_iter=60, random_state=0)
    return Served("census", model.fit(rows[:PEOPLE_LEARNED], employed[:PEOPLE_LEARNED]))


if __name__ == "__main__":
    app = create_app(Repository([Source("digits", digits), Source("census", census)]), Calls())
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="info")
