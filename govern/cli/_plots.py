"""Plots of a fit's report as SVG elements: no script, no font and no file of somebody else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final
from xml.sax.saxutils import escape

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

#: Colours that keep apart for the colour-blind, too (Okabe and Ito).
COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_WIDTH: Final = 420.0
_HEIGHT: Final = 230.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 12.0, 12.0, 40.0
_SMALL: Final = (220.0, 92.0)
#: Bars of a histogram, and categories that are drawn by themselves: a bar is as wide as it can still be told apart.
BINS: Final = 36
MOST_BARS: Final = 12
#: Points of a quantile plot: more lie on each other.
_MOST_POINTS: Final = 200


def histogram(values: Floats) -> str:
    """Of (n,) finite numbers, on a small plot. The outermost 0.5 % on each side are counted in the end bars."""
    low, high = np.quantile(values, [0.005, 0.995])
    if high <= low:
        low, high = float(values.min()), float(values.max())
    counts, _ = np.histogram(np.clip(values, low, high), bins=BINS)
    return _bars(counts.astype(np.float64), [f"{low:.4g}", f"{high:.4g}"])


def frequencies(names: Sequence[str], counts: Floats) -> str:
    """Of the most frequent categories, on a small plot; the rest is one grey bar."""
    order = np.argsort(-counts, kind="stable")[:MOST_BARS]
    rest = float(counts.sum() - counts[order].sum())
    shown = [*counts[order].tolist(), *([rest] if rest > 0 else [])]
    titles = [*(names[place] for place in order), *(["others"] if rest > 0 else [])]
    ends = [titles[0], titles[-1]] if len(titles) > 1 else titles
    return _bars(np.array(shown), ends, titles=titles, gap=2.0, grey_last=rest > 0)


def curves(lines: Sequence[tuple[str, Sequence[tuple[float, float]]]], *, wanted: float, label: str, what: str) -> str:
    """Shares over amounts: one line for each name, of (amount, share) points with amounts from 0 on."""
    far = max((_far(points, wanted) for _, points in lines), default=1.0)
    parts = [_axes(label, f"share of {what} seen", far)]
    y = _y(wanted)
    parts.append(f'<line class="wanted" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
    for place, (name, points) in enumerate(lines):
        colour = COLOURS[place % len(COLOURS)]
        inside = [(amount, share) for amount, share in points if amount <= far]
        path = " ".join(f"{_x(amount / far):.1f},{_y(share):.1f}" for amount, share in inside)
        parts.append(f'<polyline class="line" stroke="{colour}" points="{path}"/>')
        parts.extend(
            f'<circle r="3" fill="{colour}" cx="{_x(amount / far):.1f}" cy="{_y(share):.1f}">'
            f"<title>{escape(name)}: {amount:.4g}, {share:.0%}</title></circle>"
            for amount, share in inside
        )
        parts.append(_named(name, colour, len(lines) - place))
    return _svg(_WIDTH, _HEIGHT, parts, f"power by {label}")


def quantiles(lines: Sequence[tuple[str, Sequence[float]]]) -> str:
    """p-values against those that are uniform: on the diagonal when the test keeps its level, above it when it is
    careful, below it when it alarms too often."""
    parts = [_axes("uniform quantile", "p-value", 1.0)]
    parts.append(f'<line class="wanted" x1="{_x(0)}" y1="{_y(0)}" x2="{_x(1)}" y2="{_y(1)}"/>')
    for place, (name, values) in enumerate(lines):
        colour = COLOURS[place % len(COLOURS)]
        levels = (np.arange(min(len(values), _MOST_POINTS)) + 0.5) / min(len(values), _MOST_POINTS)
        for level, value in zip(levels, np.quantile(np.asarray(values), levels), strict=True):
            parts.append(f'<circle r="1.8" fill="{colour}" cx="{_x(level):.1f}" cy="{_y(float(value)):.1f}"/>')
        parts.append(_named(name, colour, len(lines) - place))
    return _svg(_WIDTH, _HEIGHT, parts, "p-values of windows without change")


def _named(name: str, colour: str, above: int) -> str:
    """A line of the legend, in the lower right corner, where no curve goes that rises."""
    x, y = _WIDTH - _RIGHT - 90, _HEIGHT - _BOTTOM - 15 * above
    return (
        f'<rect x="{x}" y="{y - 1}" width="10" height="10" fill="{colour}"/>'
        f'<text x="{x + 15}" y="{y + 8}">{escape(name)}</text>'
    )


def _far(points: Sequence[tuple[float, float]], wanted: float) -> float:
    """Where a curve may end: with the first amount that is nearly always seen, beyond which nothing is to be told."""
    amounts = [amount for amount, share in points if share >= max(wanted, 0.97)]
    return min(amounts) if amounts else points[-1][0]


def _axes(across: str, up: str, far: float) -> str:
    x_of_end, base = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = [f'<path class="axis" d="M{_LEFT} {_TOP}V{base}H{x_of_end}"/>']
    parts.extend(
        f'<text class="end" x="{_LEFT - 6}" y="{_y(share) + 4:.1f}">{share:.1f}</text>'
        for share in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    )
    tens = 10 ** math.floor(math.log10(far))
    step = next(one for one in (tens / 5, tens / 2, tens, 2 * tens) if far / one <= 6)
    parts.extend(
        f'<text class="mid" x="{_x(place * step / far):.1f}" y="{base + 16}">{place * step:.3g}</text>'
        for place in range(int(far / step + 1e-9) + 1)
    )
    middle, aside = (_LEFT + x_of_end) / 2, (_TOP + base) / 2
    parts.append(f'<text class="mid name" x="{middle}" y="{_HEIGHT - 6}">{escape(across)}</text>')
    parts.append(f'<text class="mid name" transform="translate(11 {aside}) rotate(-90)">{escape(up)}</text>')
    return "".join(parts)


def _bars(
    counts: Floats, ends: Sequence[str], *, titles: Sequence[str] = (), gap: float = 0.0, grey_last: bool = False
) -> str:
    width, height = _SMALL
    base, each, most = height - 18.0, width / len(counts), max(float(counts.max()), 1.0)
    parts = []
    for place, count in enumerate(counts.tolist()):
        tall = (base - 4) * count / most
        colour = "#9ca3af" if grey_last and place == len(counts) - 1 else COLOURS[0]
        told = f"{titles[place]}: {count:,.0f}" if titles else f"{count:,.0f}"
        parts.append(
            f'<rect x="{place * each + gap / 2:.2f}" y="{base - tall:.2f}" width="{max(each - gap, 1):.2f}" '
            f'height="{tall:.2f}" fill="{colour}"><title>{escape(told)}</title></rect>'
        )
    parts.append(f'<path class="axis" d="M0 {base}H{width}"/>')
    parts.append(f'<text x="0" y="{height - 4}">{escape(_short(ends[0]))}</text>')
    if len(ends) > 1:
        parts.append(f'<text class="end" x="{width}" y="{height - 4}">{escape(_short(ends[-1]))}</text>')
    return _svg(width, height, parts, "values in the reference")


def _short(text: str) -> str:
    return text if len(text) <= 14 else f"{text[:13]}…"


def _svg(width: float, height: float, parts: Sequence[str], label: str) -> str:
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )


def _x(share: float) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * share


def _y(share: float) -> float:
    return _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * share
