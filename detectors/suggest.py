"""Which detectors fit a reference, and the window that sees a change of the size wanted."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from scipy.special import ndtr, ndtri

from detectors.drift.outputs import are_probabilities
from detectors.drift.tabular import TabularDrift
from detectors.outlier.held_out import rows_needed
from detectors.power import HELD_OUT, WANTED, Sized, power
from govern.frame import MISSING, Frame

#: Windows that are tried, in rows, each some 1.5 times the one before.
LADDER: Final = (50, 75, 100, 150, 200, 300, 500, 750, 1_000, 1_500, 2_000, 3_000, 5_000, 7_500, 10_000)
#: Of each window that is tried: a share of 80 % is known to 11 % (95 % interval), which is a rung of the ladder.
TRIALS: Final = 50
#: Where nobody says how many rows come, one window in a hundred alarms for nothing.
LEVEL: Final = 0.01
#: Bounds of the level for one false alarm a month: below it, permutation tests take seconds; above it, nobody looks.
_LEAST_LEVEL, _MOST_LEVEL = 0.001, 0.05
_DAYS_A_MONTH: Final = 30
#: Features from which on distances tell little, and many tests share the level.
WIDE: Final = 50
#: Features up to which random cuts meet each of them often enough.
_FEW: Final = 20
#: Share of flagged rows, from the one that is wanted to the one that few rows can still tell.
_CONTAMINATIONS: Final = (0.001, 0.005, 0.01, 0.05)
#: The Kolmogorov-Smirnov test needs so many times the rows of the test that knows what to look for, or so.
_OF_BEST: Final = 1.6


@dataclass(frozen=True, slots=True)
class Chosen:
    """A step of the pipeline.

    Attributes:
        why: a sentence, for the comment above it.
    """

    name: str
    method: str
    params: Mapping[str, str | float]
    why: str


@dataclass(frozen=True, slots=True)
class Window:
    """
    Attributes:
        rows: of the window.
        level: of each drift test.
        why: sentences on what it sees.
    """

    rows: int
    level: float
    why: str


def useless(reference: Frame) -> dict[str, str]:
    """Features that teach nothing, and why: without a value, constant, or an identifier."""
    found: dict[str, str] = {}
    for feature, column in zip(reference.schema.features, reference.columns, strict=True):
        if feature.kind == "text" and len(set(column.tolist())) == len(column):
            found[feature.name] = "a different text in each row"
        if feature.kind not in ("numeric", "categorical"):
            continue
        numbers = column.astype(np.float64)
        present = numbers[numbers != MISSING] if feature.kind == "categorical" else numbers[~np.isnan(numbers)]
        different = len(np.unique(present))
        if different == 0 or (different == 1 and len(present) == len(numbers)):
            found[feature.name] = "no values" if different == 0 else "the same value in all rows"
        elif "INT" in feature.datatype and feature.kind == "numeric" and different == len(numbers) > 1:
            found[feature.name] = "a different whole number in each row: an identifier"
    return found


def window(
    reference: Frame, detect: float, rows_per_day: int, progress: Callable[[int], None] = lambda rows: None
) -> Window:
    """The smallest window in which tests of each feature see the change, measured on the reference.

    Args:
        detect: a shift of one feature in standard deviations. Of categories it is the share of rows by which a normal
            distribution changes when it is shifted so far: its total variation distance.
        progress: is told the rows of each window that is tried.

    Raises:
        BadInput: the reference has too few rows, or no numeric or categorical feature.
    """
    wanted = {"sigma": detect, "share": 2.0 * float(ndtr(detect / 2.0)) - 1.0}
    least = _OF_BEST * ((float(ndtri(1 - LEVEL / 2 / len(reference.columns))) + float(ndtri(WANTED))) / detect) ** 2
    most = HELD_OUT * len(reference)
    ladder = [rows for rows in LADDER if rows <= most] or [max(2, int(most))]
    tried = [rows for rows in ladder if rows >= least / 2] or ladder[-1:]
    for rows in tried:
        progress(rows)
        level = level_of(rows, rows_per_day)
        sized = _measured(reference, rows, level)
        seen = [curve.least is not None and curve.least <= wanted[curve.unit] for curve in sized.curves]
        if seen and all(seen):
            return Window(rows, level, f"{_said(sized)} in {WANTED:.0%} of windows of {rows:,} rows")
    why = f"{detect:g} sigma was wanted, which takes more rows than the reference has for a trial. "
    return Window(rows, level, f"{why}{_said(sized)} in {WANTED:.0%} of windows of {rows:,} rows")


def level_of(rows: int, rows_per_day: int) -> float:
    """What lets a detector of such windows alarm for nothing once a month, to one significant digit."""
    if not rows_per_day:
        return LEVEL
    level = min(_MOST_LEVEL, max(_LEAST_LEVEL, rows / (rows_per_day * _DAYS_A_MONTH)))
    return float(f"{level:.0e}")


def steps(reference: Frame, level: float, rows_per_day: int) -> Iterator[Chosen]:
    """The detectors that fit the kinds and the number of features, and the outputs that are there."""
    kinds = [feature.kind for feature in reference.schema.features]
    numeric, width = kinds.count("numeric"), kinds.count("numeric") + kinds.count("categorical")
    if width:
        correction = "fdr" if width > WIDE else "bonferroni"
        told = f"{numeric} numeric and {width - numeric} categorical features, each by the test of its kind"
        yield Chosen("drift", "tabular", {"p_val": level, "correction": correction}, f"{told}; {correction} over all.")
    yield Chosen("quality", "data_quality", {"p_val": level}, "Ranges, gaps and categories that the reference lacks.")
    if width > 1:
        method = "pca_reconstruction" if width > WIDE else "mmd"
        why = "How features go together, which no test of one of them sees"
        cost = "by components, because distances tell little among so many" if width > WIDE else "by distances of rows"
        yield Chosen("together", method, {"p_val": level}, f"{why}; {cost}.")
    for name, values in reference.outputs.items():
        plain = _slug(name)
        told = f"What the model answers in {name}: it moves for what the model cares about."
        yield Chosen(f"answers-{plain}", "prediction_drift", {"output": name, "p_val": level}, told)
        if are_probabilities(values):
            sure = f"How sure the model is, by {name}."
            yield Chosen(f"sureness-{plain}", "model_uncertainty", {"output": name, "p_val": level}, sure)
    fitting = [share for share in _CONTAMINATIONS if rows_needed(share) <= len(reference)]
    if width and fitting:
        method = "isolation_forest" if width <= _FEW else "ecod"
        why = "mixed and few features" if width <= _FEW else "many features, each by its tails"
        flagged = f", so some {rows_per_day * fitting[0]:,.0f} a day" if rows_per_day else ""
        said = f"Single rows that are strange ({why}); {fitting[0]:.1%} of ordinary ones are flagged{flagged}."
        yield Chosen("outlier", method, {"contamination": fitting[0]}, said)


def pipeline_file(
    chosen: Sequence[Chosen], size: Window, *, model: str, service: str, schema: str, origin: str, rows_per_day: int
) -> str:
    """The pipeline as YAML, with a comment on each choice."""
    lines = [
        f"# Suggested by `govern fit --suggest`, from {origin}. It is yours to change.",
        *_comment(f"Windows: {size.why}."),
        *_comment(_traffic(size, rows_per_day)),
        "apiVersion: govern.io/v1alpha1",
        "kind: Pipeline",
        f"metadata: {{name: {_slug(model)}}}",
        "spec:",
        f"  source: {{service: {json.dumps(service)}, model: {json.dumps(model)}}}",
        f"  schema: {json.dumps(schema)}",
        "  steps:",
    ]
    for one in chosen:
        params = ", ".join(f"{name}: {json.dumps(value)}" for name, value in one.params.items())
        lines += [
            *_comment(one.why, "    "),
            f"    - name: {one.name}",
            f"      detector: {{type: {one.method}, params: {{{params}}}, artifact: artifacts/{one.name}}}",
            f"      batch: {{size: {size.rows}}}",
        ]
    return "\n".join([*lines, ""])


def _measured(reference: Frame, rows: int, level: float) -> Sized:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "drift"
        # Permutations would make small p-values exact, and each window that is seen take as long as a hundred others.
        TabularDrift(p_val=level, tail="asymptotic").fit(reference).save(path)
        return power(path, reference, [rows], trials=TRIALS).sized[0]


def _said(sized: Sized) -> str:
    """What a window sees, as far as it was measured."""
    if sized.why_not:
        return f"Nothing could be measured ({sized.why_not})"
    seen = [
        f"a shift of {curve.least:.2g} sigma of one number"
        if curve.unit == "sigma"
        else f"{curve.least:.1%} of rows in another category of one feature"
        for curve in sized.curves
        if curve.least is not None
    ]
    return f"Seen: {' and '.join(seen)}," if seen else "No change was seen"


def _traffic(size: Window, rows_per_day: int) -> str:
    if not rows_per_day:
        return f"p_val {size.level:g}: one window in {1 / size.level:,.0f} alarms for nothing, for each drift detector."
    days = size.rows / rows_per_day
    each = f"{1 / days:,.1f} windows a day" if days <= 1 else f"a window every {days:,.1f} days"
    months = size.level * rows_per_day * _DAYS_A_MONTH / size.rows
    return f"{rows_per_day:,} rows a day are {each}; p_val {size.level:g} is {months:.2g} false alarms a month each."


def _comment(text: str, indent: str = "") -> list[str]:
    # A name of the table may have a line break in it, which would end the comment.
    words = " ".join(text.split())
    return [f"{indent}# {words}"]


def _slug(name: str) -> str:
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return plain[:50].strip("-") or "model"
