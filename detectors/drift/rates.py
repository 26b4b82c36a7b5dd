"""Missing values and unseen categories: not values to compare, but signals, each by the rate at which it comes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from detectors.base import Array
from detectors.drift.feature_test import Settings, Signal
from detectors.drift.fisher import fisher_p
from detectors.drift.univariate import Counts, Outcome
from govern.frame import MISSING, UNSEEN, Frame


@dataclass(frozen=True, slots=True)
class MissingRate:
    """Whether values are missing as often as in the reference, by Fisher's exact test; the statistic is the rate."""

    signal: ClassVar[Signal] = "missing"
    statistic_name: ClassVar[str] = "rate"
    effect_size_name: ClassVar[str] = "rate_difference"

    position: int
    counts: Counts

    @classmethod
    def of(cls, reference: Frame, position: int) -> Self:
        return cls(position, _counts(is_missing(reference.columns[position])))

    @classmethod
    def read(cls, position: int, state: Array, n_categories: int) -> Self:
        return cls(position, _as_counts(state))

    def run(self, column: Array, how: Settings) -> Outcome:
        return _compare(self.counts, _counts(is_missing(column)))

    def state(self) -> Array:
        return self.counts


@dataclass(frozen=True, slots=True)
class UnseenRate:
    """Whether values that the schema does not list come as often as in the reference, which is never, as a rule."""

    signal: ClassVar[Signal] = "unseen"
    statistic_name: ClassVar[str] = "rate"
    effect_size_name: ClassVar[str] = "rate_difference"

    position: int
    counts: Counts

    @classmethod
    def of(cls, reference: Frame, position: int) -> Self:
        return cls(position, _counts(reference.columns[position] == UNSEEN))

    @classmethod
    def read(cls, position: int, state: Array, n_categories: int) -> Self:
        return cls(position, _as_counts(state))

    def run(self, column: Array, how: Settings) -> Outcome:
        return _compare(self.counts, _counts(column == UNSEEN))

    def state(self) -> Array:
        return self.counts


def is_missing(column: Array) -> Array:
    """(n,) bool of a numeric or categorical column."""
    missing: Array = np.isnan(column) if column.dtype.kind == "f" else column == MISSING
    return missing


def _counts(having: Array) -> Counts:
    count = int(np.count_nonzero(having))
    return np.array([count, len(having) - count], dtype=np.int64)


def _as_counts(state: Array) -> Counts:
    if state.dtype != np.int64 or state.shape != (2,) or (state < 0).any():
        raise ValueError("it holds no two counts")
    return state


def _compare(reference: Counts, window: Counts) -> Outcome:
    before, seen = int(reference[0]), int(window[0])
    m, n = int(reference.sum()), int(window.sum())
    if before == seen == 0:
        return Outcome(0.0, 1.0, 0.0, n)
    rate = seen / n
    return Outcome(rate, fisher_p(seen, n, before, m), abs(rate - before / m), n)
