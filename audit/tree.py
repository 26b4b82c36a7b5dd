"""The growing Merkle tree: which nodes are stored, how leaves are added, which nodes a proof is made of.

Only *complete* subtrees are stored: node (level, number) is the root over the leaves
`[number << level, (number + 1) << level)`; level 0 is the leaf hashes. Such a node never changes once written, so
the store is append-only, n appended leaves write fewer than n nodes above them, and every proof is made of
O(log size) stored nodes.

>>> from audit.merkle import leaf_hash
>>> frontier, written = Frontier().append([leaf_hash(b""), leaf_hash(b"\\x00")])
>>> frontier.size, [node for node, _ in written]
(2, [Node(level=1, number=0)])
>>> frontier.root().hex()[:16]
'fac54203e7cc696c'
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import msgspec

from audit.merkle import EMPTY_ROOT, node_hash


class Node(NamedTuple):
    """Number `number` from the left, of the complete subtrees with 2 ** level leaves."""

    level: int
    number: int


class Span(NamedTuple):
    """The leaves `[start, end)`."""

    start: int
    end: int


class Frontier(msgspec.Struct, frozen=True):
    """The right edge of a tree: its size, and the hashes of the complete subtrees that it falls into.

    `hashes` runs from the largest subtree to the smallest, one for each set bit of `size`: all that is needed to
    add leaves and to know the root.
    """

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    def append(self, leaves: Iterable[bytes]) -> tuple[Frontier, list[tuple[Node, bytes]]]:
        """Add leaf hashes; returns the new edge and the nodes above level 0 that became complete."""
        size = self.size
        hashes = list(self.hashes)
        written: list[tuple[Node, bytes]] = []
        for leaf in leaves:
            hashes.append(leaf)
            level, number = 0, size
            while number & 1:
                right = hashes.pop()
                level, number = level + 1, number >> 1
                hashes[-1] = node_hash(hashes[-1], right)
                written.append((Node(level, number), hashes[-1]))
            size += 1
        return Frontier(size, tuple(hashes)), written

    def root(self) -> bytes:
        return fold(self.hashes)


def fold(hashes: Sequence[bytes]) -> bytes:
    """The root over neighbouring complete subtrees, largest first."""
    if not hashes:
        return EMPTY_ROOT
    root = hashes[-1]
    for left in reversed(hashes[:-1]):
        root = node_hash(left, root)
    return root


def cover(span: Span) -> tuple[Node, ...]:
    """The complete subtrees that make up a span whose start is aligned to its size, largest first."""
    nodes: list[Node] = []
    start = span.start
    while start < span.end:
        level = (span.end - start).bit_length() - 1
        nodes.append(Node(level, start >> level))
        start += 1 << level
    return tuple(nodes)


def inclusion_spans(index: int, size: int) -> tuple[Span, ...]:
    """The subtrees whose roots are the inclusion proof of leaf `index`, in proof order (RFC 9162 2.1.3.1)."""
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} is not in a tree of {size}")
    spans: list[Span] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            spans.append(Span(middle, end))
            end = middle
        else:
            spans.append(Span(start, middle))
            start = middle
    return tuple(reversed(spans))


def consistency_spans(first: int, second: int) -> tuple[Span, ...]:
    """The subtrees whose roots are the consistency proof between two sizes, in proof order (RFC 9162 2.1.4.1)."""
    if not 0 <= first <= second:
        raise ValueError(f"a tree of {first} is no prefix of a tree of {second}")
    if first in (0, second):
        return ()
    spans: list[Span] = []
    start, end = 0, second
    while first != end:
        middle = start + _split(end - start)
        if first <= middle:
            spans.append(Span(middle, end))
            end = middle
        else:
            spans.append(Span(start, middle))
            start = middle
    if start > 0:  # the first tree is not itself this subtree: the verifier cannot know its hash
        spans.append(Span(start, end))
    return tuple(reversed(spans))


def proof(spans: Sequence[Span], read: Callable[[Sequence[Node]], Sequence[bytes]]) -> tuple[bytes, ...]:
    """The hashes of spans, of stored nodes read in one call (`read` answers in the order that it is asked)."""
    covers = [cover(span) for span in spans]
    hashes = iter(read([node for nodes in covers for node in nodes]))
    return tuple(fold([next(hashes) for _ in nodes]) for nodes in covers)


def _split(n: int) -> int:
    """The largest power of two smaller than n, for n > 1."""
    return 1 << ((n - 1).bit_length() - 1)
