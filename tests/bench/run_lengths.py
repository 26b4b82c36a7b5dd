"""How long online detectors run without change, and how soon they find one; alibi-detect's CVMDriftOnline beside them.

Seeded. Run it where alibi-detect is installed; elsewhere it says so. (-P, because a neighbour of this file has the name
of a package of govern.)

    python -P tests/bench/run_lengths.py
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.table import Table

from detectors.online.adwin import AdwinDrift
from detectors.online.cvm import OnlineCVMDrift
from detectors.online.detector import OnlineDrift
from detectors.online.fet import OnlineFETDrift
from detectors.online.ks import IncrementalKSDrift
from detectors.online.lsdd import OnlineLSDDDrift
from detectors.online.mmd import OnlineMMDDrift
from detectors.online.page_hinkley import PageHinkleyDrift
from govern.detection import NO_ROW
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
ERT = 300
REFERENCE_ROWS = 1_000
QUIET_ROWS = 6_000
#: References, each with a detector of its own, and the changes of each kind that each sees.
OURS = (8, 12)
#: alibi-detect's takes 0.4 ms a row.
THEIRS = (3, 5)
SIZES = [20, 50]
#: Rows before a change, and after it: a detector that has not found it by then is counted as if it had.
BEFORE, AFTER = 100, 600
CATEGORIES = ("a", "b", "c", "d")
SCHEMA = FeatureSchema(
    format_version=FORMAT_VERSION,
    model="bench",
    features=(
        Feature(name="x", kind="numeric"),
        Feature(name="y", kind="numeric"),
        Feature(name="c", kind="categorical", categories=CATEGORIES),
    ),
)

#: A stream's alarms, by row.
Alarms = Callable[[Frame], list[int]]


def rows(count: int, rng: np.random.Generator, *, level: float = 0.0, spread: float = 1.0, rate: float = 0.1) -> Frame:
    """Two numbers and a category; the first number and the category may change."""
    shares = [rate, *[(1 - rate) / 3] * 3]
    codes = rng.choice(4, size=count, p=shares).astype(np.int32)
    return Frame(SCHEMA, (rng.normal(level, spread, count), rng.normal(size=count), codes))


SHIFTS: dict[str, dict[str, float]] = {
    "+ 0.5 sd": {"level": 0.5},
    "+ 1 sd": {"level": 1.0},
    "sd x 2": {"spread": 2.0},
    "10 to 30 %": {"rate": 0.3},
}


def ours(online: type[OnlineDrift], reference: Frame, seed: int) -> Alarms:
    detector = online(ert=ERT, max_reference=REFERENCE_ROWS, seed=seed).fit(reference)

    def alarms(stream: Frame) -> list[int]:
        memory, at, found = detector.start(), 0, []
        while at < len(stream):
            window = stream.take(slice(at, at + 100))
            scores, after = detector.advance(memory, window, np.zeros(len(window), dtype=np.int64))
            if scores.alarm_row == NO_ROW:
                memory, at = after, at + 100
            else:
                found.append(at + scores.alarm_row)
                memory, at = detector.start(), at + scores.alarm_row + 1
        return found

    return alarms


def theirs(reference: Frame, seed: int) -> Alarms:
    from alibi_detect.cd import CVMDriftOnline

    np.random.seed(seed)
    detector = CVMDriftOnline(
        np.column_stack(reference.columns[:2]),
        ert=ERT,
        window_sizes=SIZES,
        n_bootstraps=3_000,
        n_features=2,
        verbose=False,
    )

    def alarms(stream: Frame) -> list[int]:
        found = []
        detector.reset_state()
        for at, row in enumerate(np.column_stack(stream.columns[:2])):
            if detector.predict(row)["data"]["is_drift"]:
                found.append(at)
                detector.reset_state()
        return found

    return alarms


def measured(make: Callable[[Frame, int], Alarms], references: int, changes: int) -> list[str]:
    told = 0
    delays: dict[str, list[int]] = {name: [] for name in SHIFTS}
    for seed in range(references):
        rng = np.random.default_rng(seed)
        alarms = make(rows(REFERENCE_ROWS, rng), seed)
        told += len(alarms(rows(QUIET_ROWS, rng)))
        for name, change in SHIFTS.items():
            for _ in range(changes):
                found = alarms(Frame.concat([rows(BEFORE, rng), rows(AFTER, rng, **change)]))
                delays[name].append(min([one - BEFORE for one in found if one >= BEFORE], default=AFTER))
    return [f"{references * QUIET_ROWS / max(told, 1):.0f}", *(f"{np.mean(one):.0f}" for one in delays.values())]


def main() -> None:
    console = Console()
    table = Table(
        title=f"rows until an alarm, expected run time {ERT}, reference {REFERENCE_ROWS:,}, windows 20 and 50"
    )
    for heading in ("detector", "no change", *SHIFTS):
        table.add_column(heading, justify="right")
    for online in DETECTORS:
        table.add_row(online.method, *measured(lambda frame, seed, one=online: ours(one, frame, seed), *OURS))  # type: ignore[misc]
    if importlib.util.find_spec("alibi_detect") is None:
        console.print("alibi-detect is not installed here: only the native detectors follow.")
    else:
        table.add_row("alibi CVMDriftOnline", *measured(theirs, *THEIRS))
    console.print(table)


if __name__ == "__main__":
    main()
