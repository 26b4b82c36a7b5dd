"""What a detector will see, how often it will alarm for nothing, and what it costs: measured on its reference."""

from __future__ import annotations

import dataclasses
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from scipy.special import betaincinv

from detectors import artifacts
from detectors.alibi.held import Held
from detectors.shifts import Shift, Unit, of_features, of_outputs
from govern import artifact, plugins
from govern.detection import NO_ROW, Detector, InstanceScores, Scores, remembers
from govern.errors import BadInput, Unavailable
from govern.frame import Frame

#: Share of changed windows that is to be seen.
WANTED: Final = 0.8
#: Windows of each amount: a share of 80 % is known to 8 % (95 % interval).
TRIALS: Final = 100
#: Of the reference, drawn from and not learned from.
HELD_OUT: Final = 0.3
#: Times that the reference is split: the held-out rows of one split differ from the learned ones by chance.
SPLITS: Final = 20
#: The same for detectors that remember: each fit of these simulates streams, for seconds.
SPLITS_REMEMBERED: Final = 2
#: The same for detectors in a process apart, of which each split starts one: windows of each amount (a share of 80 % is
#: known to 15 %), splits, and seconds after which the rest is left.
TRIALS_APART: Final = 30
SPLITS_APART: Final = 2
APART_S: Final = 120.0
#: Windows without a row in common that the reference must have, so that a share without change says anything.
LEAST_DISJOINT: Final = 10
#: Rows that a detector of rows is given at once.
ROWS_AT_ONCE: Final = 10

_OF_WINDOWS: Final[dict[Unit, tuple[float, ...]]] = {
    "sigma": (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0),
    "share": (0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5),
}
_OF_ROWS: Final[dict[Unit, tuple[float, ...]]] = {"sigma": (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 15.0, 20.0)}


@dataclass(frozen=True, slots=True)
class Curve:
    """How often changes of some sizes are seen, each of one feature, all features equally likely.

    Attributes:
        points: (amount, share seen), amounts rising; amount 0 is no change.
        least: the amount of which `WANTED` are seen, between two points by a straight line; None: not the largest.
    """

    unit: Unit
    points: tuple[tuple[float, float], ...]
    least: float | None


@dataclass(frozen=True, slots=True)
class Sized:
    """A detector at one size of its windows.

    Attributes:
        rows: of the window; 1 where rows are judged one by one.
        alarms: share of windows (rows) without change in which it alarmed.
        trials: windows (rows) of which that is the share.
        interval: the 95 % one of that share. It counts no more windows than the reference has without a row in common:
            windows that share rows are not independent. None where these are fewer than `LEAST_DISJOINT`.
        score_ms: median time of one window, in this process; of one row of those that come at once (`ROWS_AT_ONCE`)
            where rows are judged one by one.
        state_bytes: what is kept for it while a window is open: the memory of a detector that has one, the rows else.
        p_values: of windows without change: of each as a whole, or of the features' tests where only these are judged.
        curves: one for each unit.
        why_not: it could not be measured, and why.
    """

    rows: int
    alarms: float = float("nan")
    trials: int = 0
    interval: tuple[float, float] | None = None
    score_ms: float = float("nan")
    state_bytes: int = 0
    p_values: tuple[float, ...] = ()
    curves: tuple[Curve, ...] = ()
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Power:
    """Of one artifact.

    Attributes:
        by_row: rows are judged one by one; otherwise windows.
        stated: false alarms that its parameters allow: for each window, or each row when `stated_by_row`; NaN where
            they say nothing.
        trials: windows of each amount that were tried.
        disk_bytes, loaded_bytes: of the artifact, as files and in memory.
    """

    method: str
    by_row: bool
    stated: float
    stated_by_row: bool
    disk_bytes: int
    loaded_bytes: int
    sized: tuple[Sized, ...]
    trials: int = TRIALS

    def false_alarms(self, sized: Sized, rows: float) -> float:
        """Expected in so many rows without change: as stated, else as seen. NaN where neither is known."""
        if np.isnan(self.stated):
            if sized.interval is None:
                return float("nan")
            return sized.alarms * rows / sized.rows
        return self.stated * (rows if self.stated_by_row else rows / sized.rows)


def power(
    path: Path,
    reference: Frame,
    sizes: Sequence[int],
    *,
    trials: int = TRIALS,
    seed: int = 0,
    progress: Callable[[int], None] = lambda _: None,
) -> Power:
    """Measure the detector stored at `path` by windows drawn from its reference.

    The reference is split several times; detectors with the same parameters learn from one part, and windows are drawn
    from the other. So what is measured is a detector that knew `HELD_OUT` less: the stored one sees a little more.
    A change is of one feature, or of one output of the model where a drift detector reads outputs; the same windows are
    changed by each amount. A detector that remembers sees as many rows without change first. One in a process apart is
    tried `TRIALS_APART` times at most; what is not done after `APART_S` seconds is not measured.

    Args:
        reference: what it was fitted on.
        sizes: rows of the windows.
        progress: called with 1 for each size that is done.

    Raises:
        ArtifactError: it cannot be read.
    """
    manifest, files = artifact.read(path, group=plugins.DETECTORS)
    constructor = plugins.load(plugins.DETECTORS, manifest.name)
    reference = dataclasses.replace(reference, instance_ids=())
    stored, loaded_bytes = _loaded(path)
    by_row = stored.kind != "drift"
    found = []
    why_not = ""
    probes: list[tuple[Detector, Frame]] = []
    apart = isinstance(stored, Held)
    trials = min(trials, TRIALS_APART) if apart else trials
    ends = time.monotonic() + APART_S if apart else float("inf")
    try:
        for split in range(SPLITS_APART if apart else SPLITS_REMEMBERED if remembers(stored) else SPLITS):
            _require_time(ends, manifest.name)
            probes.append(_probe(constructor(**manifest.params), reference, (seed, split)))
    except BadInput as error:
        why_not = f"{HELD_OUT:.0%} of the rows are held out, and it refuses the rest: {error.what}: {error.why}"
    except Unavailable as error:
        why_not = f"{error.what}: {error.why}"
    shifts = (
        of_outputs(reference, stored.needs_outputs)
        if stored.needs_outputs and stored.kind == "drift"
        else of_features(reference, within=not by_row)
    )
    for size in [1] if by_row else sizes:
        if why_not:
            found.append(Sized(size, why_not=why_not))
        else:
            try:
                sized = _sized(probes, shifts, size, len(reference), by_row=by_row, trials=trials, seed=seed, ends=ends)
            except Unavailable as error:
                sized = Sized(size, why_not=f"{error.what}: {error.why}")
            found.append(sized)
        progress(1)
    stated, stated_by_row = _stated(manifest.params)
    disk_bytes = sum(len(data) for data in files.values())
    return Power(manifest.name, by_row, stated, stated_by_row, disk_bytes, loaded_bytes, tuple(found), trials)


def _probe(detector: Detector, reference: Frame, seed: tuple[int, int]) -> tuple[Detector, Frame]:
    order = np.random.default_rng(seed).permutation(len(reference))
    held = round(HELD_OUT * len(reference))
    return detector.fit(reference.take(order[held:])), reference.take(order[:held])


def _sized(
    probes: Sequence[tuple[Detector, Frame]],
    shifts: Sequence[Shift],
    size: int,
    reference_rows: int,
    *,
    by_row: bool,
    trials: int,
    seed: int,
    ends: float,
) -> Sized:
    first, held = probes[0]
    rows = max(ROWS_AT_ONCE, first.min_instances) if by_row else size
    before = rows if remembers(first) else 0
    if rows < first.min_instances:
        return Sized(size, why_not=f"{first.method} judges windows of at least {first.min_instances} rows")
    if rows + before > len(held):
        return Sized(size, why_not=f"a reference of {round((rows + before) / HELD_OUT):,} rows is needed")
    took: list[float] = []
    p_values: list[float] = []

    def seen(among: Sequence[Shift], amount: float) -> float:
        total = 0.0
        for trial in range(trials):
            generator = np.random.default_rng((seed, size, trial))
            detector, source = probes[trial % len(probes)]
            _require_time(ends, detector.method)
            drawn = source.take(generator.choice(len(source), size=rows + before, replace=False))
            quiet, window = drawn.take(slice(0, before)), drawn.take(slice(before, None))
            if amount:
                # Splits and features take turns of their own, so that each split meets each feature.
                window = among[trial // len(probes) % len(among)].move(window, amount, generator)
            scores, seconds = _said(detector, quiet, window)
            if not amount:
                took.append(seconds)
                p_values.extend(_p_values(scores))
            total += float(scores.flagged.mean()) if isinstance(scores, InstanceScores) else float(scores.alarm)
        return total / trials

    alarms = seen((), 0.0)
    curves = []
    for unit, amounts in (_OF_ROWS if by_row else _OF_WINDOWS).items():
        among = [one for one in shifts if one.unit == unit]
        if among:
            curves.append(_curve(unit, amounts, alarms, lambda amount, among=among: seen(among, amount)))  # type: ignore[misc]
    return Sized(
        rows=size,
        alarms=alarms,
        trials=trials * rows if by_row else trials,
        interval=_interval(alarms, min(trials * (rows if by_row else 1), reference_rows // (1 if by_row else size))),
        score_ms=float(np.median(took)) * 1e3 / (rows if by_row else 1),
        state_bytes=_state_bytes(first, held.take(slice(0, rows))),
        p_values=() if remembers(first) else tuple(p_values),
        curves=tuple(curves),
    )


def _interval(share: float, windows: int) -> tuple[float, float] | None:
    """Of a share of so many independent windows, at 95 % (Clopper and Pearson, 1934)."""
    if windows < LEAST_DISJOINT:
        return None
    hits = share * windows
    low = float(betaincinv(hits, windows - hits + 1, 0.025)) if hits > 0 else 0.0
    return low, float(betaincinv(hits + 1, windows - hits, 0.975)) if hits < windows else 1.0


def _require_time(ends: float, method: str) -> None:
    if time.monotonic() > ends:
        raise Unavailable(
            f"{method} is asked in a process apart",
            why=f"measuring it would take more than {APART_S:.0f} s",
            fix="measure smaller windows, or fewer of them (--windows)",
        )


def _curve(unit: Unit, amounts: Sequence[float], alarms: float, seen: Callable[[float], float]) -> Curve:
    """Bisection over the amounts: larger changes are seen more often."""
    points = {0.0: alarms, amounts[-1]: seen(amounts[-1])}
    least = None
    if points[amounts[-1]] >= WANTED:
        low, high = -1, len(amounts) - 1
        while high - low > 1:
            middle = (low + high) // 2
            points[amounts[middle]] = seen(amounts[middle])
            low, high = (low, middle) if points[amounts[middle]] >= WANTED else (middle, high)
        above, below = amounts[high], amounts[low] if low >= 0 else 0.0
        rise = points[above] - points[below]
        least = above if rise <= 0 else below + (above - below) * max(0.0, WANTED - points[below]) / rise
    return Curve(unit, tuple(sorted(points.items())), least)


def _said(detector: Detector, quiet: Frame, window: Frame) -> tuple[Scores, float]:
    if not remembers(detector):
        began = time.perf_counter()
        scores = detector.score(window)
        return scores, time.perf_counter() - began
    times = np.arange(len(quiet) + len(window), dtype=np.int64) * 10**9
    _, memory = detector.advance(detector.start(), quiet, times[: len(quiet)])
    began = time.perf_counter()
    scores, _ = detector.advance(memory, window, times[len(quiet) :])
    return scores, time.perf_counter() - began


def _p_values(scores: Scores) -> list[float]:
    """Of the window, or of what was tested; none where an alarm is no matter of a p-value."""
    if isinstance(scores, InstanceScores) or scores.alarm_row != NO_ROW:
        return []
    if not np.isnan(scores.p_value):
        return [scores.p_value]
    # Rates of what is missing or unseen have few values, and p-values near 1 for it.
    return [one.p_value for one in scores.features if not one.signal and not np.isnan(one.p_value)]


def _state_bytes(detector: Detector, window: Frame) -> int:
    if remembers(detector):
        times = np.arange(len(window), dtype=np.int64) * 10**9
        return len(detector.pack(detector.advance(detector.start(), window, times)[1]))
    return sum(column.nbytes for column in (*window.columns, *window.outputs.values()))


def _loaded(path: Path) -> tuple[Detector, int]:
    # What is imported and compiled when the first of its kind is loaded is no part of the artifact.
    artifacts.load(path)
    tracemalloc.start()
    try:
        detector = artifacts.load(path)
        return detector, tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def _stated(params: dict[str, object]) -> tuple[float, bool]:
    """False alarms that the parameters allow, and whether that is for each row."""
    level, run_time, share = (params.get(name) for name in ("p_val", "ert", "contamination"))
    if isinstance(run_time, int | float) and run_time > 0:
        return 1.0 / run_time, True
    if isinstance(share, int | float):
        return float(share), True
    # Without a correction the level is that of each feature, and what all together do is not stated.
    if isinstance(level, int | float) and params.get("correction") != "none":
        return float(level), False
    return float("nan"), False
