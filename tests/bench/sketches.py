"""Time of one window of a wide table: `sketched` beside `tabular`, on the same rows, on one thread, in one process.

.venv/bin/python -P tests/bench/sketches.py
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from detectors.drift.sketched import SketchedDrift
from detectors.drift.tabular import TabularDrift
from govern.frame import Frame
from govern.schema import FORMAT_VERSION, Feature, FeatureSchema

FEATURES, REFERENCE_ROWS, WINDOW_ROWS = 1_000, 20_000, 100_000
#: Of ten features, so many are categorical.
CATEGORICAL_OF_TEN = 2
CATEGORIES = 8
#: The best of this many runs is the time that the work itself takes.
REPEATS = 3

T = TypeVar("T")


def frame(features: int, rows: int, seed: int) -> Frame:
    rng = np.random.default_rng(seed)
    names = tuple(str(code) for code in range(CATEGORIES))
    described, columns = [], []
    for i in range(features):
        if i % 10 < CATEGORICAL_OF_TEN:
            described.append(Feature(name=f"f{i}", kind="categorical", datatype="BYTES", categories=names))
            columns.append(rng.integers(0, CATEGORIES, rows, dtype=np.int32))
        else:
            described.append(Feature(name=f"f{i}", kind="numeric"))
            columns.append(rng.normal(size=rows))
    schema = FeatureSchema(format_version=FORMAT_VERSION, model="wide", features=tuple(described))
    return Frame(schema=schema, columns=tuple(columns))


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """Seconds, the best of `REPEATS`, and what came of it."""
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        found = work()
        times.append(time.perf_counter() - began)
    return min(times), found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", type=int, default=FEATURES)
    parser.add_argument("--rows", type=int, default=WINDOW_ROWS)
    asked = parser.parse_args()
    reference, window = frame(asked.features, REFERENCE_ROWS, 1), frame(asked.features, asked.rows, 2)
    sketched, tabular = SketchedDrift().fit(reference), TabularDrift().fit(reference)
    sketched.score(window.take(slice(0, 100)))  # compiles
    counting, sketch = timed(lambda: sketched.sketch(window))
    judging, _ = timed(lambda: sketched.score_sketch(sketch))
    ours, found = timed(lambda: sketched.score(window))
    theirs, oracle = timed(lambda: tabular.score(window))
    apart = [abs(a.statistic - b.statistic) for a, b in zip(found.features, oracle.features, strict=True)]
    table = Table(title=f"{asked.features:,} features x {asked.rows:,} rows, best of {REPEATS}, one thread")
    for heading in ("sketched s", "counting s", "judging s", "tabular s", "ratio", "MB", "differs by"):
        table.add_column(heading, justify="right")
    megabytes = (sketch.counts.nbytes + sketch.ends.nbytes) / 1e6
    cells = [f"{one:.2f}" for one in (ours, counting, judging, theirs)]
    table.add_row(*cells, f"{theirs / ours:.1f} x", f"{megabytes:.1f}", f"{max(apart):.1e}")
    Console().print(table)


if __name__ == "__main__":
    with threadpool_limits(limits=1):
        main()
