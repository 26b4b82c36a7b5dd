"""The search against an exhaustive one on small tables, and its promises on real data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from explainers.anchors import AnchorTabular
from explainers.deadline import NEVER, Deadline, DeadlinePassed
from explainers.neighbourhood import Grid, Neighbourhood, Rule, tighten
from explainers.predicate import Predicate
from explainers.predictor import SklearnPredictor
from explainers.target import Target
from govern.frame import UNSEEN, Frame


def small_table(make_frame: Any, rows: int = 150) -> Frame:
    rng = np.random.default_rng(3)
    return make_frame(
        {
            "age": rng.integers(18, 80, rows).astype(float).tolist(),
            "job": rng.choice(["none", "part", "full"], rows, p=[0.3, 0.3, 0.4]).tolist(),
            "home": rng.choice(["rent", "own"], rows).tolist(),
            "debt": rng.exponential(10.0, rows).tolist(),
        }
    )


def exact_precision(around: Neighbourhood, rule: Rule, same: Any) -> float:
    """The precision over D(z|rule), every background row and every replacement value counted out."""
    weights, rows = [1.0] * len(around._rows), [row.copy() for row in around._rows]
    for j, low, high in rule:
        grown_weights, grown = [], []
        pool = around._pool(j, low, high)
        for weight, row in zip(weights, rows, strict=True):
            code = around.grid.codes(row[None, :])[0, j]
            if low <= code <= high:
                grown_weights.append(weight)
                grown.append(row)
                continue
            for value in np.unique(pool):
                changed = row.copy()
                changed[j] = value
                grown_weights.append(weight * float((pool == value).mean()))
                grown.append(changed)
        weights, rows = grown_weights, grown
    return float(np.average(same(np.array(rows)), weights=weights))


def all_rules(around: Neighbourhood) -> set[Rule]:
    rules: set[Rule] = {()}
    for _ in range(8):
        grown = {tighten(rule, one) for rule in rules for one in around.conditions} - {None}
        if grown <= rules:
            break
        rules |= grown  # type: ignore[arg-type]
    return rules


@pytest.mark.parametrize("position", [0, 1, 2, 5, 8])
def test_it_finds_what_an_exhaustive_search_finds(make_frame: Any, formula: Any, position: int) -> None:
    frame = small_table(make_frame)
    # Coarse values keep the exhaustive enumeration small: debt counts in tens.
    columns = (*frame.columns[:3], np.ceil(frame.columns[3] / 10) * 10)
    frame = Frame(schema=frame.schema, columns=columns)
    model = formula(lambda m: ((m[:, 1] == 0) | ((m[:, 0] > 40) & (m[:, 3] <= 10))).astype(float))
    explainer = AnchorTabular(seed=1).fit(frame, model)
    row = frame.take([position])
    explained = explainer.explain(row, deadline=NEVER)
    assert explained.anchor is not None

    around = Neighbourhood(frame, Grid.of(frame), row)
    answer = model.predict(row)[0, 0] >= 0.5

    def same(rows: np.ndarray) -> np.ndarray:
        return (model.predict(around.frame(rows))[:, 0] >= 0.5) == answer

    precisions = {rule: exact_precision(around, rule, same) for rule in all_rules(around)}
    assert max(precisions.values()) >= 0.95, "the case has an anchor"
    widest = max(around.coverage(rule) for rule, precision in precisions.items() if precision >= 0.95)
    (precision,) = (
        precision
        for rule, precision in precisions.items()
        if tuple(map(str, around.grid.predicates(rule, row))) == explained.anchor.predicates
    )
    assert precision >= 0.90
    assert explained.anchor.precision_lower <= precision
    assert explained.anchor.coverage >= widest - 0.02


def draw(background: Frame, row: Frame, predicates: tuple[Predicate, ...], n: int) -> Frame:
    """D(z|A) written once more, from the predicates alone."""
    rng = np.random.default_rng(99)
    rows = background.take(rng.integers(len(background), size=n))
    columns = list(rows.columns)
    for one in predicates:
        j = rows.schema.index(one.feature)
        column = columns[j].copy()
        if one.category is not None:
            column[:] = row.columns[j][0]
        else:
            low, high = -np.inf if one.low is None else one.low, np.inf if one.high is None else one.high
            known = background.columns[j]
            pool = known[(known > low) & (known <= high)]
            wrong = ~((column > low) & (column <= high))
            column[wrong] = rng.choice(pool, size=int(wrong.sum()))
        columns[j] = column
    return Frame(schema=rows.schema, columns=tuple(columns))


def test_real_anchors_keep_their_promise(acs: Frame, acs_model: SklearnPredictor) -> None:
    """On people that the background does not hold: precision on a large fresh sample is at least tau - slack."""
    background = acs.take(slice(0, 3000))
    explainer = AnchorTabular(seed=5).fit(background, acs_model)
    kept = 0
    for position in range(3000, 3015):
        row = acs.take([position])
        explained = explainer.explain(row, deadline=NEVER)
        anchor = explained.anchor
        assert anchor is not None
        assert explained.status == "ok"
        assert anchor.predicates == tuple(map(str, explained.predicates))
        assert anchor.precision_lower <= anchor.precision
        answers = Target().answers(acs_model.predict(draw(background, row, explained.predicates, 20_000)))
        true_precision = float((answers == Target().answers(acs_model.predict(row))[0]).mean())
        assert true_precision >= anchor.precision_lower
        if anchor.precision >= 0.95:
            kept += 1
            assert true_precision >= 0.90
    assert kept >= 8


def test_equal_seeds_give_equal_anchors(acs: Frame, acs_model: SklearnPredictor) -> None:
    first, second = (AnchorTabular(seed=2).fit(acs, acs_model) for _ in range(2))
    assert first.digest == second.digest
    row = acs.take([3])
    assert first.explain(row, deadline=NEVER) == second.explain(row, deadline=NEVER)


def test_few_large_calls(acs: Frame, formula: Any, acs_model: SklearnPredictor) -> None:
    model = formula(lambda m: acs_model.estimator.predict_proba(m))
    AnchorTabular().fit(acs, model).explain(acs.take([7]), deadline=NEVER)
    assert model.calls <= 200
    assert model.rows / model.calls > 1000


def test_a_constant_model_needs_no_condition(acs: Frame, formula: Any) -> None:
    explained = AnchorTabular().fit(acs, formula(lambda m: np.ones(len(m)))).explain(acs.take([0]), deadline=NEVER)
    assert explained.anchor is not None
    assert explained.predicates == ()
    assert (explained.anchor.precision, explained.anchor.coverage, explained.base_value) == (1.0, 1.0, 1.0)


def test_without_an_anchor_the_most_precise_rule_says_what_it_reaches(make_frame: Any, formula: Any) -> None:
    rng = np.random.default_rng(0)
    frame = make_frame({"x": rng.normal(size=500).tolist(), "c": rng.choice(["a", "b"], 500).tolist()})
    model = formula(lambda m: (np.floor(m[:, 0] * 1000) % 2 == 0).astype(float))
    explained = AnchorTabular(seed=4).fit(frame, model).explain(frame.take([0]), deadline=NEVER)
    assert explained.anchor is not None
    assert explained.anchor.precision < 0.8
    assert explained.status == "ok"


class ExpiringModel:
    """Answers `calls` calls, then the time is up."""

    digest = "expiring"

    def __init__(self, inner: SklearnPredictor, calls: int) -> None:
        self._inner = inner
        self._left = calls

    def predict(self, frame: Frame, *, deadline: Deadline = NEVER) -> np.ndarray:
        self._left -= 1
        if self._left < 0:
            raise DeadlinePassed("the model")
        return self._inner.predict(frame)


@pytest.mark.parametrize("calls", [2, 5, 9])
def test_the_deadline_returns_the_best_so_far(acs: Frame, acs_model: SklearnPredictor, calls: int) -> None:
    explainer = AnchorTabular().fit(acs, ExpiringModel(acs_model, calls))
    explained = explainer.explain(acs.take([5]), deadline=NEVER)
    assert explained.status == "deadline"
    assert explained.anchor is not None
    assert 0.0 <= explained.anchor.precision_lower <= explained.anchor.precision <= 1.0
    assert explained.anchor.n_samples > 0


def test_a_deadline_before_the_first_answer_is_an_error(acs: Frame, acs_model: SklearnPredictor) -> None:
    explainer = AnchorTabular().fit(acs, acs_model)
    with pytest.raises(DeadlinePassed):
        explainer.explain(acs.take([5]), deadline=Deadline.after(-1.0))


def test_missing_and_unseen_values_are_conditions_too(make_frame: Any, formula: Any) -> None:
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=300)
    numbers[:60] = np.nan
    frame = make_frame({"x": numbers.tolist(), "c": rng.choice(["a", "b"], 300).tolist()})
    odd = Frame(
        schema=frame.schema,
        columns=(np.array([np.nan]), np.array([UNSEEN], dtype=np.int32)),
        unseen={"c": {0: "zebra"}},
    )
    for told, model in (
        ("x is missing", formula(lambda m: np.isnan(m[:, 0]).astype(float))),
        ("c = zebra", formula(lambda m: (m[:, 1] == UNSEEN).astype(float))),
    ):
        explained = AnchorTabular().fit(frame, model).explain(odd, deadline=NEVER)
        assert [str(one) for one in explained.predicates] == [told]


def test_tighten_keeps_only_what_adds() -> None:
    assert tighten((), (0, 0, 2)) == ((0, 0, 2),)
    assert tighten(((0, 0, 2),), (0, 0, 3)) is None
    assert tighten(((0, 0, 2),), (0, 1, 3)) == ((0, 1, 2),)
    assert tighten(((1, 0, 0),), (0, 1, 3)) == ((0, 1, 3), (1, 0, 0))
