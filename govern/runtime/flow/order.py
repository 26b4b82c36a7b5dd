"""The order of a graph's steps: the loops in it, and which step comes before which. Pure.

Steps that can reach each other are one **loop**. A loop is entered at the steps that read something from outside it; a
depth-first walk from there (entries and readers in the file's order) tells which edges lead *back*, to a step that the
walk is still in. Without those the steps of a loop are ordered as in a graph without cycles: one **pass** takes each of
them at most once, and what was returned over an edge that leads back belongs to the next pass.

Everything is ordered after what it reads and otherwise as the file has it; `govern.runtime.flow.engine` says what that
order decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from govern.pipeline.graph import Graph, Node, Topic, edges, reachable


@dataclass(frozen=True, slots=True)
class Loop:
    """Steps that a request can come back to.

    Attributes:
        nodes: in the order of one pass.
        back: (topic, reader) of the edges over which one pass hands on to the next.
        topics: all that they write.
    """

    nodes: tuple[Node, ...]
    back: frozenset[tuple[Topic, str]]
    topics: frozenset[Topic]


Unit = Node | Loop


def units(graph: Graph) -> tuple[Unit, ...]:
    """The steps and loops of a graph, each after all that it reads."""
    nodes = {node.name: node for node in graph.steps}
    place = {name: position for position, name in enumerate(nodes)}
    readers = {name: sorted(found & nodes.keys(), key=place.__getitem__) for name, found in edges(graph).items()}
    groups = _groups(nodes, readers)
    group_of = {name: group for group in groups for name in group}
    between = {group[0]: {group_of[one][0] for name in group for one in readers[name]} - {group[0]} for group in groups}
    order = _ordered(between, {group[0]: place[group[0]] for group in groups})
    return tuple(
        _loop(group_of[first], nodes, readers, place) if nodes[first].looped else nodes[first] for first in order
    )


def _groups(nodes: Mapping[str, Node], readers: Mapping[str, list[str]]) -> list[tuple[str, ...]]:
    """Names of steps that reach each other, each group and the groups in the file's order."""
    reached = {name: reachable(readers, name) for name in nodes}
    groups: list[tuple[str, ...]] = []
    for name in nodes:
        if not any(name in group for group in groups):
            groups.append((name, *(one for one in reached[name] if one != name and name in reached[one])))
    place = {name: position for position, name in enumerate(nodes)}
    return [tuple(sorted(group, key=place.__getitem__)) for group in groups]


def _loop(
    names: tuple[str, ...],
    nodes: Mapping[str, Node],
    readers: Mapping[str, list[str]],
    place: Mapping[str, int],
) -> Loop:
    inside = set(names)
    own = {name: [one for one in readers[name] if one in inside] for name in names}
    topics = frozenset(topic for name in names for topic in (nodes[name].takes, nodes[name].gives))
    entries = [name for name in names if any(port.topic not in topics for port in nodes[name].ports)]
    back = _leading_back(entries or names[:1], own)
    forward = {name: {one for one in own[name] if (name, one) not in back} for name in names}
    order = _ordered(forward, place)
    return Loop(
        nodes=tuple(nodes[name] for name in order),
        back=frozenset(
            (topic, reader) for writer, reader in back for topic in (nodes[writer].takes, nodes[writer].gives)
        ),
        topics=topics,
    )


def _leading_back(entries: Iterable[str], readers: Mapping[str, list[str]]) -> set[tuple[str, str]]:
    """The edges of a depth-first walk that lead to a step which it is still in."""
    back: set[tuple[str, str]] = set()
    done: set[str] = set()
    for entry in entries:
        path = [entry]
        left = {entry: list(reversed(readers[entry]))} if entry not in done else {}
        while left:
            name = path[-1]
            if not left[name]:
                done.add(path.pop())
                del left[name]
                continue
            reader = left[name].pop()
            if reader in left:
                back.add((name, reader))
            elif reader not in done:
                path.append(reader)
                left[reader] = list(reversed(readers[reader]))
    return back


def _ordered(readers: Mapping[str, set[str]], place: Mapping[str, int]) -> list[str]:
    """Each name before its readers, and otherwise by its place."""
    waiting = dict.fromkeys(readers, 0)
    for found in readers.values():
        for name in found:
            waiting[name] += 1
    ready = [(place[name], name) for name, count in waiting.items() if count == 0]
    heapify(ready)
    order: list[str] = []
    while ready:
        _, name = heappop(ready)
        order.append(name)
        for reader in readers[name]:
            waiting[reader] -= 1
            if waiting[reader] == 0:
                heappush(ready, (place[reader], reader))
    return order
