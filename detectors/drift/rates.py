"""Missing values and unseen categories: not values to compare, but signals, each by the rate at which it comes."""

from __future__ import annotations

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
        return compare((self.before, self.rows), having(is_missing(window.columns[self.position])))

    def state(self) -> Array:
        return np.array([self.before, self.rows - self.before], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class UnseenRate:
    """Whether values that the schema does not list come as often as in the reference, which is never, as a rule."""

    signal: ClassVar[Signal] = "unseen"
    always_told: ClassVar[bool] = False
    statistic_name: ClassVar[str] = "rate"
    effect_size_name: ClassVar[str] = "rate_difference"

    position: int
    before: int
    rows: int

    @classmethod
    def of(cls, reference: Frame, position: int) -> Self:
        return cls(position, *having(reference.columns[position] == UNSEEN))

    @classmethod
    def read(cls, position: int, state: Array, feature: Feature) -> Self:
        return cls(position, *as_pair(state))

    def run(self, window: Frame, how: Settings) -> Outcome:
        return compare((self.before, self.rows), having(window.columns[self.position] == UNSEEN))

    def state(self) -> Array:
        return np.array([self.before, self.rows - self.before], dtype=np.int64)


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
