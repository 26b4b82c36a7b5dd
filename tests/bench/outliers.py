"""Time of one row and of a thousand: outlier detectors and scikit-learn's, on one thread, in one process.

(-P, because a neighbour of this file has the name of a package of govern.)

    .venv/bin/python -P tests/bench/outliers.py
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.covariance import EmpiricalCovariance
from sklearn.ensemble import IsolationForest
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors
from sklearn.svm import OneClassSVM
from threadpoolctl import threadpool_limits

from detectors.coding import Coding
from detectors.outlier.held_out import split
from govern import plugins
from govern.detection import Detector
from govern.frame import Frame
from govern.schema import FORMAT_VERSION, Feature, FeatureSchema

REFERENCE_ROWS = 10_000
FEATURES = 20
#: What `knn` and `lof` keep, and `one_class_svm` learns from, here.
KEPT = 2_000
#: The best of this many runs is the time that the work itself takes.
REPEATS = 10

Points = np.ndarray[tuple[int, int], np.dtype[np.float64]]

#: By the detector's name: from the points that it learned from, how scikit-learn scores others.
PEERS: dict[str, Callable[[Points], Callable[[Points], object]]] = {
    "isolation_forest": lambda points: IsolationForest(random_state=0).fit(points).score_samples,
    "mahalanobis": lambda points: EmpiricalCovariance().fit(points).mahalanobis,
    "knn": lambda points: NearestNeighbors(n_neighbors=10).fit(points[:KEPT]).kneighbors,
    "lof": lambda points: LocalOutlierFactor(n_neighbors=20, novelty=True).fit(points[:KEPT]).score_samples,
    "gmm": lambda points: GaussianMixture(3, reg_covar=0.01, random_state=0).fit(points).score_samples,
    "one_class_svm": lambda points: OneClassSVM(nu=0.1).fit(points[:KEPT]).decision_function,
    "pca": lambda points: lambda rows: None,
    "ecod": lambda points: lambda rows: None,
    "copod": lambda points: lambda rows: None,
}
WITHOUT_PEER = ("pca", "ecod", "copod")


def frame(rows: int, seed: int) -> Frame:
    features = tuple(Feature(name=f"f{i}", kind="numeric") for i in range(FEATURES))
    columns = tuple(np.random.default_rng(seed).normal(size=(FEATURES, rows)))
    return Frame(schema=FeatureSchema(format_version=FORMAT_VERSION, model="bench", features=features), columns=columns)


def best_ms(work: Callable[[], object]) -> float:
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return 1e3 * min(times)


def main() -> None:
    reference = frame(REFERENCE_ROWS, 1)
    learned, _ = split(REFERENCE_ROWS, 0)
    points = Coding.of(reference.take(learned), range(FEATURES)).points(reference.take(learned))
    table = Table(title=f"reference {REFERENCE_ROWS:,} x {FEATURES}, best of {REPEATS}, one thread")
    table.add_column("detector")
    for heading in ("rows", "govern ms", "scikit-learn ms", "ratio"):
        table.add_column(heading, justify="right")
    for name, peer in PEERS.items():
        params = {"max_reference": KEPT} if name in ("knn", "lof", "one_class_svm") else {}
        ours: Detector = plugins.load(plugins.DETECTORS, name)(**params).fit(reference)
        theirs = peer(points)
        for rows in (1, 10, 1_000):
            window = frame(rows, 2)
            matrix = window.matrix()
            mine = best_ms(lambda one=ours, window=window: one.score(window))
            if name in WITHOUT_PEER:
                table.add_row(name, f"{rows:,}", f"{mine:.3f}", "-", "-")
                continue
            other = best_ms(lambda score=theirs, matrix=matrix: score(matrix))
            table.add_row(name, f"{rows:,}", f"{mine:.3f}", f"{other:.2f}", f"{other / mine:.1f} x")
    Console().print(table)


if __name__ == "__main__":
    with threadpool_limits(limits=1):
        main()
