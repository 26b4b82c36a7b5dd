from __future__ import annotations

import json
from typing import Any

import pytest

from explainers.answer import Answerer
from explainers.deadline import Deadline, DeadlinePassed
from explainers.predictor import SklearnPredictor
from explainers.shap import KernelShap, TreeShap
from govern.errors import BadInput, NotFound
from govern.frame import Frame
from govern.record import ExplainRequest


def request(frame: Frame, position: int = 0, **changes: Any) -> ExplainRequest:
    values: dict[str, Any] = {
        "schema_version": 1,
        "id": "e1",
        "namespace": "n",
        "service": "s",
        "model": "employment",
        "revision": "7",
        "endpoint": "canary",
        "explainer": "shap",
        "instance_id": "i/0",
        "request_id": "r",
        "pipeline": "p",
        "step": "why",
        "inputs_json": json.dumps(frame.row(position)),
        "traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01",
    }
    return ExplainRequest(**{**values, **changes})


@pytest.fixture(scope="module")
def tree(acs: Frame, acs_model: SklearnPredictor) -> TreeShap:
    return TreeShap(background_rows=20).fit(acs, acs_model)


def test_an_explanation_says_what_whom_and_by_which_means(acs: Frame, tree: TreeShap) -> None:
    told = Answerer({"shap": tree}, clock_ns=lambda: 42).answer(request(acs, 5))
    asked = request(acs, 5)
    for name in ("id", "namespace", "service", "model", "revision", "endpoint", "instance_id", "request_id"):
        assert getattr(told, name) == getattr(asked, name)
    assert (told.pipeline, told.step, told.traceparent) == (asked.pipeline, asked.step, asked.traceparent)
    assert (told.status, told.method, told.t_created, told.schema_version) == ("ok", "shap_tree", 42, 1)
    assert (told.model_digest, told.background_digest) == (tree.model_digest, tree.background_digest)
    assert len(told.attributions) == 16
    assert told.reasons


def test_equal_rows_are_explained_once(acs: Frame, formula: Any) -> None:
    model = formula(lambda m: m[:, 0])
    answerer = Answerer({"shap": KernelShap(nsamples=64, rounds=1, background_rows=5).fit(acs, model)}, cache_size=2)
    first = answerer.answer(request(acs, 0))
    asked = model.calls
    again = answerer.answer(request(acs, 0, id="e2", request_id="another"))
    assert model.calls == asked
    assert (again.id, again.attributions) == ("e2", first.attributions)
    for position in (1, 2):
        answerer.answer(request(acs, position))
    assert model.calls > asked
    asked = model.calls
    answerer.answer(request(acs, 0))
    assert model.calls > asked, "the oldest of more than cache_size is forgotten"


@pytest.mark.parametrize(
    ("changes", "told", "error"),
    [
        ({"explainer": "nobody"}, "'nobody' is not served here", NotFound),
        ({"inputs_json": "[1]"}, "inputs_json", BadInput),
        ({"inputs_json": "{"}, "inputs_json", BadInput),
        ({"inputs_json": '{"x": 1}'}, "'x' is no feature", BadInput),
        ({"deadline_s": 1e-9}, "in time", DeadlinePassed),
    ],
)
def test_failures_are_explanations_too(
    acs: Frame, tree: TreeShap, changes: dict[str, Any], told: str, error: type[Exception]
) -> None:
    answerer = Answerer({"shap": tree})
    failed = answerer.answer(request(acs, **changes))
    assert failed.status == "failed"
    assert told in failed.error
    assert failed.request_id == "r"
    with pytest.raises(error):
        answerer.explain(request(acs, **changes))


class Broken(TreeShap):
    def explain(self, row: Frame, *, deadline: Deadline) -> Any:
        raise ZeroDivisionError("of a user's own explainer")


def test_an_explainer_that_breaks_does_not_stop_the_others(acs: Frame, acs_model: SklearnPredictor) -> None:
    failed = Answerer({"shap": Broken(background_rows=5).fit(acs, acs_model)}).answer(request(acs))
    assert failed.status == "failed"
    assert "ZeroDivisionError: of a user's own explainer" in failed.error


def test_a_result_cut_short_is_not_kept(acs: Frame, acs_model: SklearnPredictor) -> None:
    class Expiring:
        digest = "d"

        def __init__(self) -> None:
            self.left = 4

        def predict(self, frame: Frame, *, deadline: Deadline) -> Any:
            self.left -= 1
            if self.left < 0:
                raise DeadlinePassed("the model")
            return acs_model.predict(frame)

    model = Expiring()
    answerer = Answerer({"shap": KernelShap(nsamples=256, rounds=4, background_rows=5).fit(acs, model)})
    assert answerer.answer(request(acs)).status == "deadline"
    model.left = 1000
    assert answerer.answer(request(acs)).status == "ok"
