"""Trees laid out so that several rows descend them at once, without a branch that the processor would have to guess."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from detectors.compiled import compiled

Nodes = npt.NDArray[np.uint32]
Singles = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

#: Rows that descend at once; the last few are filled up with zeros, which cost nothing beside the wait for memory.
_TOGETHER: Final = 8


@dataclass(frozen=True, slots=True)
class Lockstep:
    """All nodes of t trees, level by level, one tree after the other, k nodes.

    Attributes:
        roots: (t,) uint32.
        depths: (t,) int64, after how many steps each row is in a leaf.
        feature: (k,) uint32 column to compare, 0 in a leaf.
        threshold: (k,) float32, infinite in a leaf.
        child: (k,) uint32, where a value of at most the threshold goes; a larger one goes to the node after that.
            A leaf is its own.
        length: (k,) float64, of a leaf; of another node, the mean of those below it.
    """

    roots: Nodes
    depths: npt.NDArray[np.int64]
    feature: Nodes
    threshold: Singles
    child: Nodes
    length: Floats

    @classmethod
    def of(
        cls,
        roots: npt.NDArray[np.int32],
        feature: npt.NDArray[np.int32],
        threshold: Floats,
        left: npt.NDArray[np.int32],
        right: npt.NDArray[np.int32],
        length: Floats,
    ) -> Self:
        """Of the arrays of a `Forest`.

        Raises:
            ValueError: they are no trees, each of whose nodes is reached once.
        """
        leaf = feature < 0
        level: npt.NDArray[np.signedinteger] = roots
        trees = np.arange(len(roots))
        depths = np.zeros(len(roots), dtype=np.int64)
        levels, owners, seen = [], [], 0
        while len(level):
            levels.append(level)
            owners.append(trees)
            seen += len(level)
            if seen > len(feature):
                break
            inner = ~leaf[level]
            level, trees = level[inner], trees[inner]
            depths[trees] = len(levels)
            level, trees = np.stack((left[level], right[level]), axis=1).ravel(), np.repeat(trees, 2)
        order = np.concatenate(levels)
        order = order[np.argsort(np.concatenate(owners), kind="stable")]
        place = np.zeros(len(feature), dtype=np.int64)
        place[order] = np.arange(len(order))
        if len(order) != len(feature) or not np.array_equal(np.sort(order), np.arange(len(order))):
            raise ValueError("its trees are none")
        leaf = leaf[order]
        return cls(
            roots=place[roots].astype(np.uint32),
            depths=depths,
            feature=np.where(leaf, 0, feature[order]).astype(np.uint32),
            threshold=np.where(leaf, np.float32(np.inf), _at_most(threshold[order])),
            child=np.where(leaf, np.arange(len(order)), place[left[order]]).astype(np.uint32),
            length=length[order],
        )

    def lengths(self, rows: Floats) -> Floats:
        """(n, d) without NaN, within the range of float32 -> (n,), the lengths of each row's leaves, tree by tree."""
        n, width = rows.shape
        filled = np.zeros((-(-n // _TOGETHER) * _TOGETHER, width), dtype=np.float32)
        filled[:n] = rows
        return _walk(filled, self.roots, self.depths, self.feature, self.threshold, self.child, self.length)[:n]

    def shortened(self, rows: Floats) -> Floats:
        """(n, d) as in `lengths` -> (n, d), by how much the cuts of each column shorten each row's paths."""
        singles = rows.astype(np.float32)
        return _cut(singles, self.roots, self.depths, self.feature, self.threshold, self.child, self.length)


def _at_most(numbers: Floats) -> Singles:
    """The largest float32 that is at most each number: a float32 exceeds both or neither."""
    with np.errstate(over="ignore"):
        near = numbers.astype(np.float32)
        found: Singles = np.where(near > numbers, np.nextafter(near, np.float32(-np.inf)), near)
    return found


def _walk_rows(
    rows: Singles,
    roots: Nodes,
    depths: npt.NDArray[np.int64],
    feature: Nodes,
    threshold: Singles,
    child: Nodes,
    length: Floats,
) -> Floats:
    total = np.zeros(rows.shape[0])
    nodes = np.empty(_TOGETHER, dtype=np.uint32)
    for tree in range(len(roots)):  # tree by tree, so that one tree at a time stays in the processor's nearest cache
        for row in range(0, len(total), _TOGETHER):
            nodes[:] = roots[tree]
            for _ in range(depths[tree]):
                # While one waits for memory, the others go on: the compiler writes this loop out.
                for i in range(_TOGETHER):
                    node = nodes[i]
                    nodes[i] = child[node] + np.uint32(rows[row + i, feature[node]] > threshold[node])
            for i in range(_TOGETHER):
                total[row + i] += length[nodes[i]]
    return total


_walk = compiled(_walk_rows)


def _cut_rows(
    rows: Singles,
    roots: Nodes,
    depths: npt.NDArray[np.int64],
    feature: Nodes,
    threshold: Singles,
    child: Nodes,
    length: Floats,
) -> Floats:
    parts = np.zeros(rows.shape)
    for row in range(rows.shape[0]):
        for tree in range(len(roots)):
            node = roots[tree]
            for _ in range(depths[tree]):  # a leaf, which is its own child, adds nothing
                column = feature[node]
                below = child[node] + np.uint32(rows[row, column] > threshold[node])
                parts[row, column] += length[node] - length[below]
                node = below
    return parts


_cut = compiled(_cut_rows)
