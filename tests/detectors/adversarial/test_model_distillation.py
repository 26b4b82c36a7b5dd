"""Model distillation, judged on a real attack against a real model of real data."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.special import softmax
from scipy.stats import binom, entropy
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from detectors.adversarial.model_distillation import ModelDistillation, centred_log_odds, divergence_of
from govern.errors import BadInput
from govern.frame import MISSING, UNSEEN, Frame

ATTACKED_ROWS = 150
MAX_CHANGES = 3


class Case(NamedTuple):
    """Frames that carry the attacked model's probabilities."""

    reference: Frame
    clean: Frame
    originals: Frame
    attacks: Frame


@pytest.fixture(scope="module")
def case(acs) -> Case:
    """A boosted-tree model of the census, and rows changed a little so that it answers the other way.

    Attacked are rows of a later year that the model was sure of. The attack is greedy with the model's
    probabilities at hand: of all changes of one cell (age by up to three years, or another category), it takes the
    one that moves the answer the most, at most three times, until the decision flips.
    """
    model = HistGradientBoostingClassifier(random_state=0)
    model.fit(acs[2015].matrix(), acs[2015].outputs["employed"][:, 0])

    def answered(frame: Frame) -> Frame:
        return dataclasses.replace(frame, outputs={"predict_proba": model.predict_proba(frame.matrix())})

    clean = answered(acs[2018])
    sure = np.flatnonzero(np.abs(clean.outputs["predict_proba"][:, 1] - 0.5) > 0.3)
    chosen = np.random.default_rng(1).choice(sure, ATTACKED_ROWS, replace=False)
    rows = clean.matrix()
    found = [(row, changed) for row in chosen if (changed := _flip(model, clean, rows[row])) is not None]
    matrix = np.array([changed for _, changed in found])
    columns = tuple(matrix[:, i].astype(column.dtype) for i, column in enumerate(clean.columns))
    return Case(
        reference=answered(acs[2015]),
        clean=clean,
        originals=clean.take([row for row, _ in found]),
        attacks=answered(Frame(schema=clean.schema, columns=columns)),
    )


def _flip(model: HistGradientBoostingClassifier, frame: Frame, row: np.ndarray) -> np.ndarray | None:
    decision = model.predict_proba(row[None])[0, 1] > 0.5
    for _ in range(MAX_CHANGES):
        tries = []
        for position, feature in enumerate(frame.schema.features):
            values = row[position] + np.array([-3.0, -2.0, -1.0, 1.0, 2.0, 3.0])
            if feature.kind == "categorical":
                values = np.setdiff1d(np.arange(len(feature.categories)), [row[position]])
            for value in values:
                changed = row.copy()
                changed[position] = value
                tries.append(changed)
        p = model.predict_proba(np.array(tries))[:, 1]
        best = int(np.argmin(p) if decision else np.argmax(p))
        row = tries[best]
        if (p[best] > 0.5) != decision:
            return row
    return None


@pytest.mark.parametrize("divergence", ["kl", "js"])
def test_attacks_score_higher_than_clean_rows(case, divergence):
    """Seen: AUC 0.75 against all clean rows of that year, 0.80 against the rows attacked, 20 % flagged ("kl")."""
    detector = ModelDistillation(divergence=divergence).fit(case.reference)
    attacks, originals = detector.score(case.attacks), detector.score(case.originals)
    clean = detector.score(case.clean)
    assert len(case.attacks) > 100
    assert _auc(attacks.scores, clean.scores) > 0.70
    assert _auc(attacks.scores, originals.scores) > 0.74
    assert attacks.flagged.mean() > 10 * clean.flagged.mean()


def _auc(strange: np.ndarray, plain: np.ndarray) -> float:
    labels = np.repeat([1, 0], [len(strange), len(plain)])
    return float(roc_auc_score(labels, np.concatenate((strange, plain))))


def test_false_positive_rate_is_kept(case):
    """On rows of the reference's year that neither the student nor the threshold has seen."""
    order = np.random.default_rng(3).permutation(len(case.reference))
    detector = ModelDistillation(false_positive_rate=0.05).fit(case.reference.take(order[:3000]))
    flagged = detector.score(case.reference.take(order[3000:])).flagged
    # The threshold is itself a quantile of 750 rows: its error and the fresh rows' both count.
    assert flagged.sum() <= binom.ppf(0.999, 1000, 0.05 + 3 * np.sqrt(0.05 * 0.95 / 750))
    assert flagged.sum() >= binom.ppf(0.001, 1000, 0.05 - 3 * np.sqrt(0.05 * 0.95 / 750))


def test_one_column_means_the_second_of_two_classes(case):
    two = case.clean.take(slice(0, 50))
    one = dataclasses.replace(two, outputs={"predict_proba": two.outputs["predict_proba"][:, 1:]})
    np.testing.assert_allclose(
        centred_log_odds(one, "predict_proba", method="m"), centred_log_odds(two, "predict_proba", method="m")
    )


def test_divergences_are_scipys():
    rng = np.random.default_rng(0)
    model, student = rng.normal(size=(30, 4)), rng.normal(size=(30, 4))
    p, q = softmax(model, axis=1), softmax(student, axis=1)
    np.testing.assert_allclose(divergence_of(model, student, "kl"), entropy(p, q, axis=1), atol=1e-12)
    np.testing.assert_allclose(divergence_of(model, student, "js"), jensenshannon(p, q, axis=1) ** 2, atol=1e-12)
    assert divergence_of(model, model, "kl").max() == 0.0


def test_temperature_softens(make_table):
    reference, window = make_table(800, seed=1), make_table(100, seed=2)
    cold = ModelDistillation(temperature=1.0).fit(reference).score(window)
    warm = ModelDistillation(temperature=5.0).fit(reference).score(window)
    assert warm.scores.mean() < cold.scores.mean() / 5


def test_several_classes(make_table):
    def classes(frame: Frame) -> Frame:
        logits = np.column_stack([frame["x0"], frame["x1"], frame["x2"]])
        return dataclasses.replace(frame, outputs={"scores": softmax(2.0 * logits, axis=1)})

    detector = ModelDistillation(output="scores").fit(classes(make_table(1500, seed=1)))
    window = classes(make_table(200, seed=2))
    wrong = dataclasses.replace(window, outputs={"scores": window.outputs["scores"][:, [1, 2, 0]]})
    assert detector.needs_outputs == ("scores",)
    assert _auc(detector.score(wrong).scores, detector.score(window).scores) > 0.9
    with pytest.raises(BadInput, match="has 2 classes: in the reference it had 3"):
        detector.score(dataclasses.replace(window, outputs={"scores": np.full((200, 2), 0.5)}))


def test_missing_and_unseen_values_are_scored(make_table):
    reference, window = make_table(800, seed=1, missing=0.1), make_table(20, seed=2)
    codes = window["c0"].copy()
    codes[:] = [UNSEEN, MISSING] * 10
    blank = np.full(20, np.nan)
    odd = dataclasses.replace(window, columns=(blank, *window.columns[1:3], codes, window.columns[4]))
    assert np.isfinite(ModelDistillation().fit(reference).score(odd).scores).all()


@pytest.mark.parametrize("outputs", [[2.0], [-0.1], [0.3, 0.3], [np.nan, 1.0]])
def test_what_is_no_probability_is_refused(make_table, outputs):
    reference = make_table(300)
    bad = dataclasses.replace(reference, outputs={"predict_proba": np.tile(outputs, (300, 1))})
    with pytest.raises(BadInput, match=r"of row 0 is .*: probabilities are needed"):
        ModelDistillation().fit(bad)


@pytest.mark.parametrize(
    "params", [{"divergence": "l2"}, {"temperature": 0.0}, {"false_positive_rate": 1.0}, {"epochs": 0}]
)
def test_bad_parameters(params):
    with pytest.raises(BadInput, match=f"model_distillation: {next(iter(params))} is"):
        ModelDistillation(**params)
