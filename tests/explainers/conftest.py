from __future__ import annotations

import importlib.util
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uvicorn
from sklearn.ensemble import HistGradientBoostingClassifier
from starlette.responses import Response

from explainers.deadline import NEVER, Deadline
from explainers.predictor import SklearnPredictor
from govern.codecs.frames import to_frame
from govern.codecs.tensor import Tensor
from govern.frame import Frame
from govern.runtime.serving.model import ModelMetadata, TensorMetadata
from govern.runtime.serving.rest import create_app
from govern.schema import FORMAT_VERSION, Feature, FeatureSchema
from tests.services.process import free_port

with warnings.catch_warnings():
    # shap 0.49 sets up its colour maps on import in a way that matplotlib 3.11 will drop; we draw nothing.
    warnings.filterwarnings("ignore", message=r"The set_(bad|over|under) function", category=PendingDeprecationWarning)
    import shap  # noqa: F401

    # alibi imports spacy, which calls a function that click will move, and has escapes that Python will refuse.
    warnings.filterwarnings("ignore", message="Importing 'parser.split_arg_string'", category=DeprecationWarning)
    warnings.filterwarnings("ignore", message="invalid escape sequence", category=DeprecationWarning)
    if importlib.util.find_spec("alibi") is not None:
        import alibi.explainers  # noqa: F401

SAMPLE = Path(__file__).parents[1] / "data" / "acs_sample.parquet"
NOT_FEATURES = ("id", "employed", "year", "prediction", "predicted_probability")
TITLES = {"AGEP": "age", "SEX": "sex", "RAC1P": "race", "MAR": "marital status", "SCHL": "schooling"}
PROTECTED = ("AGEP", "SEX", "RAC1P")
LABELS = {"SEX": {"1": "male", "2": "female"}, "MAR": {"1": "married", "5": "never married"}}

Answer = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]


class FormulaPredictor:
    """A model that is a formula of `Frame.matrix()`, and counts what it is asked."""

    def __init__(self, formula: Answer, digest: str = "formula") -> None:
        self._formula = formula
        self.digest = digest
        self.rows = 0
        self.calls = 0

    def predict(self, frame: Frame, *, deadline: Deadline = NEVER) -> npt.NDArray[np.float64]:
        deadline.check("the formula")
        self.rows += len(frame)
        self.calls += 1
        return self._formula(frame.matrix()).reshape(len(frame), -1)


@pytest.fixture(scope="session")
def formula() -> type[FormulaPredictor]:
    return FormulaPredictor


@pytest.fixture(scope="session")
def acs_table() -> tuple[Frame, npt.NDArray[np.int64]]:
    """4,000 people of 2015 and whether each is employed."""
    table = pq.read_table(SAMPLE)
    table = table.slice(0, 4000)
    features, columns = [], []
    for name in (name for name in table.column_names if name not in NOT_FEATURES):
        values = table[name].combine_chunks()
        common = {"name": name, "title": TITLES.get(name, ""), "protected": name in PROTECTED}
        if pa.types.is_dictionary(values.type):
            words = values.to_pylist()
            seen = sorted(set(words))
            labels = LABELS.get(name, {})
            features.append(
                Feature(kind="categorical", datatype="BYTES", categories=tuple(seen), labels=labels, **common)
            )
            columns.append(np.array([seen.index(word) for word in words], dtype=np.int32))
        else:
            features.append(Feature(kind="numeric", **common))
            columns.append(values.to_numpy().astype(np.float64))
    schema = FeatureSchema(format_version=FORMAT_VERSION, model="employment", features=tuple(features))
    return Frame(schema=schema, columns=tuple(columns)), table["employed"].to_numpy()


@pytest.fixture(scope="session")
def acs(acs_table: tuple[Frame, npt.NDArray[np.int64]]) -> Frame:
    return acs_table[0]


@pytest.fixture(scope="session")
def acs_model(acs_table: tuple[Frame, npt.NDArray[np.int64]]) -> SklearnPredictor:
    """Boosted trees that predict employment, through their skops form."""
    frame, employed = acs_table
    model = HistGradientBoostingClassifier(max_iter=20, random_state=0)
    return SklearnPredictor.of(model.fit(frame.matrix()[:3000], employed[:3000]))


MakeFrame = Callable[..., Frame]


@pytest.fixture(scope="session")
def make_frame() -> MakeFrame:
    """`make_frame({"x": [1.0, 2.0], "c": ["a", "b"]})`: numbers make a numeric feature, text a categorical one."""

    def make(values: dict[str, list[float] | list[str]], **options: dict[str, object]) -> Frame:
        features, columns = [], []
        for name, column in values.items():
            extra = options.get(name, {})
            if isinstance(column[0], str):
                seen = tuple(extra.pop("categories", sorted(set(column))))
                features.append(
                    Feature(name=name, kind="categorical", datatype="BYTES", categories=seen, **extra)  # type: ignore[arg-type]
                )
                columns.append(np.array([seen.index(value) for value in column], dtype=np.int32))
            else:
                features.append(Feature(name=name, kind="numeric", **extra))  # type: ignore[arg-type]
                columns.append(np.asarray(column, dtype=np.float64))
        schema = FeatureSchema(format_version=FORMAT_VERSION, model="m", features=tuple(features))
        return Frame(schema=schema, columns=tuple(columns))

    return make


class Employment:
    """A V2 model of `acs_model`, one tensor for each feature in, probabilities out."""

    def __init__(self, predictor: SklearnPredictor, schema: FeatureSchema) -> None:
        self._predictor = predictor
        self._schema = schema

    @property
    def metadata(self) -> ModelMetadata:
        return ModelMetadata(
            name="employment",
            inputs=tuple(TensorMetadata(name=one, datatype="BYTES", shape=(-1, 1)) for one in self._schema.names),
            outputs=(TensorMetadata(name="probability", datatype="FP64", shape=(-1, 2)),),
        )

    def infer(self, inputs: list[Tensor]) -> list[Tensor]:
        frame = to_frame(inputs, self._schema)
        return [
            Tensor("probability", "FP64", self._predictor.predict(frame)),
            Tensor("note", "BYTES", np.array(["x"] * len(frame), dtype=object)),
        ]


class ModelServer:
    """The model on a port, with what it was asked, and answers that a test may put before the model's own.

    Attributes:
        seen: header `govern-synthetic` of each call, in order.
        answers: (status, body) each given to one call, instead of asking the model.
    """

    def __init__(self, model: Employment) -> None:
        self.seen: list[str] = []
        self.answers: list[tuple[int, bytes]] = []
        self._app = create_app({"employment": model})
        self.url = f"http://127.0.0.1:{free_port()}"
        port = int(self.url.rsplit(":", 1)[1])
        config = uvicorn.Config(
            self._serve, host="127.0.0.1", port=port, log_config=None, lifespan="off", interface="asgi3"
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, name="model server")

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        if not scope["path"].endswith("/infer"):
            await self._app(scope, receive, send)
            return
        self.seen.append(dict(scope["headers"]).get(b"govern-synthetic", b"").decode())
        if self.answers:
            status, body = self.answers.pop(0)
            await Response(body, status_code=status)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def __enter__(self) -> ModelServer:
        self._thread.start()
        deadline = time.monotonic() + 60
        while not self._server.started:
            assert time.monotonic() < deadline, "the model server does not start"
            self._thread.join(0.01)
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.should_exit = True
        self._thread.join()


@pytest.fixture
def model_server(acs: Frame, acs_model: SklearnPredictor) -> Iterator[ModelServer]:
    with ModelServer(Employment(acs_model, acs.schema)) as server:
        yield server
