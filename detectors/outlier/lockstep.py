"""Trees laid out so that several rows descend them at once, without a branch that the processor would have to guess."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from detectors.compiled import compiled

Nodes = npt.NDArray[np.uint32]
Singles = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]


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
        length: (k,) float64, of a leaf.
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

    def lengths(self, rows: Singles) -> Floats:
        """(n, d) float32 without NaN -> (n,) float64, the lengths of each row's leaves, added up tree by tree."""
        return _walk(rows, self.roots, self.depths, self.feature, self.threshold, self.child, self.length)


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
    n = rows.shape[0]
    total = np.zeros(n)
    together = n - n % 4
    for tree in range(len(roots)):  # tree by tree, so that one tree at a time stays in the processor's nearest cache
        root = roots[tree]
        # While one of four waits for memory, the others go on.
        for row in range(0, together, 4):
            first, second, third, fourth = rows[row], rows[row + 1], rows[row + 2], rows[row + 3]
            a = b = c = d = root
            for _ in range(depths[tree]):
                a = child[a] + np.uint32(first[feature[a]] > threshold[a])
                b = child[b] + np.uint32(second[feature[b]] > threshold[b])
                c = child[c] + np.uint32(third[feature[c]] > threshold[c])
                d = child[d] + np.uint32(fourth[feature[d]] > threshold[d])
            total[row] += length[a]
            total[row + 1] += length[b]
            total[row + 2] += length[c]
            total[row + 3] += length[d]
        for row in range(together, n):
            node, last = root, root
            for _ in range(depths[tree]):
                node = child[last] + np.uint32(rows[row, feature[last]] > threshold[last])
                if node == last:
                    break
                last = node
            total[row] += length[node]
    return total


_walk = compiled(_walk_rows)
