"""A served model, rows that an attack changed until it erred, and what detectors say of them."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from govern.frame import Frame
from govern.plugins import DETECTORS, load
from govern.schema import FORMAT_VERSION, Feature, FeatureSchema
from tests.attacks import hop_skip_jump, pointwise, square
from tests.attacks.endpoint import Endpoint, Floats
from tests.attacks.people import KNOWN, people
from tests.attacks.server import DIGITS_LEARNED, PEOPLE_LEARNED
from tests.services.process import Process

ROOT: Final = Path(__file__).parents[2]
#: Rows after those that the model learned from, which the detectors learn from; what is left is clean, or attacked.
DIGITS_REFERENCE: Final = slice(DIGITS_LEARNED, 1500)
PEOPLE_REFERENCE: Final = slice(PEOPLE_LEARNED, 3500)
WHITE: Final = 16.0
DIGITS: Final = FeatureSchema(
    format_version=FORMAT_VERSION,
    model="digits",
    features=tuple(Feature(name=f"p{i}", kind="numeric") for i in range(64)),
)


class Attacked(NamedTuple):
    """Of one attack.

    Attributes:
        reference, clean: rows as people made them, and their answers.
        changed: rows whose answer the attack changed.
        moved: (n,) how far each of `changed` is from what it was, in the attack's own norm.
        tried: rows that were attacked.
        queries: rows that the attacker asked the model.
    """

    reference: Frame
    clean: Frame
    changed: Frame
    moved: Floats
    tried: int
    queries: int


class Judged(NamedTuple):
    """Area under the ROC curve of changed rows among clean ones, and the shares of either that are flagged."""

    auc: float
    found: float
    false: float


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """While the block runs, the models are served at this address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = f"import sys, runpy; sys.path.insert(0, {str(ROOT)!r}); sys.argv = ['server', '{port}']; "
    code += "runpy.run_module('tests.attacks.server', run_name='__main__')"
    process = Process([sys.executable, "-c", code], log=folder / "log")
    process.start(lambda text: "Uvicorn running" in text)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.stop()


def hop_skip_jump_on_digits(endpoint: Endpoint, count: int) -> Attacked:
    data, target = digits()
    rng, right = np.random.default_rng(0), _right_digits(endpoint)
    before, found = endpoint.queries, []
    for row in right[:count]:
        other = next(i for i in right[::-1] if target[i] != target[row])
        bounds = {"low": 0.0, "high": WHITE}
        found.append(
            hop_skip_jump.attack(endpoint, data[row], data[other], **bounds, iterations=6, samples=60, rng=rng)
        )
    moved = np.linalg.norm(np.array(found) - data[right[:count]], axis=1)
    return _digits(endpoint, right, np.array(found), moved, endpoint.queries - before)


def square_on_digits(endpoint: Endpoint, count: int, *, epsilon: float = 3.0) -> Attacked:
    clean = digits()[0][(right := _right_digits(endpoint))[:count]]
    before, rng = endpoint.queries, np.random.default_rng(0)
    bounds = {"low": 0.0, "high": WHITE}
    found = square.attack(endpoint, clean, width=8, epsilon=epsilon, **bounds, iterations=300, rng=rng)
    return _digits(endpoint, right, found, np.abs(found - clean).max(axis=1), endpoint.queries - before)


def pointwise_on_people(endpoint: Endpoint, count: int, *, donors: int = 10) -> Attacked:
    schema, rows, employed = people()
    names = schema.names
    free = tuple(i for i, name in enumerate(names) if name not in KNOWN)
    fresh = np.arange(PEOPLE_REFERENCE.stop, len(rows))
    labels = endpoint.labels(rows[fresh])
    right = fresh[labels == employed[fresh]]
    before, rng, found = endpoint.queries, np.random.default_rng(0), []
    for row in right[:count]:
        others = rng.permutation(fresh[labels != employed[row]])[:donors]
        found.append(pointwise.attack(endpoint, rows[row], rows[others], free=free, numbers=(names.index("AGEP"),)))
    queries = endpoint.queries - before
    changed = np.array(found)
    moved = (changed != rows[right[:count]]).sum(axis=1).astype(np.float64)
    reference, clean = (frame(schema, rows[taken], endpoint) for taken in (PEOPLE_REFERENCE, right))
    flipped = endpoint.labels(changed) != employed[right[:count]]
    return Attacked(reference, clean, frame(schema, changed[flipped], endpoint), moved[flipped], count, queries)


#: Attack -> the model that it is of, the norm of `Attacked.moved`, and (endpoint, rows) -> what it did to so many rows.
SCENES: Final[dict[str, tuple[str, str, Callable[[Endpoint, int], Attacked]]]] = {
    "hop_skip_jump": ("digits", "l2", hop_skip_jump_on_digits),
    "square": ("digits", "linf", square_on_digits),
    "pointwise": ("census", "columns", pointwise_on_people),
}


def attack(url: str, name: str, count: int) -> Attacked:
    """Change `count` rows of a model that is `serving` at this address."""
    model, _, scene = SCENES[name]
    endpoint = Endpoint(f"{url}/v2/models/{model}/infer")
    try:
        return scene(endpoint, count)
    finally:
        endpoint.close()


def judged(attacked: Attacked, method: str, params: dict[str, float]) -> Judged:
    """What the detector, fitted on the reference, says of the changed rows and of the clean ones."""
    detector = load(DETECTORS, method)(**params).fit(attacked.reference)
    clean, changed = detector.score(attacked.clean), detector.score(attacked.changed)
    truth = np.repeat([0, 1], [len(clean.scores), len(changed.scores)])
    auc = roc_auc_score(truth, np.concatenate([clean.scores, changed.scores]))
    return Judged(float(auc), float(changed.flagged.mean()), float(clean.flagged.mean()))


def frame(schema: FeatureSchema, rows: Floats, endpoint: Endpoint) -> Frame:
    columns = tuple(
        np.ascontiguousarray(column, dtype=np.float64 if feature.kind == "numeric" else np.int32)
        for feature, column in zip(schema.features, rows.T, strict=True)
    )
    return Frame(schema=schema, columns=columns, outputs={"predict_proba": endpoint.answers(rows)})


@cache
def digits() -> tuple[Floats, npt.NDArray[np.int64]]:
    """(1797, 64) pixels and (1797,) labels."""
    read = load_digits()
    return read.data, read.target


def _right_digits(endpoint: Endpoint) -> npt.NDArray[np.intp]:
    """Digits that nobody learned from and the model reads as they are."""
    data, target = digits()
    fresh = np.arange(DIGITS_REFERENCE.stop, len(data))
    return fresh[endpoint.labels(data[fresh]) == target[fresh]]


def _digits(endpoint: Endpoint, right: npt.NDArray[np.intp], found: Floats, moved: Floats, queries: int) -> Attacked:
    data, target = digits()
    reference, clean = (frame(DIGITS, data[rows], endpoint) for rows in (DIGITS_REFERENCE, right))
    flipped = endpoint.labels(found) != target[right[: len(found)]]
    return Attacked(reference, clean, frame(DIGITS, found[flipped], endpoint), moved[flipped], len(found), queries)
