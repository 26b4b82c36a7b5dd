"""Adversarial detectors on rows that attacks changed by asking a V2 server: handwritten digits, and people."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from tests.attacks.people import KNOWN, people
from tests.attacks.scenes import SCENES, Attacked, attack, judged, serving

ROWS = 12


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("served")) as url:
        yield url


@pytest.fixture(scope="module")
def attacks(served: str) -> dict[str, Attacked]:
    return {name: attack(served, name, ROWS) for name in SCENES}


@pytest.mark.parametrize(
    # Two digits of different classes are about 45 apart (l2); a pixel has 16 levels; people have 16 columns.
    ("name", "flipped", "queries", "moved"),
    [("hop_skip_jump", 0.9, 1500, 22.0), ("square", 0.6, 300, 3.0), ("pointwise", 0.9, 400, 2.0)],
)
def test_attacks_change_answers_with_small_steps(
    attacks: dict[str, Attacked], name: str, flipped: float, queries: int, moved: float
) -> None:
    attacked = attacks[name]
    assert attacked.tried == ROWS
    assert len(attacked.changed) >= flipped * ROWS
    assert attacked.queries / ROWS < queries
    assert np.median(attacked.moved) <= moved


def test_changed_people_could_have_filled_the_form_so(attacks: dict[str, Attacked]) -> None:
    schema, rows, _ = people()
    changed = attacks["pointwise"].changed
    for feature, column, real in zip(schema.features, changed.columns, rows.T, strict=True):
        assert np.isin(column, real).all()
        assert feature.name not in KNOWN or column.tolist() == attacks["pointwise"].clean[feature.name][:ROWS].tolist()


@pytest.mark.parametrize(
    ("name", "method", "params", "auc", "recall"),
    [
        ("hop_skip_jump", "feature_squeezing", {"image_width": 8, "false_positive_rate": 0.05}, 0.85, 0.2),
        ("hop_skip_jump", "label_consistency", {"false_positive_rate": 0.05}, 0.85, 0.5),
        ("hop_skip_jump", "model_distillation", {}, 0.85, 0.5),
        # No adversarial detector: on these digits it finds as many of them.
        ("hop_skip_jump", "mahalanobis", {"contamination": 0.05}, 0.85, 0.5),
        ("square", "model_distillation", {}, 0.95, 0.7),
        ("pointwise", "feature_squeezing", {"false_positive_rate": 0.05}, 0.75, 0.2),
        ("pointwise", "label_consistency", {"false_positive_rate": 0.05}, 0.7, 0.2),
        ("pointwise", "model_distillation", {"false_positive_rate": 0.05}, 0.7, 0.2),
    ],
)
def test_changed_rows_are_found(
    attacks: dict[str, Attacked], name: str, method: str, params: dict[str, float], auc: float, recall: float
) -> None:
    found = judged(attacks[name], method, params)
    assert found.auc > auc
    assert found.found > recall
    assert found.false < 0.12


def test_a_person_whose_values_are_all_common_is_no_outlier(attacks: dict[str, Attacked]) -> None:
    """What the adversarial detectors are for: there is nothing strange in such a row but its answer."""
    assert judged(attacks["pointwise"], "mahalanobis", {"contamination": 0.05}).auc < 0.7
