"""Shapley values against their definition, against shap's additivity, and against each other."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression

from explainers.base import Explained
from explainers.deadline import NEVER, Deadline, DeadlinePassed
from explainers.predictor import SklearnPredictor
from explainers.shap import KernelShap, TreeShap
from explainers.target import Target
from govern.errors import ConfigError
from govern.frame import Frame


def shapley(model: Any, background: np.ndarray, row: np.ndarray) -> np.ndarray:
    """The definition: the average marginal contribution over all orders, absent features from the background."""
    d = len(row)
    value = {}
    for size in range(d + 1):
        for present in itertools.combinations(range(d), size):
            rows = background.copy()
            rows[:, list(present)] = row[list(present)]
            value[present] = float(model(rows).mean())
    phi = np.zeros(d)
    for j in range(d):
        for present in value:
            if j in present:
                continue
            s = len(present)
            weight = math.factorial(s) * math.factorial(d - s - 1) / math.factorial(d)
            phi[j] += weight * (value[tuple(sorted((*present, j)))] - value[present])
    return phi


def contributions(explained: Explained) -> np.ndarray:
    return np.array([one.contribution for one in explained.attributions])


def table(make_frame: Any, rows: int = 500, missing: float = 0.0) -> tuple[Frame, np.ndarray]:
    rng = np.random.default_rng(7)
    x, y, z = rng.normal(size=(3, rows))
    x[rng.random(rows) < missing] = np.nan
    kind = rng.choice(["a", "b", "c"], rows)
    frame = make_frame({"x": x.tolist(), "y": y.tolist(), "z": z.tolist(), "kind": kind.tolist()})
    return frame, (np.nan_to_num(x) + y * z + (kind == "b") > 0).astype(int)


def rescaled(margin: Any, background: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Shapley values of the margin against each background row, scaled to the difference in probability, averaged."""
    shares = []
    for one in background:
        phi = shapley(margin, one[None, :], row)
        here, there = margin(row[None, :])[0], margin(one[None, :])[0]
        gain = 1 / (1 + np.exp(-here)) - 1 / (1 + np.exp(-there))
        shares.append(phi * (gain / (here - there)) if here != there else 0 * phi)
    return np.mean(shares, axis=0)


@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("unit", ["probability", "log-odds"])
@pytest.mark.parametrize("column", [0, 1])
def test_boosted_trees_equal_the_definition(make_frame: Any, unit: Any, column: int, missing: float) -> None:
    frame, labels = table(make_frame, missing=missing)
    model = HistGradientBoostingClassifier(max_iter=15, random_state=0).fit(frame.matrix(), labels)
    explainer = TreeShap(target=Target(column=column), unit=unit, background_rows=15)
    explainer.fit(frame, SklearnPredictor.of(model))
    background = explainer._state.background.matrix()  # type: ignore[union-attr]
    sign = 1 if column == 1 else -1
    oracle = rescaled if unit == "probability" else shapley

    def ask(rows: np.ndarray) -> np.ndarray:
        return model.predict_proba(rows)[:, column] if unit == "probability" else sign * model.decision_function(rows)

    for position in (0, 1):
        row = frame.take([position])
        explained = explainer.explain(row, deadline=NEVER)
        expected = oracle(lambda rows: sign * model.decision_function(rows), background, row.matrix()[0])
        np.testing.assert_allclose(contributions(explained), expected, atol=2e-6)
        assert explained.output_unit == unit
        assert explained.prediction == pytest.approx(ask(row.matrix())[0])
        assert explained.base_value == pytest.approx(ask(background).mean(), abs=1e-6)
        assert explained.fidelity > 1 - 1e-5
        assert explained.error_bound < 1e-5


@pytest.mark.parametrize(
    ("estimator", "unit"),
    [
        (RandomForestClassifier(20, random_state=0), "probability"),
        (ExtraTreesClassifier(20, random_state=0), "probability"),
        (GradientBoostingClassifier(n_estimators=20, random_state=0), "log-odds"),
        (HistGradientBoostingRegressor(max_iter=20, random_state=0), "raw"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_other_tree_ensembles_equal_the_definition(make_frame: Any, estimator: Any, unit: str) -> None:
    frame, labels = table(make_frame, rows=300, missing=0.0 if unit == "log-odds" else 0.2)
    estimator.fit(frame.matrix(), labels)
    explainer = TreeShap(unit="log-odds" if unit == "log-odds" else "probability", background_rows=40)
    explainer.fit(frame, SklearnPredictor.of(estimator))

    def ask(rows: np.ndarray) -> np.ndarray:
        if unit == "log-odds":
            return estimator.decision_function(rows)
        return estimator.predict_proba(rows)[:, 1] if unit == "probability" else estimator.predict(rows)

    background = explainer._state.background.matrix()  # type: ignore[union-attr]
    explained = explainer.explain(frame.take([4]), deadline=NEVER)
    np.testing.assert_allclose(contributions(explained), shapley(ask, background, frame.matrix()[4]), atol=2e-6)
    assert explained.output_unit == unit


def test_several_classes_of_a_forest(make_frame: Any) -> None:
    frame, labels = table(make_frame, rows=300)
    labels = labels + (frame.matrix()[:, 1] > 1)
    model = RandomForestClassifier(10, random_state=0).fit(frame.matrix(), labels)
    explainer = TreeShap(target=Target(column=2, threshold=None)).fit(frame, SklearnPredictor.of(model))
    explained = explainer.explain(frame.take([0]), deadline=NEVER)
    total = explained.base_value + contributions(explained).sum()
    assert total == pytest.approx(model.predict_proba(frame.matrix()[:1])[0, 2], abs=1e-6)


def test_real_data_adds_up(acs: Frame, acs_model: SklearnPredictor) -> None:
    explainer = TreeShap().fit(acs, acs_model)
    for position in range(20):
        explained = explainer.explain(acs.take([position]), deadline=NEVER)
        total = explained.base_value + contributions(explained).sum()
        assert total == pytest.approx(acs_model.predict(acs.take([position]))[0, 1], abs=1e-6)
        assert explained.fidelity > 0.9999


@pytest.mark.parametrize(
    ("estimator", "told"),
    [
        (HistGradientBoostingClassifier(max_iter=5, categorical_features=[3]), "splits on categories"),
        (LogisticRegression(), "not yet supported|not supported"),
    ],
    ids=["categorical splits", "no trees"],
)
def test_models_that_it_cannot_follow_are_refused(make_frame: Any, estimator: Any, told: str) -> None:
    frame, labels = table(make_frame, rows=200)
    predictor = SklearnPredictor.of(estimator.fit(frame.matrix(), labels))
    with pytest.raises(ConfigError, match=told):
        TreeShap().fit(frame, predictor)


def test_a_model_whose_answer_is_not_its_trees_sum_is_refused(make_frame: Any) -> None:
    frame, _ = table(make_frame)
    model = IsolationForest(n_estimators=20, random_state=0).fit(frame.matrix())
    with pytest.raises(ConfigError, match="do not sum"):
        TreeShap().fit(frame, SklearnPredictor.of(model))


def test_log_odds_need_a_margin(make_frame: Any) -> None:
    frame, labels = table(make_frame, rows=100)
    forest = RandomForestClassifier(5).fit(frame.matrix(), labels)
    with pytest.raises(ConfigError, match="log-odds"):
        TreeShap(unit="log-odds").fit(frame, SklearnPredictor.of(forest))


def test_tree_shap_needs_the_model_itself(acs: Frame, formula: Any) -> None:
    with pytest.raises(ConfigError, match="needs the model itself"):
        TreeShap().fit(acs, formula(lambda m: m[:, 0]))


def few_features(make_frame: Any) -> Frame:
    rng = np.random.default_rng(1)
    return make_frame({name: rng.normal(size=200).tolist() for name in "abcde"})


def test_kernel_shap_with_every_coalition_equals_the_definition(make_frame: Any, formula: Any) -> None:
    frame = few_features(make_frame)

    def ask(m: np.ndarray) -> np.ndarray:
        return m[:, 0] * m[:, 1] + np.maximum(m[:, 2], 0) - m[:, 3]

    explainer = KernelShap(target=Target(unit="raw"), nsamples=64, rounds=2, background_rows=30).fit(
        frame, formula(ask)
    )
    background = explainer._state.background.matrix()  # type: ignore[union-attr]
    explained = explainer.explain(frame.take([9]), deadline=NEVER)
    np.testing.assert_allclose(contributions(explained), shapley(ask, background, frame.matrix()[9]), atol=1e-9)
    assert (explained.status, explained.error_bound) == ("ok", 0.0)
    assert 0.5 < explained.fidelity < 1.0, "an interaction is not additive"


def test_an_additive_model_has_fidelity_one(make_frame: Any, formula: Any) -> None:
    frame = few_features(make_frame)
    explainer = KernelShap(target=Target(unit="raw"), nsamples=64).fit(frame, formula(lambda m: m @ np.arange(5.0)))
    assert explainer.explain(frame.take([0]), deadline=NEVER).fidelity == pytest.approx(1.0)


def test_kernel_shap_agrees_with_tree_shap_within_its_error_bound(
    acs: Frame, acs_model: SklearnPredictor, formula: Any
) -> None:
    tree = TreeShap(background_rows=30, unit="log-odds").fit(acs, acs_model)
    margin = formula(lambda m: acs_model.estimator.decision_function(m))
    kernel = KernelShap(target=Target(unit="raw"), nsamples=1600, background_rows=30).fit(acs, margin)
    assert tree.background_digest == kernel.background_digest
    for position in (1, 4):
        exact = tree.explain(acs.take([position]), deadline=NEVER)
        sampled = kernel.explain(acs.take([position]), deadline=NEVER)
        assert 0 < sampled.error_bound < 0.5
        assert np.abs(contributions(exact) - contributions(sampled)).max() <= sampled.error_bound
        assert sampled.prediction == pytest.approx(exact.prediction)
        assert sampled.base_value == pytest.approx(exact.base_value, abs=1e-6)


def test_equal_seeds_give_equal_values_and_others_do_not(acs: Frame, acs_model: SklearnPredictor) -> None:
    def explain(seed: int) -> Explained:
        fitted = KernelShap(nsamples=400, rounds=2, background_rows=10).fit(acs, acs_model)
        fitted.seed = seed
        np.random.seed(123)
        return fitted.explain(acs.take([2]), deadline=NEVER)

    assert explain(1) == explain(1)
    assert explain(1) != explain(2)


def test_the_global_generator_is_left_as_it_was(acs: Frame, acs_model: SklearnPredictor) -> None:
    kernel = KernelShap(nsamples=100, rounds=2, background_rows=5).fit(acs, acs_model)
    np.random.seed(5)
    expected = np.random.random(3)
    np.random.seed(5)
    kernel.explain(acs.take([2]), deadline=NEVER)
    np.testing.assert_array_equal(np.random.random(3), expected)


class ExpiringModel:
    digest = "expiring"

    def __init__(self, inner: SklearnPredictor, calls: int) -> None:
        self._inner = inner
        self._left = calls

    def predict(self, frame: Frame, *, deadline: Deadline = NEVER) -> np.ndarray:
        self._left -= 1
        if self._left < 0:
            raise DeadlinePassed("the model")
        return self._inner.predict(frame)


def test_the_deadline_returns_the_complete_rounds(acs: Frame, acs_model: SklearnPredictor) -> None:
    full = KernelShap(nsamples=800, rounds=8, background_rows=10).fit(acs, acs_model)
    whole = full.explain(acs.take([2]), deadline=NEVER)
    calls_before_first_round_ends = 3  # the background, the row, the coalitions
    cut = KernelShap(nsamples=800, rounds=8, background_rows=10).fit(acs, ExpiringModel(acs_model, 8))
    some = cut.explain(acs.take([2]), deadline=NEVER)
    assert (whole.status, some.status) == ("ok", "deadline")
    assert whole.error_bound < some.error_bound < math.inf
    one = KernelShap(nsamples=800, rounds=8, background_rows=10).fit(
        acs, ExpiringModel(acs_model, calls_before_first_round_ends)
    )
    first = one.explain(acs.take([2]), deadline=NEVER)
    assert (first.status, first.error_bound) == ("deadline", math.inf)
    none = KernelShap(nsamples=800, rounds=8, background_rows=10).fit(acs, ExpiringModel(acs_model, 2))
    with pytest.raises(DeadlinePassed):
        none.explain(acs.take([2]), deadline=NEVER)


def test_a_row_equal_to_the_background_has_no_contributions(make_frame: Any, formula: Any) -> None:
    frame = make_frame({"a": [1.0] * 5, "b": [2.0] * 5})
    explained = (
        KernelShap(nsamples=16, rounds=2)
        .fit(frame, formula(lambda m: m[:, 0]))
        .explain(frame.take([0]), deadline=NEVER)
    )
    assert contributions(explained).tolist() == [0.0, 0.0]
    assert explained.fidelity == 1.0
