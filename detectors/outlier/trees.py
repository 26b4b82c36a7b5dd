"""Isolation trees as flat arrays."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from detectors.outlier.lockstep import Lockstep

if TYPE_CHECKING:
    from sklearn.ensemble import IsolationForest

#: In `feature`: this node is a leaf.
LEAF: Final = -1


@dataclass(frozen=True)
class Forest:
    """All nodes of all trees, one after the other, t trees and k nodes.

    Attributes:
        roots: (t,) int32, where each tree begins.
        feature: (k,) int32 column to compare, LEAF in a leaf.
        threshold: (k,) float64; left when the value, rounded to float32 as scikit-learn does, is <= it.
        left, right: (k,) int32 node numbers.
        length: (k,) float64; of a leaf, the path length that it stands for: its depth, and the expected depth of
            an isolation tree of the training rows that ended there. Of another node, the mean of its training rows'.
        normaliser: expected path length of a tree over one training sample, times t.
    """

    roots: npt.NDArray[np.int32]
    feature: npt.NDArray[np.int32]
    threshold: npt.NDArray[np.float64]
    left: npt.NDArray[np.int32]
    right: npt.NDArray[np.int32]
    length: npt.NDArray[np.float64]
    normaliser: float

    @classmethod
    def of(cls, forest: IsolationForest) -> Forest:
        """Compile a fitted scikit-learn forest, by its public tree arrays only."""
        roots, features, thresholds, lefts, rights, lengths = [], [], [], [], [], []
        start = 0
        for estimator, columns in zip(forest.estimators_, forest.estimators_features_, strict=True):
            tree = estimator.tree_
            leaf = tree.children_left < 0
            roots.append(start)
            features.append(np.where(leaf, LEAF, np.asarray(columns)[np.maximum(tree.feature, 0)]))
            thresholds.append(np.asarray(tree.threshold, dtype=np.float64))
            lefts.append(np.where(leaf, 0, tree.children_left + start))
            rights.append(np.where(leaf, 0, tree.children_right + start))
            lengths.append(_lengths(tree.children_left, tree.children_right, tree.n_node_samples))
            start += len(leaf)
        expected = average_path_length(np.array([forest.max_samples_]))[0]
        return cls(
            roots=np.array(roots, dtype=np.int32),
            feature=np.concatenate(features).astype(np.int32),
            threshold=np.concatenate(thresholds),
            left=np.concatenate(lefts).astype(np.int32),
            right=np.concatenate(rights).astype(np.int32),
            length=np.concatenate(lengths),
            normaliser=float(expected) * len(roots),
        )

    def scores(self, rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """(n, d) float64 without NaN -> (n,) float64 in (0, 1], 1 is strangest: scikit-learn's -score_samples."""
        total = self._lockstep.lengths(rows)
        return np.asarray(2.0 ** (-total / self.normaliser), dtype=np.float64)

    def parts(self, rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """By how much the cuts of each column shorten a row's paths: (n, d) float64 without NaN -> (n, d) float64.

        A cut shortens a path by the mean length of the training rows that come to it, less that of those that go the
        row's way. Summed over the columns it is what the row's paths are shorter than the mean ones, of all trees.

        References:
            Saabas (2014): Interpreting random forests. blog.datadive.net/interpreting-random-forests (of the mean
            answers along a path; here of the mean lengths).
        """
        return self._lockstep.shortened(rows)

    @cached_property
    def _lockstep(self) -> Lockstep:
        return Lockstep.of(self.roots, self.feature, self.threshold, self.left, self.right, self.length)


def average_path_length(n: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """Mean depth at which an unsuccessful search ends in a binary search tree over n values, elementwise.

    References:
        Liu, Ting, Zhou (2008): Isolation forest. ICDM, equation 1, with H(i) ~ ln(i) + Euler's constant.
    """
    size = np.maximum(n, 2).astype(np.float64)
    many = 2.0 * (np.log(np.maximum(size - 1.0, 1.0)) + np.euler_gamma) - 2.0 * (size - 1.0) / size
    return np.where(n <= 1, 0.0, np.where(n == 2, 1.0, many))


def _lengths(
    left: npt.NDArray[np.integer], right: npt.NDArray[np.integer], samples: npt.NDArray[np.integer]
) -> npt.NDArray[np.float64]:
    depth = np.zeros(len(left))
    for node in range(len(left)):  # scikit-learn numbers a parent before its children
        if left[node] >= 0:
            depth[left[node]] = depth[right[node]] = depth[node] + 1.0
    length = depth + average_path_length(samples)
    for node in reversed(range(len(left))):
        if left[node] >= 0:
            children = [left[node], right[node]]
            length[node] = np.average(length[children], weights=samples[children])
    return np.asarray(length, dtype=np.float64)
