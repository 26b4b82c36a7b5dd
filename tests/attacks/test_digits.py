"""Adversarial detectors on handwritten digits that HopSkipJump changed by asking a V2 server for its decisions."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from govern.frame import Frame
from govern.plugins import DETECTORS, load
from govern.schema import FORMAT_VERSION, Feature, FeatureSchema
from tests.attacks.endpoint import Endpoint, Floats
from tests.attacks.hop_skip_jump import attack
from tests.attacks.server import LEARNED
from tests.services.process import Process

ROOT = Path(__file__).parents[2]
REFERENCE = slice(LEARNED, 1500)
ATTACKED = 16
SCHEMA = FeatureSchema(
    format_version=FORMAT_VERSION,
    model="digits",
    features=tuple(Feature(name=f"p{i}", kind="numeric") for i in range(64)),
)


class Attacked(NamedTuple):
    """Rows of 64 pixels, how far (l2) each was changed, whether its label flipped, and the rows asked for all."""

    reference: Frame
    clean: Frame
    changed: Frame
    moved: Floats
    flipped: npt.NDArray[np.bool_]
    queries: int


def frame(rows: Floats, endpoint: Endpoint) -> Frame:
    columns = tuple(np.ascontiguousarray(column) for column in rows.T)
    return Frame(schema=SCHEMA, columns=columns, outputs={"predict_proba": endpoint.answers(rows)})


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = f"import sys, runpy; sys.path.insert(0, {str(ROOT)!r}); sys.argv = ['server', '{port}']; "
    code += "runpy.run_module('tests.attacks.server', run_name='__main__')"
    process = Process([sys.executable, "-c", code], log=tmp_path_factory.mktemp("digits") / "log")
    process.start(lambda text: "Uvicorn running" in text)
    endpoint = Endpoint(f"http://127.0.0.1:{port}/v2/models/digits/infer")
    yield endpoint
    endpoint.close()
    process.stop()


@pytest.fixture(scope="module")
def attacked(endpoint: Endpoint) -> Attacked:
    data, target = load_digits().data, load_digits().target
    rng = np.random.default_rng(0)
    fresh = np.arange(1500, len(data))
    right = fresh[endpoint.labels(data[fresh]) == target[fresh]]
    reference, clean = frame(data[REFERENCE], endpoint), frame(data[right], endpoint)
    before, found = endpoint.queries, []
    for row in right[:ATTACKED]:
        other = next(i for i in right[::-1] if target[i] != target[row])
        bounds = {"low": 0.0, "high": 16.0}
        found.append(attack(endpoint, data[row], data[other], **bounds, iterations=6, samples=60, rng=rng))
    queries = endpoint.queries - before
    changed = frame(np.array(found), endpoint)
    moved = np.linalg.norm(np.array(found) - data[right[:ATTACKED]], axis=1)
    flipped = changed.outputs["predict_proba"].argmax(axis=1) != target[right[:ATTACKED]]
    return Attacked(reference, clean, changed, moved, flipped, queries)


def test_the_attack_changes_answers_with_small_steps(attacked: Attacked) -> None:
    assert attacked.flipped.mean() > 0.9
    assert attacked.queries / ATTACKED < 1500
    # Two digits of different classes are about 45 apart.
    assert np.median(attacked.moved) < 22


@pytest.mark.parametrize(
    ("method", "params", "recall"),
    [
        ("feature_squeezing", {"image_width": 8, "false_positive_rate": 0.05}, 0.2),
        ("label_consistency", {"false_positive_rate": 0.05}, 0.5),
        ("model_distillation", {}, 0.5),
        # No adversarial detector: on these digits it finds as many of them.
        ("mahalanobis", {"contamination": 0.05}, 0.5),
    ],
)
def test_changed_digits_are_found(attacked: Attacked, method: str, params: dict[str, float], recall: float) -> None:
    detector = load(DETECTORS, method)(**params).fit(attacked.reference)
    clean, changed = detector.score(attacked.clean), detector.score(attacked.changed)
    truth = np.repeat([0, 1], [len(clean.scores), len(changed.scores)])
    auc = roc_auc_score(truth, np.concatenate([clean.scores, changed.scores]))
    assert auc > 0.85
    assert changed.flagged.mean() > recall
    assert clean.flagged.mean() < 0.12
