"""What `govern fit --power` says of each fitted detector."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rich.box import SIMPLE
from rich.markup import escape
from rich.table import Table as Grid

from detectors.fit import Report
from detectors.power import LEAST_DISJOINT, TRIALS, WANTED, Curve, Power, Sized
from detectors.shifts import Unit
from govern.errors import BadInput
from govern.pipeline import Pipeline

#: Rows of a window where neither the command nor the pipeline says it.
WINDOWS: Final = (50, 200, 1000)
DAYS_A_MONTH: Final = 30
SIGMA: Final = "\N{GREEK SMALL LETTER SIGMA}"
_UNITS: Final[dict[Unit, str]] = {"sigma": SIGMA, "share": "% of rows"}


@dataclass(frozen=True, slots=True)
class Measured:
    """A fitted step and its power."""

    report: Report
    power: Power


def windows(text: str) -> tuple[int, ...]:
    """The sizes that `--windows` names, rising.

    Raises:
        BadInput: one is no number of rows.
    """
    sizes = [part.strip() for part in text.split(",") if part.strip()]
    wrong = [one for one in sizes if not one.isdecimal() or int(one) == 0]
    if wrong:
        raise BadInput(f"--windows {wrong[0]!r}", why="it is no number of rows", fix="write --windows 50,200,1000")
    return tuple(sorted({int(one) for one in sizes}))


def sizes_of(step: str, pipeline: Pipeline, asked: Sequence[int]) -> tuple[int, ...]:
    """The sizes to measure a step at: those asked for and its own; `WINDOWS` where there are none."""
    batch = next(one.batch for one in pipeline.spec.steps if one.name == step)
    own = [batch.size] if batch is not None and batch.size else []
    return tuple(sorted({*asked, *own})) or WINDOWS


def columns(rows_per_day: int) -> tuple[str, ...]:
    """What the cells of `row` are."""
    return (
        "step",
        "window",
        f"shift seen in {WANTED:.0%}",
        f"changed rows seen in {WANTED:.0%}",
        "false alarms / month" if rows_per_day else "false alarms / 1M rows",
        "seen without change (95%)",
        "time of a window or row",
        "open window",
        "loaded",
    )


def grid(measured: Sequence[Measured], rows_per_day: int) -> Grid:
    table = Grid(box=SIMPLE, pad_edge=False, caption=_caption(rows_per_day), caption_justify="left")
    for place, heading in enumerate(columns(rows_per_day)):
        table.add_column(heading, justify="left" if place < 2 else "right", no_wrap=place == 0)
    for one in measured:
        for sized in one.power.sized:
            table.add_row(*map(escape, row(one, sized, rows_per_day)))
    return table


def remarks(measured: Sequence[Measured]) -> Iterator[str]:
    """What could not be measured, or not well, a line each."""
    for one in measured:
        for sized in one.power.sized:
            what = one.report.step if one.power.by_row else f"{one.report.step}, window of {sized.rows:,} rows"
            if sized.why_not:
                yield f"Not measured: {what}: {sized.why_not}"
            elif sized.interval is None:
                yield (
                    f"Alarms without change are not told: {what}: the reference has fewer than {LEAST_DISJOINT} such "
                    f"windows without a row in common; give it {LEAST_DISJOINT * sized.rows:,} rows"
                )
        if one.power.trials < TRIALS:
            error = 1.96 * math.sqrt(WANTED * (1 - WANTED) / one.power.trials)
            yield (
                f"Measured coarsely: {one.report.step}, in a process apart: {one.power.trials} windows of each amount, "
                f"so {WANTED:.0%} is known to {error:.0%}"
            )


def least_text(curve: Curve | None) -> str:
    """The smallest change that is seen, as text; empty where there is no feature of that kind."""
    if curve is None:
        return ""
    if curve.least is None:
        return f"over {_amount(curve.unit, curve.points[-1][0])}"
    return _amount(curve.unit, curve.least)


def false_alarms(one: Measured, sized: Sized, rows_per_day: int) -> float:
    """Expected in a month, or in a million rows where nobody says how many come."""
    return one.power.false_alarms(sized, rows_per_day * DAYS_A_MONTH if rows_per_day else 1e6)


def bytes_text(size: int) -> str:
    return f"{size:,} B" if size < 1000 else f"{size / 1e3:,.0f} kB" if size < 1e6 else f"{size / 1e6:,.1f} MB"


def row(one: Measured, sized: Sized, rows_per_day: int) -> tuple[str, ...]:
    """A detector at one size, in words."""
    curves = {curve.unit: curve for curve in sized.curves}
    expected = false_alarms(one, sized, rows_per_day)
    return (
        one.report.step,
        "row" if one.power.by_row else f"{sized.rows:,}",
        least_text(curves.get("sigma")),
        least_text(curves.get("share")),
        "" if math.isnan(expected) else f"{expected:,.3g}" if expected < 100 else f"{expected:,.0f}",
        _interval(sized),
        _time(one.power, sized),
        bytes_text(sized.state_bytes) if sized.state_bytes else "",
        bytes_text(one.power.loaded_bytes),
    )


def _interval(sized: Sized) -> str:
    if sized.why_not:
        return ""
    if sized.interval is None:
        return "too few rows"
    low, high = sized.interval
    return f"{low * 100:.1f} to {high:.1%}"


def _time(power: Power, sized: Sized) -> str:
    if math.isnan(sized.score_ms):
        return ""
    return f"{sized.score_ms * 1e3:,.3g} µs" if power.by_row else f"{sized.score_ms:,.2g} ms"


def _amount(unit: Unit, amount: float) -> str:
    return f"{amount:.2g} {_UNITS[unit]}" if unit == "sigma" else f"{amount * 100:.2g} {_UNITS[unit]}"


def _caption(rows_per_day: int) -> str:
    said = "a shift is of one feature, any equally likely; false alarms as the parameters state, else as seen"
    return said if rows_per_day else f"{said}; --rows-per-day gives them by the month"
