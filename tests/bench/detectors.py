"""Time of one window: native detectors and alibi-detect's, on one thread, in one process, and whether they agree.

The native drift detectors are as they are by default, so they test for missing values and unseen categories, too.

Run it where the extra [alibi] is installed (-P, because this file has the name of a package of govern):

    .venv-alibi/bin/python -P tests/bench/detectors.py
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from govern import plugins
from govern.detection import Detector, WindowScores
from govern.frame import Frame
from govern.schema import FORMAT_VERSION, Feature, FeatureSchema

REFERENCE_ROWS = 10_000
WINDOW_ROWS = 1_000
FEATURES = 20
CATEGORIES = 8
#: The best of this many runs is the time that the work itself takes.
REPEATS = 30
TURN = 10


def frame(rows: int, numeric: int, seed: int) -> Frame:
    """`numeric` numeric features, the others of `FEATURES` categorical."""
    rng = np.random.default_rng(seed)
    names = tuple(str(code) for code in range(CATEGORIES))
    features = tuple(
        Feature(name=f"f{i}", kind="numeric")
        if i < numeric
        else Feature(name=f"f{i}", kind="categorical", datatype="BYTES", categories=names)
        for i in range(FEATURES)
    )
    columns = tuple(
        rng.normal(size=rows) if i < numeric else rng.integers(0, CATEGORIES, rows, dtype=np.int32)
        for i in range(FEATURES)
    )
    return Frame(schema=FeatureSchema(format_version=FORMAT_VERSION, model="bench", features=features), columns=columns)


def best_ms(*works: Callable[[], object]) -> list[float]:
    """Of each. They take turns of `TURN` runs, so that what else the machine does slows down all of them, not one."""
    best = [float("inf")] * len(works)
    for _ in range(REPEATS // TURN):
        for place, work in enumerate(works):
            for _ in range(TURN):
                began = time.perf_counter()
                work()
                best[place] = min(best[place], time.perf_counter() - began)
    return [1e3 * seconds for seconds in best]


def alibi(name: str, reference: Frame) -> Callable[[Frame], object]:
    """How alibi-detect scores a window by itself; govern's detectors by its names ask a process apart."""
    rows = reference.matrix()
    if name == "IForest":
        forest = importlib.import_module("alibi_detect.od").IForest(n_estimators=100, max_samples=256)
        forest.fit(rows)
        return lambda window: forest.score(window.matrix())
    codes = [place for place, feature in enumerate(reference.schema.features) if feature.kind == "categorical"]
    params = {"categories_per_feature": dict.fromkeys(codes)} if name == "TabularDrift" else {}
    bare = getattr(importlib.import_module("alibi_detect.cd"), name)(rows, p_val=0.05, **params)
    return lambda window: bare.predict(window.matrix())["data"]


def largest_difference(ours: object, theirs: Any) -> str:
    """Of two p-values of one feature, in the features' order; empty for detectors that give none."""
    if not isinstance(ours, WindowScores):
        return ""
    mine = [one.p_value for one in ours.features if not one.signal]
    return f"{np.abs(np.array(mine) - np.array(theirs['p_val'])).max():.0e}"


def main() -> None:
    cases = [
        ("ks", "KSDrift", FEATURES, WINDOW_ROWS),
        ("cvm", "CVMDrift", FEATURES, WINDOW_ROWS),
        ("chi_squared", "ChiSquareDrift", 0, WINDOW_ROWS),
        ("tabular", "TabularDrift", FEATURES // 2, WINDOW_ROWS),
        ("isolation_forest", "IForest", FEATURES, WINDOW_ROWS),
        ("isolation_forest", "IForest", FEATURES, 100),
        ("isolation_forest", "IForest", FEATURES, 10),
        ("isolation_forest", "IForest", FEATURES, 1),
    ]
    table = Table(title=f"reference {REFERENCE_ROWS:,} x {FEATURES}, best of {REPEATS}, one thread")
    table.add_column("detector")
    for heading in ("rows", "govern ms", "alibi-detect ms", "ratio", "p differs by"):
        table.add_column(heading, justify="right")
    for native, borrowed, numeric, rows in cases:
        reference, window = frame(REFERENCE_ROWS, numeric, 1), frame(rows, numeric, 2)
        ours: Detector = plugins.load(plugins.DETECTORS, native)().fit(reference)
        theirs = alibi(borrowed, reference)
        times = best_ms(
            *(lambda score=score, window=window: score(window) for score in (ours.score, theirs))  # type: ignore[misc]
        )
        apart = largest_difference(ours.score(window), theirs(window))
        ratio = f"{times[1] / times[0]:.0f} x"
        table.add_row(native, f"{rows:,}", f"{times[0]:.3f}", f"{times[1]:.2f}", ratio, apart)
    Console().print(table)


if __name__ == "__main__":
    with threadpool_limits(limits=1):
        main()
