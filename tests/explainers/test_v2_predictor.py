"""The predictor over HTTP, against a real V2 server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from explainers.anchors import AnchorTabular
from explainers.deadline import NEVER, Deadline, DeadlinePassed
from explainers.predictor import Predictor, SklearnPredictor
from explainers.target import Target
from explainers.v2_predictor import V2Predictor
from govern.errors import BadInput, Unavailable
from govern.frame import UNSEEN, Frame
from tests.services.process import free_port


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client() as client:
        yield client


@pytest.fixture
def predictor(model_server: Any, client: httpx.Client) -> V2Predictor:
    return V2Predictor(model_server.url, "employment", client=client, output="probability", batch_rows=300)


def test_it_answers_as_the_model_does_in_batches_marked_synthetic(
    predictor: V2Predictor, model_server: Any, acs: Frame, acs_model: SklearnPredictor
) -> None:
    rows = acs.take(slice(0, 1000))
    assert isinstance(predictor, Predictor)
    np.testing.assert_allclose(predictor.predict(rows), acs_model.predict(rows), rtol=1e-12)
    assert model_server.seen == ["1"] * 4


def test_an_unseen_category_reaches_the_model_as_it_was(
    predictor: V2Predictor, acs: Frame, acs_model: SklearnPredictor
) -> None:
    columns = list(acs.take([0]).columns)
    columns[acs.schema.index("SCHL")] = np.array([UNSEEN], dtype=np.int32)
    row = Frame(schema=acs.schema, columns=tuple(columns), unseen={"SCHL": {0: "99"}})
    np.testing.assert_allclose(predictor.predict(row), acs_model.predict(row))


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_passing_failures_are_tried_again(predictor: V2Predictor, model_server: Any, acs: Frame, status: int) -> None:
    model_server.answers = [(status, b"later"), (status, b"later")]
    assert predictor.predict(acs.take([0])).shape == (1, 2)
    assert len(model_server.seen) == 3


def test_refused_rows_are_not_tried_again(predictor: V2Predictor, model_server: Any, acs: Frame) -> None:
    model_server.answers = [(400, b'{"error": "tensor AGEP is negative"}')]
    with pytest.raises(BadInput, match="tensor AGEP is negative"):
        predictor.predict(acs.take([0]))
    assert len(model_server.seen) == 1


def test_an_unknown_model(model_server: Any, client: httpx.Client, acs: Frame) -> None:
    with pytest.raises(Unavailable, match="nobody") as caught:
        V2Predictor(model_server.url, "nobody", client=client).predict(acs.take([0]))
    assert "404" in caught.value.why


def test_a_model_that_is_away(client: httpx.Client, acs: Frame) -> None:
    away = V2Predictor(f"http://127.0.0.1:{free_port()}", "employment", client=client)
    with pytest.raises(DeadlinePassed, match="ConnectError"):
        away.predict(acs.take([0]), deadline=Deadline.after(3))
    with pytest.raises(Unavailable, match="ConnectError"):
        away.predict(acs.take([0]), deadline=NEVER)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"no json", "JSON"),
        (b'{"model_name":"m","outputs":[{"name":"other","datatype":"FP64","shape":[1],"data":[1]}]}', "other"),
        (b'{"model_name":"m","outputs":[{"name":"probability","datatype":"FP64","shape":[2],"data":[1,2]}]}', "1 rows"),
        (b'{"model_name":"m","outputs":[{"name":"probability","datatype":"BYTES","shape":[1],"data":["a"]}]}', "BYTES"),
        (b'{"model_name":"m","outputs":[{"name":"probability","datatype":"FP64","shape":[1],"data":[null]}]}', "NaN"),
    ],
)
def test_answers_that_cannot_be_explained(
    predictor: V2Predictor, model_server: Any, acs: Frame, body: bytes, told: str
) -> None:
    model_server.answers = [(200, body)]
    with pytest.raises(BadInput, match=told):
        predictor.predict(acs.take([0]))


def test_several_outputs_need_a_name(model_server: Any, client: httpx.Client, acs: Frame) -> None:
    with pytest.raises(BadInput, match="probability, note"):
        V2Predictor(model_server.url, "employment", client=client).predict(acs.take([0]))


def test_digests_tell_models_apart(client: httpx.Client) -> None:
    def digest(model: str, **options: Any) -> str:
        return V2Predictor("http://m", model, client=client, **options).digest

    assert digest("a") == digest("a") != digest("b")
    assert digest("a", version="1") != digest("a", version="2")
    assert digest("a", digest="f" * 64) == "f" * 64


def test_an_anchor_over_http_equals_the_one_in_process(
    predictor: V2Predictor, model_server: Any, acs: Frame, acs_model: SklearnPredictor
) -> None:
    options: dict[str, Any] = {"background_rows": 500, "target": Target(output="probability")}
    row = acs.take([3501])
    here = AnchorTabular(**options).fit(acs, acs_model).explain(row, deadline=NEVER)
    there = AnchorTabular(**options).fit(acs, predictor).explain(row, deadline=Deadline.after(120))
    assert there == here
    assert set(model_server.seen) == {"1"}
