"""A layered layout from left to right: what is read stands left of who reads it. Pure geometry, in pixels.

After Sugiyama: edges that close a cycle are set aside, a box's layer is the longest way to it, edges over several
layers pass between the boxes of those that they cross, and the order within a layer is that of the neighbours' mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from itertools import pairwise
from statistics import fmean
from typing import Final

Point = tuple[float, float]

#: Between columns: room for a line to bend, and for a few that come back to run side by side.
COLUMN_GAP: Final = 72.0
ROW_GAP: Final = 28.0
#: Between lines that come back below the boxes, and between their upright parts.
LANE_GAP: Final = 14.0
#: Height that an edge takes where it passes between boxes.
_PASS_HEIGHT: Final = 6.0
#: The order of layers has settled after fewer in any graph that a person reads.
_SWEEPS: Final = 12


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle; `ports` are the heights, from its top, at which edges come in on its left."""

    name: str
    width: float
    height: float
    ports: tuple[float, ...]
    leaves: float


@dataclass(frozen=True, slots=True)
class Edge:
    source: str
    target: str
    port: int


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything is.

    Attributes:
        places: box -> its upper left corner.
        lines: for each edge, the points that it passes from left to right.
        returns: edges that come back over a cycle; the points are the corners of their line.
    """

    places: Mapping[str, Point]
    lines: Mapping[Edge, tuple[Point, ...]]
    returns: Mapping[Edge, tuple[Point, ...]]
    width: float
    height: float


def layout(boxes: Sequence[Box], edges: Sequence[Edge]) -> Layout:
    """Place boxes and edges; the same for the same boxes and edges in the same order."""
    back = _back(boxes, edges)
    forward = [edge for edge in edges if edge not in back]
    layer = _layers(boxes, forward)
    sized = {box.name: box for box in boxes}
    chains = {edge: _chain(edge, layer) for edge in forward}
    for chain in chains.values():
        for name in chain[1:-1]:
            sized[name] = Box(name, 0, _PASS_HEIGHT, (_PASS_HEIGHT / 2,), _PASS_HEIGHT / 2)
    order = _ordered(sized, layer, chains)
    xs = _columns(order, sized)
    ys = _rows(order, sized, chains)
    places = {box.name: (xs[layer[box.name]], ys[box.name]) for box in boxes}
    lines = {edge: _line(chain, edge, sized, layer, xs, ys) for edge, chain in chains.items()}
    ends = [x + _width(column, layer, sized) for column, x in enumerate(xs)]
    bottom = max(places[box.name][1] + box.height for box in boxes)
    bottom = max([bottom, *(y for line in lines.values() for _, y in line)])
    returns: dict[Edge, tuple[Point, ...]] = {}
    for lane, edge in enumerate(sorted(back, key=lambda one: layer[one.source] - layer[one.target]), 1):
        source, target = sized[edge.source], sized[edge.target]
        (x_from, y_from), (x_to, y_to) = places[source.name], places[target.name]
        right, left, below = ends[layer[source.name]], x_to, bottom + ROW_GAP / 2 + lane * LANE_GAP
        aside = 10.0 + (lane % 4) * 7
        start, end = (x_from + source.width, y_from + source.leaves), (left, y_to + target.ports[edge.port])
        corners = ((right + aside, start[1]), (right + aside, below), (left - aside, below), (left - aside, end[1]))
        returns[edge] = (start, *corners, end)
    width = max(places[box.name][0] + box.width for box in boxes)
    rightmost = max((x for line in returns.values() for x, _ in line), default=0.0)
    lowest = max((y for line in returns.values() for _, y in line), default=0.0)
    return Layout(places, lines, returns, max(width, rightmost), max(bottom, lowest))


def _back(boxes: Sequence[Box], edges: Sequence[Edge]) -> set[Edge]:
    """The edges that lead back to a box which is on the way to them, looked at from the first box on."""
    leaving: dict[str, list[Edge]] = {box.name: [] for box in boxes}
    for one in edges:
        leaving[one.source].append(one)
    found: set[Edge] = set()
    state: dict[str, str] = {}
    for box in boxes:
        if box.name in state:
            continue
        stack = [(box.name, iter(leaving[box.name]))]
        state[box.name] = "open"
        while stack:
            name, rest = stack[-1]
            edge = next(rest, None)
            if edge is None:
                state[name] = "done"
                stack.pop()
            elif state.get(edge.target) == "open":
                found.add(edge)
            elif edge.target not in state:
                state[edge.target] = "open"
                stack.append((edge.target, iter(leaving[edge.target])))
    return found


def _layers(boxes: Sequence[Box], edges: Sequence[Edge]) -> dict[str, int]:
    before: dict[str, list[str]] = {box.name: [] for box in boxes}
    for edge in edges:
        before[edge.target].append(edge.source)
    layer: dict[str, int] = {}
    for name in TopologicalSorter(before).static_order():
        layer[name] = max((layer[one] + 1 for one in before[name]), default=0)
    return layer


def _chain(edge: Edge, layer: dict[str, int]) -> tuple[str, ...]:
    """The edge's ends, and between them a name for each layer that it passes, which is noted in `layer`."""
    passed = {
        f"{edge.source}>{edge.target}>{edge.port}>{at}": at for at in range(layer[edge.source] + 1, layer[edge.target])
    }
    layer.update(passed)
    return edge.source, *passed, edge.target


def _ordered(
    sized: Mapping[str, Box], layer: Mapping[str, int], chains: Mapping[Edge, Sequence[str]]
) -> list[list[str]]:
    order: list[list[str]] = [[] for _ in range(1 + max(layer.values()))]
    for name in sized:
        order[layer[name]].append(name)
    pairs = [(left, right) for chain in chains.values() for left, right in pairwise(chain)]
    best, fewest = [list(row) for row in order], _crossings(order, pairs)
    for sweep in range(_SWEEPS):
        forwards = sweep % 2 == 0
        at = {name: position for row in order for position, name in enumerate(row)}
        for row in order if forwards else reversed(order):
            near: dict[str, list[int]] = {name: [] for name in row}
            for left, right in pairs:
                name, other = (right, left) if forwards else (left, right)
                if name in near:
                    near[name].append(at[other])
            mean = {name: fmean(near[name]) if near[name] else float(at[name]) for name in row}
            row.sort(key=lambda name, mean=mean: mean[name])  # type: ignore[misc]
            at.update({name: position for position, name in enumerate(row)})
        crossings = _crossings(order, pairs)
        if crossings < fewest:
            best, fewest = [list(row) for row in order], crossings
    return best


def _crossings(order: Sequence[Sequence[str]], pairs: Sequence[tuple[str, str]]) -> int:
    at = {name: (column, position) for column, row in enumerate(order) for position, name in enumerate(row)}
    found = 0
    for column in range(len(order)):
        ends = sorted((at[left][1], at[right][1]) for left, right in pairs if at[left][0] == column)
        found += sum(one[0] < two[0] and one[1] > two[1] for i, one in enumerate(ends) for two in ends[i + 1 :])
    return found


def _columns(order: Sequence[Sequence[str]], sized: Mapping[str, Box]) -> list[float]:
    xs, x = [], 0.0
    for row in order:
        xs.append(x)
        x += max(sized[name].width for name in row) + COLUMN_GAP
    return xs


def _rows(
    order: Sequence[Sequence[str]], sized: Mapping[str, Box], chains: Mapping[Edge, Sequence[str]]
) -> dict[str, float]:
    """The top of each box: as near to the height of its neighbours as the boxes above it allow."""
    wishes: dict[str, list[tuple[str, float]]] = {name: [] for name in sized}
    for edge, chain in chains.items():
        for left, right in pairwise(chain):
            comes_in = sized[right].ports[edge.port if right == edge.target else 0]
            wishes[right].append((left, sized[left].leaves - comes_in))
            wishes[left].append((right, comes_in - sized[left].leaves))
    ys: dict[str, float] = {}
    for row in order:
        y = 0.0
        for name in row:
            ys[name] = y
            y += sized[name].height + ROW_GAP
    for sweep in range(_SWEEPS):
        for row in order if sweep % 2 == 0 else reversed(order):
            wished = [
                fmean([ys[other] + offset for other, offset in wishes[name]]) if wishes[name] else ys[name]
                for name in row
            ]
            taken: list[float] = []
            for above, wish in zip(["", *row[:-1]], wished, strict=True):
                free = taken[-1] + sized[above].height + ROW_GAP if taken else wish
                taken.append(max(wish, free))
            # Those below were pushed down by those above: the whole row gives way by the mean.
            shift = fmean(got - wish for got, wish in zip(taken, wished, strict=True))
            ys.update({name: got - shift for name, got in zip(row, taken, strict=True)})
    top = min(ys.values())
    return {name: y - top for name, y in ys.items()}


def _line(
    chain: Sequence[str],
    edge: Edge,
    sized: Mapping[str, Box],
    layer: Mapping[str, int],
    xs: Sequence[float],
    ys: Mapping[str, float],
) -> tuple[Point, ...]:
    source, target = sized[chain[0]], sized[chain[-1]]
    start, y = xs[layer[source.name]], ys[source.name] + source.leaves
    # Straight to the end of the column first, so that it does not bend behind a wider box.
    points = [(start + source.width, y), (start + _width(layer[source.name], layer, sized), y)]
    for name in chain[1:-1]:
        column = layer[name]
        y = ys[name] + sized[name].leaves
        points += [(xs[column], y), (xs[column] + _width(column, layer, sized), y)]
    points.append((xs[layer[target.name]], ys[target.name] + target.ports[edge.port]))
    return tuple(points)


def _width(column: int, layer: Mapping[str, int], sized: Mapping[str, Box]) -> float:
    return max(box.width for box in sized.values() if layer[box.name] == column)
