"""Tests of numeric features on their values as they are; missing ones are left out on both sides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from detectors.base import Array
from detectors.drift.cramer_von_mises import Sorted, cramer_von_mises
from detectors.drift.feature_test import MIN_ROWS, Settings, Signal
from detectors.drift.univariate import Floats, Outcome, kolmogorov_smirnov
from govern.errors import BadInput
from govern.frame import Frame
from govern.schema import Feature


@dataclass(frozen=True, slots=True)
class KolmogorovSmirnov:
    """Of the largest distance between the distribution functions."""

    signal: ClassVar[Signal] = ""
    always_told: ClassVar[bool] = True
    statistic_name: ClassVar[str] = "ks"
    effect_size_name: ClassVar[str] = "ks_distance"

    position: int
    values: Floats

    @classmethod
    def of(cls, reference: Frame, position: int) -> Self:
        return cls(position, sorted_values(reference, position))

    @classmethod
    def read(cls, position: int, state: Array, feature: Feature) -> Self:
        return cls(position, as_sorted(state))

    def run(self, window: Frame, how: Settings) -> Outcome:
        return kolmogorov_smirnov(self.values, numbers(window, self.position), tail=how.tail, level=how.level)

    def state(self) -> Array:
        return self.values


@dataclass(frozen=True, slots=True)
class CramerVonMises:
    """Of the squared distance between the distribution functions, over all values."""

    signal: ClassVar[Signal] = ""
    always_told: ClassVar[bool] = True
    statistic_name: ClassVar[str] = "cvm"
    effect_size_name: ClassVar[str] = "rms_distance"

    position: int
    reference: Sorted

    @classmethod
    def of(cls, reference: Frame, position: int) -> Self:
        return cls(position, Sorted.of(sorted_values(reference, position)))

    @classmethod
    def read(cls, position: int, state: Array, feature: Feature) -> Self:
        return cls(position, Sorted.of(as_sorted(state)))

    def run(self, window: Frame, how: Settings) -> Outcome:
        return cramer_von_mises(self.reference, numbers(window, self.position))

    def state(self) -> Array:
        return self.reference.values


def numbers(frame: Frame, position: int) -> Floats:
    """The column of a numeric feature, with its NaN."""
    return frame.columns[position].astype(np.float64, copy=False)


def values_of(reference: Frame, position: int) -> Floats:
    """The values of a numeric feature without NaN, in their order.

    Raises:
        BadInput: fewer than `MIN_ROWS`.
    """
    column = numbers(reference, position)
    values = column[~np.isnan(column)]
    if len(values) < MIN_ROWS:
        name = reference.schema.features[position].name
        raise BadInput(
            f"feature {name!r} has {len(values)} values in the reference",
            why=f"{len(column) - len(values)} of {len(column)} are missing, and at least {MIN_ROWS} are needed",
            fix="give a larger reference, or leave the feature out of the schema",
        )
    return values


def sorted_values(reference: Frame, position: int) -> Floats:
    """`values_of`, sorted."""
    return np.sort(values_of(reference, position))


def as_sorted(state: Array) -> Floats:
    if state.dtype != np.float64 or len(state) < MIN_ROWS or not (state[1:] >= state[:-1]).all():
        raise ValueError("it holds no sorted values")
    return state
