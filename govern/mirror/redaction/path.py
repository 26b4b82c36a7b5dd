"""Paths into JSON documents.

`a.b` is the field b of a's object; `*` every field or item, `**` any depth, `[3]` or `.3` one item. A name that
meets a list looks into each of its items, so `messages.content` needs no star. Names with dots or brackets are
written as `["a.b"]`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

Path = tuple[str, ...]
ANY: Final = "*"
DEEP: Final = "**"

_TENSORS: Final = frozenset({"inputs", "outputs", "raw_input_contents", "raw_output_contents", ANY, DEEP})
_ELEMENTS: Final = frozenset({*_TENSORS, "data", "contents"})
_STEP: Final = re.compile(
    r"""\.?(?:(?P<name>[^.\[\]"']+)|\[(?P<index>\d+|\*)\]|\[(?P<q>["'])(?P<quoted>.+?)(?P=q)\])"""
)


def parse_path(text: str) -> Path:
    """The steps of a path; a leading `$.` is allowed.

    Raises:
        ValueError: it is none.
    """
    steps: list[str] = []
    rest = text.removeprefix("$").removeprefix(".") if text.startswith("$") else text
    at = 0
    while at < len(rest):
        match = _STEP.match(rest, at)
        if match is None or (at == 0 and rest[0] == "."):
            raise ValueError(f"no path from character {at} on: {text!r}; write a.b, a[0].b, a.*.b or **.b")
        steps.append(match["name"] or match["index"] or match["quoted"])
        at = match.end()
    if not steps or steps[-1] == DEEP:
        raise ValueError(f"{text!r} names no field: end it with one")
    if steps.count(DEEP) > 1:
        raise ValueError(f"{text!r} has more than one **, which would find a value twice")
    return tuple(steps)


def may_reach_elements(path: Path) -> bool:
    """Whether a path may lead to a V2 tensor's elements, which have no names of their own."""
    last = path[-1]
    return path[0] in _TENSORS and (last in _ELEMENTS or last.isdecimal() or last.endswith("_contents"))


def rewrite(node: object, path: Path, change: Callable[[object], object]) -> None:
    """Replace every value at `path` below `node`, in place."""
    step, rest = path[0], path[1:]
    if step == DEEP:
        if isinstance(node, dict) or rest[0] == ANY or rest[0].isdecimal():
            rewrite(node, rest, change)  # a list's items come as children
        for child in list(_children(node)):
            rewrite(child, path, change)
    elif isinstance(node, dict):
        for name in list(node) if step == ANY else [step] if step in node else []:
            node[name] = _changed(node[name], rest, change)
    elif isinstance(node, list):
        if step == ANY or step.isdecimal():
            places = range(len(node)) if step == ANY else [int(step)] if int(step) < len(node) else []
            for place in places:
                node[place] = _changed(node[place], rest, change)
        else:
            for item in node:
                rewrite(item, path, change)


def _changed(value: object, rest: Path, change: Callable[[object], object]) -> object:
    if not rest:
        return change(value)
    rewrite(value, rest, change)
    return value


def _children(node: object) -> Iterator[object]:
    if isinstance(node, dict):
        yield from node.values()
    elif isinstance(node, list):
        yield from node
