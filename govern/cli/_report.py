"""The page that `govern fit --report` writes: one file that needs no network and no script."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Final
from xml.sax.saxutils import escape

import numpy as np

from detectors.power import WANTED
from detectors.shifts import Unit
from govern import artifact, plugins
from govern.cli import _plots as plots
from govern.cli._power import SIGMA, Measured, bytes_text, columns, remarks, row
from govern.frame import MISSING, UNSEEN, Frame
from govern.schema import Feature

#: Features that are drawn: a page of more is slow, and nobody reads it.
MOST_FEATURES: Final = 100
_STYLE: Final = """
:root{color-scheme:light dark}body{background:#fff}
body{font:15px/1.5 system-ui,'DejaVu Sans',sans-serif;color:#111827;max-width:1180px;margin:2.5em auto;padding:0 1.5em}
h1{font-size:1.6em;margin:0}h2{font-size:1.15em;margin:2.4em 0 .6em}h3{font-size:1em;margin:1.6em 0 .3em}
p{margin:.4em 0;color:#374151}.faint{color:#6b7280}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.9em}
th{text-align:left;font-weight:600;border-bottom:2px solid #d1d5db;vertical-align:bottom}
th,td{padding:.35em 1.1em .35em 0}td{border-bottom:1px solid #e5e7eb}
.number{text-align:right}td.number{white-space:nowrap}
code{font:.88em ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace}
.plots{display:flex;flex-wrap:wrap;gap:1.2em}figure{margin:0}figcaption{font-size:.85em;color:#374151}
.features{display:grid;grid-template-columns:repeat(auto-fill,minmax(220px,1fr));gap:1.4em}
svg{max-width:100%;height:auto}
svg text{font:11px system-ui,'DejaVu Sans',sans-serif;fill:#374151}svg .end{text-anchor:end}svg .mid{text-anchor:middle}
svg .name{fill:#6b7280}.axis{fill:none;stroke:#9ca3af}.line{fill:none;stroke-width:2}
.wanted{stroke:#9ca3af;stroke-dasharray:4 4}
@media (prefers-color-scheme:dark){body{background:#111827;color:#f3f4f6}p,figcaption{color:#d1d5db}
.faint,p.faint{color:#9ca3af}
th{border-color:#4b5563}td{border-color:#374151}svg text{fill:#d1d5db}svg .name{fill:#9ca3af}
.axis,.wanted{stroke:#6b7280}.line,svg rect,svg circle{filter:brightness(1.35)}}
@media (max-width:600px){body{margin:1em auto;padding:0 1em}.features{grid-template-columns:1fr}}
@media print{body{margin:0;max-width:none}figure{break-inside:avoid}}
"""
_AMOUNTS: Final[dict[Unit, str]] = {"sigma": f"shift in {SIGMA} of one feature", "share": "share of rows that change"}


def page(measured: Sequence[Measured], reference: Frame, origin: str, rows_per_day: int) -> str:
    """The whole document.

    Args:
        origin: of the reference, in words.

    Raises:
        ArtifactError: one of the artifacts is gone.
    """
    model = escape(reference.schema.model)
    body = [
        f"<h1>Fit of the detectors of {model}</h1>",
        f"<p>From {escape(origin)}. Reference <code>{reference.digest[:16]}</code>, "
        f"schema <code>{reference.schema.digest[:16]}</code>.</p>",
        "<h2>Detectors</h2>",
        _table(
            ("step", "method", "parameters", "digest", "threshold", "fitted in", "artifact", "loaded"),
            [_step(one) for one in measured],
            numbers=4,
        ),
        "<p class=faint>Thresholds are p-values for drift, statistics where each row is looked at, else scores.</p>",
        "<h2>What they see, and how often they alarm for nothing</h2>",
        _table(columns(rows_per_day), list(_told(measured, rows_per_day)), numbers=2),
        f"<p class=faint>Of windows drawn from rows of the reference that were not learned from: the smallest change "
        f"of one feature of which {WANTED:.0%} are seen. False alarms are those that the parameters allow; where they "
        f"say nothing, those that were seen. Of what is seen without change it is the 95 % interval.</p>",
        *(f"<p class=faint>{escape(line)}.</p>" for line in remarks(measured)),
        *(_plots_of(one) for one in measured),
        "<h2>The reference</h2>",
        f'<div class="features">{"".join(_features(reference))}</div>',
    ]
    if len(reference.columns) > MOST_FEATURES:
        body.append(f"<p>{len(reference.columns) - MOST_FEATURES:,} more features are not drawn.</p>")
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Fit of the detectors of {model}</title><style>{_STYLE}</style></head>\n"
        f"<body>{chr(10).join(body)}</body></html>\n"
    )


def _step(one: Measured) -> tuple[str, ...]:
    manifest, _ = artifact.read(one.report.path, group=plugins.DETECTORS)
    params = ", ".join(f"{name}={json.dumps(value)}" for name, value in sorted(manifest.params.items()))
    return (
        one.report.step,
        one.report.method,
        params,
        one.report.digest[:12],
        f"{one.report.threshold:.4g}",
        f"{one.report.seconds:.2f} s",
        bytes_text(one.power.disk_bytes),
        bytes_text(one.power.loaded_bytes),
    )


def _told(measured: Sequence[Measured], rows_per_day: int) -> Iterator[tuple[str, ...]]:
    for one in measured:
        for sized in one.power.sized:
            cells = row(one, sized, rows_per_day)
            yield (*cells[:2], f"not measured: {sized.why_not}", *[""] * (len(cells) - 3)) if sized.why_not else cells


def _plots_of(one: Measured) -> str:
    figures = []
    what = "rows" if one.power.by_row else "windows"
    for unit, label in _AMOUNTS.items():
        lines = [
            ("rows" if one.power.by_row else f"{sized.rows:,} rows", curve.points)
            for sized in one.power.sized
            for curve in sized.curves
            if curve.unit == unit
        ]
        if lines:
            figures.append(
                (plots.curves(lines, wanted=WANTED, label=label, what=what), f"Share of changed {what} that are seen")
            )
    found = [(f"{sized.rows:,} rows", sized.p_values) for sized in one.power.sized if sized.p_values]
    if found:
        said = "p-values without change: below the line a test alarms too often"
        figures.append((plots.quantiles(found), said))
    if not figures:
        return ""
    drawn = "".join(f"<figure>{svg}<figcaption>{escape(said)}</figcaption></figure>" for svg, said in figures)
    return f'<h3>{escape(one.report.step)}</h3><div class="plots">{drawn}</div>'


def _features(reference: Frame) -> Iterator[str]:
    for feature, column in list(zip(reference.schema.features, reference.columns, strict=True))[:MOST_FEATURES]:
        drawn, missing = _drawn(feature, column)
        said = f"{feature.kind}{f', {missing:.1%} missing' if missing else ''}"
        title = f"<b>{escape(feature.words)}</b> <span class=faint>{said}</span>"
        yield f"<figure><figcaption>{title}</figcaption>{drawn}</figure>"


def _drawn(feature: Feature, column: np.typing.NDArray[np.generic]) -> tuple[str, float]:
    if feature.kind == "numeric":
        numbers = column.astype(np.float64)
        present = numbers[np.isfinite(numbers)]
        return plots.histogram(present) if len(present) else "", 1 - len(present) / len(numbers)
    if feature.kind == "categorical":
        codes = column.astype(np.int32)
        counts = np.bincount(codes[codes >= 0], minlength=len(feature.categories)).astype(np.float64)
        names = [feature.label(category) for category in feature.categories]
        if (unseen := int((codes == UNSEEN).sum())) > 0:
            counts, names = np.append(counts, unseen), [*names, "not in the schema"]
        return plots.frequencies(names, counts), float((codes == MISSING).mean())
    return "", 0.0


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: int) -> str:
    """Columns from `numbers` on are aligned to the right."""

    def cell(tag: str, place: int, text: str) -> str:
        return f"<{tag}{' class=number' if place >= numbers else ''}>{escape(text)}</{tag}>"

    head = "".join(cell("th", place, text) for place, text in enumerate(headings))
    body = "".join(f"<tr>{''.join(cell('td', place, text) for place, text in enumerate(cells))}</tr>" for cells in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
