"""Missing values and unseen categories: not values to compare, but signals, each by the rate at which it comes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from detectors.base import Array
from detectors.drift.feature_test import FeatureTest, Settings, Signal
from detectors.drift.fisher import Alternative, fisher_p
from detectors.drift.univariate import Outcome
from govern.frame import MISSING, UNSEEN, Frame
from govern.schema import Feature


@dataclass(frozen=True, slots=True)
class MissingRate:
    """Whether values are missing as often as in the reference, by Fisher's exact test; the statistic is the rate."""

    signal: ClassVar[Signal] = "missing"
    always_told: ClassVar[bool] = False
    statistic_name: ClassVar[str] = "rate"
    effect_size_name: ClassVar[str] = "rate_difference"

    position: int
    before: int
    rows: int

    @classmethod
    def of(cls, reference: Frame, position: int) -> Self:
        return cls(position, *having(is_missing(reference.columns[position])))

    @classmethod
    def read(cls, position: int, state: Array, feature: Feature) -> Self:
        return cls(position, *as_pair(state))

    def run(self, window: Frame, how: Settings) -> Outcome:
        return self.told(*having(is_missing(window.columns[self.position])))

    def told(self, seen: int, n: int) -> Outcome:
        """Of a window of n rows."""
        return compare((self.before, self.rows), (seen, n))

    def state(self) -> Array:
        return np.array([self.before, self.rows - self.before], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class UnseenRate:
    """Whether values that the schema does not list come as often as in the reference, which is never, as a rule.

    Attributes:
        once, twice: what `seldom` says of the reference.
    """

    signal: ClassVar[Signal] = "unseen"
    always_told: ClassVar[bool] = False
    statistic_name: ClassVar[str] = "rate"
    effect_size_name: ClassVar[str] = "rate_difference"

    position: int
    before: int
    rows: int
    once: int = 0
    twice: int = 0

    @classmethod
    def of(cls, reference: Frame, position: int) -> Self:
        return cls(position, *having(reference.columns[position] == UNSEEN), *seldom(reference, position))

    @classmethod
    def read(cls, position: int, state: Array, feature: Feature) -> Self:
        return cls(position, *as_pair(state[:2]), *as_seldom(state))

    def run(self, window: Frame, how: Settings) -> Outcome:
        return self.told(*having(window.columns[self.position] == UNSEEN))

    def told(self, seen: int, n: int) -> Outcome:
        """Of a window of n rows."""
        return compare_new((self.before, self.rows), (seen, n), (self.once, self.twice))

    def state(self) -> Array:
        return np.array([self.before, self.rows - self.before, self.once, self.twice], dtype=np.int64)


def with_signals(test: FeatureTest, reference: Frame, *, signals: bool) -> Iterator[FeatureTest]:
    """The test of a feature's values, and when `signals`, those of the rates at which it is missing and unseen.

    Each is a test of its own that the correction counts; its result names the feature and the signal.
    """
    yield test
    if signals:
        yield MissingRate.of(reference, test.position)
        if reference.schema.features[test.position].kind == "categorical":
            yield UnseenRate.of(reference, test.position)


def is_missing(column: Array) -> Array:
    """(n,) bool of a column of any kind; of an embedding or an image, whether any number is missing."""
    if column.dtype == object:
        return np.array([value is None for value in column.tolist()], dtype=bool)
    missing: Array = np.isnan(column) if column.dtype.kind == "f" else column == MISSING
    return missing if missing.ndim == 1 else np.asarray(missing.any(axis=tuple(range(1, missing.ndim))))


def having(rows: Array) -> tuple[int, int]:
    """How many of (n,) bool are true, and n."""
    return int(np.count_nonzero(rows)), len(rows)


def as_pair(state: Array) -> tuple[int, int]:
    """What `having` gave, of (2,) int64: rows that have it, and that have it not."""
    if state.dtype != np.int64 or state.shape != (2,) or (state < 0).any():
        raise ValueError("it holds no two counts")
    return int(state[0]), int(state.sum())


def compare(reference: tuple[int, int], window: tuple[int, int], *, alternative: Alternative = "two-sided") -> Outcome:
    """Fisher's test of what `having` gave."""
    (before, m), (seen, n) = reference, window
    if before == seen == 0:
        return Outcome(0.0, 1.0, 0.0, n)
    rate = seen / n
    return Outcome(rate, fisher_p(seen, n, before, m, alternative=alternative), abs(rate - before / m), n)


def seldom(reference: Frame, position: int) -> tuple[int, int]:
    """How many categories the reference has once, and twice; (0, 0) where the schema lists other ones than it has.

    A schema that lists just what the reference has was learned from it, and what it does not list is what the draw of
    the reference left out: rare categories come again and again that it has not seen.
    """
    categories = reference.schema.features[position].categories
    column: Array = reference.columns[position]
    counts = np.bincount(column[np.greater_equal(column, 0)], minlength=len(categories))
    if (counts == 0).any() or np.equal(column, UNSEEN).any():
        return 0, 0
    return int(np.count_nonzero(counts == 1)), int(np.count_nonzero(counts == 2))


def as_seldom(state: Array) -> tuple[int, int]:
    """What `seldom` gave, of the (4,) int64 state of a test; of (2,), which an earlier release wrote, (0, 0)."""
    if state.shape == (2,):
        return 0, 0
    if state.dtype != np.int64 or state.shape != (4,) or np.less(state, 0).any():
        raise ValueError("it holds no four counts")
    return int(state[2]), int(state[3])


def compare_new(
    reference: tuple[int, int],
    window: tuple[int, int],
    seldom: tuple[int, int],
    *,
    alternative: Alternative = "two-sided",
) -> Outcome:
    """As `compare`, of values that the schema does not list; of one learned from the reference, by what that lacks.

    Were one more row drawn, it would be of a category that no other has with the probability of (f1 + 1) / (m + 1) at
    most, about: f1 of m rows were (Good, Turing). So f1 + 1 rows stand for those that the reference would have had.
    New rows come in clusters where a category has several of the window: of f2 categories that come twice their mean
    size is some 1 + 2 (n / m) f2 / (f1 + 1), and so many rows count as one. Then the test is Fisher's, one-sided; it is
    not exact any more. With neither f1 nor f2 the reference has all that there is, and the test is as it was.

    Args:
        seldom: (f1, f2), categories that the reference has once, and twice.

    References:
        Good (1953): The population frequencies of species and the estimation of population parameters. Biometrika 40,
        237-264.
    """
    (_, m), (seen, n), (once, twice) = reference, window, seldom
    if seen == 0 or not (once or twice):
        return compare(reference, window, alternative=alternative)
    lacked = min(once + 1, m)
    together = 1.0 + 2.0 * n / m * twice / lacked
    clusters = int(seen / together)
    p_value = fisher_p(clusters, math.ceil(n / together), lacked, m, alternative="greater") if clusters else 1.0
    return Outcome(seen / n, p_value, seen / n, n)
