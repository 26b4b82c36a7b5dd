"""alibi's anchors as they come through the adapter."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest

from explainers.anchors import AnchorTabular
from explainers.deadline import NEVER
from explainers.neighbourhood import Grid
from explainers.predictor import SklearnPredictor
from explainers.target import Target
from govern.errors import BadInput
from govern.frame import UNSEEN, Frame
from tests.explainers.measured import fulfils, perturbed

pytestmark = [
    pytest.mark.alibi,
    pytest.mark.skipif(importlib.util.find_spec("alibi") is None, reason="needs the [alibi] extra"),
]


def table(make_frame: Any) -> Frame:
    rng = np.random.default_rng(0)
    return make_frame(
        {
            "a <= b = c": rng.normal(size=1500).tolist(),
            "kind": rng.choice(["x > y", "z = 3", "plain"], 1500).tolist(),
            "n": rng.normal(scale=0.001, size=1500).tolist(),
        }
    )


def test_native_anchors_hold_what_they_claim_at_least_as_often_as_alibis(
    acs: Frame, acs_model: SklearnPredictor
) -> None:
    """The same people, model and background; both are measured on the same fresh rows of the paper's D(z|A)."""
    from explainers.alibi import AlibiAnchorTabular

    tau, slack = 0.95, 0.05
    background = acs.take(slice(0, 3000))
    rows = [acs.take([position]) for position in np.random.default_rng(3).choice(1000, 8, replace=False) + 3000]
    native = AnchorTabular(tau=tau, slack=slack, seed=1).fit(background, acs_model)
    oracle = AlibiAnchorTabular(threshold=tau, seed=1).fit(background, acs_model)
    measured: dict[str, list[tuple[float, float, int]]] = {native.method: [], oracle.method: []}
    for row in rows:
        answer = Target().answers(acs_model.predict(row))[0]
        for explainer in (native, oracle):
            found = explainer.explain(row, deadline=NEVER)
            drawn = Target().answers(acs_model.predict(perturbed(background, row, found.predicates)))
            precision = float((drawn == answer).mean())
            assert found.anchor is not None
            if explainer is native and found.anchor.precision >= tau:
                assert precision >= tau - slack
            coverage = float(fulfils(background, row, found.predicates).mean())
            measured[explainer.method].append((precision, coverage, len(found.predicates)))
    ours, theirs = (np.mean(measured[one.method], axis=0) for one in (native, oracle))
    assert ours[0] >= theirs[0] - 0.01, "precision"
    assert ours[1] >= theirs[1] / 2, "coverage: the price of a precision that holds"
    assert ours[2] <= theirs[2] + 1, "length"


def test_names_and_categories_that_look_like_predicates_come_back_whole(make_frame: Any, formula: Any) -> None:
    from explainers.alibi import AlibiAnchorTabular

    frame = table(make_frame)
    codes = frame.schema["kind"].categories
    model = formula(lambda m: ((m[:, 0] > 0) & (m[:, 1] == codes.index("z = 3"))).astype(float))
    explainer = AlibiAnchorTabular().fit(frame, model)
    row = frame.take([int(np.flatnonzero(model.predict(frame)[:, 0] == 1)[0])])
    told = {one.feature: one for one in explainer.explain(row, deadline=NEVER).predicates}
    assert told["kind"].category == "z = 3"
    low = told["a <= b = c"].low
    assert low is not None
    assert low in np.percentile(frame.columns[0], (25, 50, 75)), (
        "the bound is the quartile itself, not its two decimals"
    )


def test_conditions_are_read_in_every_form(make_frame: Any) -> None:
    from explainers.alibi import _condition, _cuts

    frame = table(make_frame)
    grid = Grid(frame.schema, _cuts(frame))
    q1, q2, q3 = (f"{cut:.2f}" for cut in np.percentile(frame.columns[0], (25, 50, 75)))
    assert _condition("f1 = 2", grid) == (1, 2, 2)
    assert _condition(f"f0 <= {q1}", grid) == (0, 0, 0)
    assert _condition(f"f0 > {q3}", grid) == (0, 3, 3)
    assert _condition(f"{q1} < f0 <= {q2}", grid) == (0, 1, 1)
    assert _condition(f"{q1} < f0 <= {q3}", grid) == (0, 1, 2)


def test_what_alibi_cannot_treat_is_refused(make_frame: Any, formula: Any) -> None:
    from explainers.alibi import AlibiAnchorTabular

    frame = table(make_frame)
    model = formula(lambda m: m[:, 0])
    holes = Frame(schema=frame.schema, columns=(np.full(1500, np.nan), *frame.columns[1:]))
    with pytest.raises(BadInput, match="background has a missing value"):
        AlibiAnchorTabular().fit(holes, model)
    odd = Frame(
        schema=frame.schema,
        columns=(np.zeros(1), np.array([UNSEEN], dtype=np.int32), np.zeros(1)),
        unseen={"kind": {0: "new"}},
    )
    with pytest.raises(BadInput, match="row has a missing value"):
        AlibiAnchorTabular().fit(frame, model).explain(odd, deadline=NEVER)
