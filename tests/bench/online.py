"""Time of an event online, beside references of different sizes, and of alibi-detect's CVMDriftOnline, on one thread.

Run it where alibi-detect is installed; elsewhere it says so. (-P, because a neighbour of this file has the name of a
package of govern.)

    python -P tests/bench/online.py
"""

from __future__ import annotations

import importlib.util
import time

import numpy as np
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from detectors.online.adwin import AdwinDrift
from detectors.online.cvm import OnlineCVMDrift
from detectors.online.detector import OnlineDrift
from detectors.online.fet import OnlineFETDrift
from detectors.online.ks import IncrementalKSDrift
from detectors.online.lsdd import OnlineLSDDDrift
from detectors.online.mmd import OnlineMMDDrift
from detectors.online.page_hinkley import PageHinkleyDrift
from govern.frame import Frame
from govern.schema import FORMAT_VERSION, Feature, FeatureSchema

DETECTORS = (
    OnlineCVMDrift,
    IncrementalKSDrift,
    PageHinkleyDrift,
    AdwinDrift,
    OnlineFETDrift,
    OnlineMMDDrift,
    OnlineLSDDDrift,
)
REFERENCES = (1_000, 10_000, 100_000)
#: alibi-detect's follows its simulated streams beside every row of the reference: 5,000 rows take it a minute to fit.
THEIRS_MOST = 1_000
FEATURES = 4
CATEGORIES = tuple(f"v{code}" for code in range(8))
#: Rows of a window that a worker hands over.
WINDOWS = (100, 1)
EVENTS = 2_000
SIZES = [20, 50]
#: The best of this many runs is the time that the work itself takes.
REPEATS = 3


def frame(rows: int, seed: int) -> Frame:
    rng = np.random.default_rng(seed)
    numbers = [Feature(name=f"x{i}", kind="numeric") for i in range(FEATURES)]
    codes = [Feature(name=f"c{i}", kind="categorical", categories=CATEGORIES) for i in range(FEATURES)]
    columns = (*rng.normal(size=(FEATURES, rows)), *rng.integers(0, 8, size=(FEATURES, rows)).astype(np.int32))
    return Frame(FeatureSchema(format_version=FORMAT_VERSION, model="bench", features=(*numbers, *codes)), columns)


def ours_us(detector: OnlineDrift, stream: Frame, size: int) -> float:
    events = EVENTS if size > 1 else EVENTS // 10
    windows = [stream.take(slice(at, at + size)) for at in range(0, events, size)]
    times = np.zeros(size, dtype=np.int64)
    best = np.inf
    for _ in range(REPEATS):
        memory = detector.start()
        began = time.perf_counter()
        for window in windows:
            _, memory = detector.advance(memory, window, times)
        best = min(best, time.perf_counter() - began)
    return 1e6 * best / events


def theirs_us(reference: Frame, stream: Frame) -> float:
    from alibi_detect.cd import CVMDriftOnline

    detector = CVMDriftOnline(
        np.column_stack(reference.columns[:FEATURES]),
        ert=50,
        window_sizes=SIZES,
        n_bootstraps=1_500,
        n_features=FEATURES,
        verbose=False,
    )
    rows = np.column_stack(stream.columns[:FEATURES])[: EVENTS // 10]
    for row in rows:
        detector.score(row)
    best = np.inf
    for _ in range(REPEATS):
        detector.reset_state()
        began = time.perf_counter()
        for row in rows:
            detector.score(row)
        best = min(best, time.perf_counter() - began)
    return 1e6 * best / len(rows)


def main() -> None:
    console = Console()
    alibi = importlib.util.find_spec("alibi_detect") is not None
    if not alibi:
        console.print("alibi-detect is not installed here: only the native times follow.")
    stream = frame(EVENTS, 2)
    table = Table(
        title=f"microseconds an event: {FEATURES} numeric, {FEATURES} categorical features, windows of 20 and 50"
    )
    for heading in ("detector", "reference", *(f"by {size}" for size in WINDOWS), "alibi", "by 100 / 1", "fit s"):
        table.add_column(heading, justify="right")
    for online in DETECTORS:
        for rows in REFERENCES:
            reference = frame(rows, 1)
            began = time.perf_counter()
            detector = online(ert=1_000, max_reference=rows).fit(reference)
            fit_s = time.perf_counter() - began
            ours = [ours_us(detector, stream, size) for size in WINDOWS]
            peer = theirs_us(reference, stream) if alibi and online is OnlineCVMDrift and rows <= THEIRS_MOST else None
            table.add_row(
                online.method,
                f"{rows:,}",
                *(f"{value:.1f}" for value in ours),
                "" if peer is None else f"{peer:.0f}",
                "" if peer is None else " / ".join(f"{peer / value:.0f} x" for value in ours),
                f"{fit_s:.1f}",
            )
    console.print(table)


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
