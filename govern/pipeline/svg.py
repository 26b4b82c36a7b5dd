"""The drawing of pipelines as one SVG: a box for each step, a line for each reference, a row where it is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from govern.pipeline.graph import Graph, Node, Port
from govern.pipeline.layout import Box, Edge, Layout, Point, layout
from govern.pipeline.said import port_text, seconds, what
from govern.pipeline.spec import JoinType

#: A character of each font in pixels, at most: nothing on the machine that draws knows the fonts of the one that shows.
_NAME_PX: Final = 9.0
_TEXT_PX: Final = 6.7
_NAME_HEIGHT: Final = 26.0
_ROW_HEIGHT: Final = 18.0
_PAD: Final = 12.0
_MARGIN: Final = 24.0
_TITLE_HEIGHT: Final = 34.0
#: Longer texts are cut in the middle; the whole text shows when it is pointed at.
_CHARS_MAX: Final = 44
_WIDTH_MIN: Final = 120.0

#: Colours that keep apart for the colour-blind, too (Okabe and Ito); the role stands in words as well.
_COLOURS: Final = {
    "detector": "#cc79a7",
    "explainer": "#009e73",
    "model": "#0072b2",
    "transformer": "#56b4e9",
    "router": "#e69f00",
    "combiner": "#d55e00",
    "input": "#6b7280",
    "output": "#6b7280",
}
_JOINS: Final[dict[JoinType, str]] = {"inner": "all of", "any": "the first of", "outer": "what comes within {} of"}
_STYLE: Final = (
    "text{font:11px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:#374151}"
    ".title{font:600 16px system-ui,'DejaVu Sans',sans-serif;fill:#111827}"
    ".name{font:600 14px system-ui,'DejaVu Sans',sans-serif;fill:#111827}"
    ".faint{fill:#6b7280;font-style:italic}"
    ".box{fill:#fff;stroke:#d1d5db}.line{fill:none;stroke:#6b7280;stroke-width:1.5}"
    ".when{stroke-dasharray:5 4}.return{stroke:#d55e00}"
)


@dataclass(frozen=True, slots=True)
class _Row:
    """A line of text in a box; `port` is where an edge comes in, when one does."""

    text: str
    style: str = ""
    port: Port | None = None
    trigger: bool = False


def svg(graphs: Sequence[Graph]) -> str:
    """One picture of all graphs, below each other."""
    body: list[str] = []
    width, y = 0.0, _MARGIN
    for one in graphs:
        drawn = _Drawing(one)
        body += [f'<g transform="translate({_MARGIN:g} {y:g})">', *drawn.elements(), "</g>"]
        width = max(width, drawn.width)
        y += drawn.height + _MARGIN
    width += 2 * _MARGIN
    label = quoteattr(f"pipeline {', '.join(one.name for one in graphs)}")
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{y:.0f}" '
            f'viewBox="0 0 {width:.0f} {y:.0f}" role="img" aria-label={label}>',
            f"<style>{_STYLE}</style>",
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            '<path d="M0 0L8 4L0 8z" fill="context-stroke"/></marker></defs>',
            f'<rect width="{width:.0f}" height="{y:.0f}" fill="#f9fafb"/>',
            *body,
            "</svg>\n",
        ]
    )


class _Drawing:
    """One graph. Boxes are named as nodes are, and the pipeline's inputs, where no node gives them, as the pipeline."""

    def __init__(self, one: Graph) -> None:
        self._graph = one
        self._rows = {node.name: _rows(node) for node in one.nodes}
        if one.writer(one.entry) is None:
            self._rows = {one.name: [_Row("what the pipeline is given")], **self._rows}
        self._roles = {node.name: str(node.role) for node in one.nodes}
        boxes = [_box(name, rows) for name, rows in self._rows.items()]
        self._boxes = {box.name: box for box in boxes}
        self._triggers: set[Edge] = set()
        self._layout: Layout = layout(boxes, list(self._edges()))
        self.width = max(self._layout.width, _NAME_PX * len(one.name))
        self.height = self._layout.height + _TITLE_HEIGHT

    def _edges(self) -> Iterator[Edge]:
        for name, rows in self._rows.items():
            for position, row in enumerate(rows):
                if row.port is None:
                    continue
                writer = self._graph.writer(row.port.topic)
                if writer is None and row.port.topic != self._graph.entry:
                    continue  # another pipeline's
                edge = Edge(writer.name if writer is not None else self._graph.name, name, position)
                if row.trigger:
                    self._triggers.add(edge)
                yield edge

    def elements(self) -> Iterator[str]:
        yield f'<text class="title" y="14">{escape(self._graph.name)}</text>'
        yield f'<g transform="translate(0 {_TITLE_HEIGHT:g})">'
        for edge, points in self._layout.lines.items():
            yield self._line(edge, _curve(points))
        for edge, points in self._layout.returns.items():
            yield self._line(edge, _corners(points), " return")
        for name, rows in self._rows.items():
            yield from self._box(name, rows)
        yield "</g>"

    def _line(self, edge: Edge, path: str, style: str = "") -> str:
        style += " when" if edge in self._triggers else ""
        return f'<path class="line{style}" marker-end="url(#tip)" d="{path}"/>'

    def _box(self, name: str, rows: Sequence[_Row]) -> Iterator[str]:
        box = self._boxes[name]
        x, y = self._layout.places[name]
        yield f'<g transform="translate({x:.1f} {y:.1f})">'
        yield f'<rect class="box" width="{box.width:.1f}" height="{box.height:.1f}" rx="6"/>'
        colour = _COLOURS[self._roles.get(name, "input")]
        yield f'<path d="M0 6a6 6 0 0 1 6-6h0v{box.height:.1f}h0a6 6 0 0 1-6-6z" fill="{colour}"/>'
        title = f"{name}.inputs" if name == self._graph.name else name.strip("<>")
        yield f'<text class="name" x="{_PAD + 4:g}" y="19">{_cut(title)}</text>'
        for position, row in enumerate(rows):
            style = f' class="{row.style}"' if row.style else ""
            yield f'<text{style} x="{_PAD + 4:g}" y="{_row_y(position) + 4:.1f}">{_cut(row.text)}</text>'
        yield "</g>"


def _rows(node: Node) -> list[_Row]:
    rows = [_Row(text) for text in what(node).split(" · ")] if node.step is not None else [_Row(what(node))]
    for ports, join, trigger in ((node.inputs, node.inputs_join, False), (node.triggers, node.triggers_join, True)):
        if not ports:
            continue
        head = "when there is" if trigger else "reads"
        if len(ports) > 1:
            head = f"{head} {_JOINS[join].format(seconds(node.window_ms))}"
        rows.append(_Row(head, "faint"))
        rows += [_Row(port_text(port), "", port, trigger) for port in ports]
    return rows


def _box(name: str, rows: Sequence[_Row]) -> Box:
    texts = [_shown(row.text) for row in rows]
    widest = max(_TEXT_PX * len(text) for text in texts)
    width = max(_WIDTH_MIN, 2 * _PAD + 4 + max(widest, _NAME_PX * min(len(f"{name}.inputs"), _CHARS_MAX)))
    height = _row_y(len(rows)) - _ROW_HEIGHT / 2 + _PAD / 2
    return Box(name, width, height, tuple(_row_y(position) for position in range(len(rows))), _NAME_HEIGHT / 2 + 2)


def _row_y(position: int) -> float:
    """The middle of a row, from the top of the box."""
    return _NAME_HEIGHT + _ROW_HEIGHT * (position + 0.5)


def _shown(text: str) -> str:
    if len(text) <= _CHARS_MAX:
        return text
    half = (_CHARS_MAX - 1) // 2
    return f"{text[:half]}…{text[-half:]}"


def _cut(text: str) -> str:
    shown = escape(_shown(text))
    return shown if len(text) <= _CHARS_MAX else f"{shown}<title>{escape(text)}</title>"


def _curve(points: Sequence[Point]) -> str:
    """Bends between columns; straight across the columns that the line passes."""
    path = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for position, (x, y) in enumerate(points[1:], 1):
        before_x, before_y = points[position - 1]
        middle = (before_x + x) / 2
        straight = before_y == y
        path += (
            f"L{x:.1f} {y:.1f}" if straight else f"C{middle:.1f} {before_y:.1f} {middle:.1f} {y:.1f} {x:.1f} {y:.1f}"
        )
    return path


def _corners(points: Sequence[Point]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
