"""The test by the Wasserstein distance of the values themselves, whose null distribution is that of permuted rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from detectors.base import Array
from detectors.drift.feature_test import Settings, Signal
from detectors.drift.numeric import as_sorted, numbers, sorted_values
from detectors.drift.permutation import permutation_p
from detectors.drift.univariate import UNTESTED, Floats, Outcome
from govern.frame import Frame
from govern.schema import Feature


@dataclass(frozen=True, slots=True)
class Wasserstein:
    """How far values must be moved, on average, to turn one sample into the other, in the feature's own unit.

    The effect size is the same in standard deviations of the reference.
    """

    signal: ClassVar[Signal] = ""
    always_told: ClassVar[bool] = True
    statistic_name: ClassVar[str] = "wasserstein"
    effect_size_name: ClassVar[str] = "wasserstein_sd"

    position: int
    values: Floats

    @classmethod
    def of(cls, reference: Frame, position: int) -> Self:
        return cls(position, sorted_values(reference, position))

    @classmethod
    def read(cls, position: int, state: Array, feature: Feature) -> Self:
        return cls(position, as_sorted(state))

    def run(self, window: Frame, how: Settings) -> Outcome:
        column = numbers(window, self.position)
        values = column[~np.isnan(column)]
        n, m = len(self.values), len(values)
        if m == 0:
            return UNTESTED
        pooled = np.concatenate((self.values, values))
        order = np.argsort(pooled, kind="stable")
        gaps = np.diff(pooled[order])
        seen = np.arange(1, n + m) / n

        def between(mine: Array) -> float:
            """Of the rows of the pool, in order, that are `mine`, from all others: the area between their functions."""
            share = np.cumsum(mine[:-1]) * (1 / n + 1 / m)
            return float(np.abs(share - seen) @ gaps)

        def draw(generator: np.random.Generator, count: int) -> Floats:
            found = np.empty(count)
            for i in range(count):
                mine = np.zeros(n + m)
                mine[generator.choice(n + m, size=m, replace=False, shuffle=False)] = 1.0
                found[i] = between(mine)
            return found

        distance = between((order >= n).astype(np.float64))
        spread = float(np.std(self.values))
        p_value = permutation_p(distance, draw, draws=how.draws, seed=(how.seed, self.position))
        return Outcome(distance, p_value, distance / spread if spread else 0.0, m)

    def state(self) -> Array:
        return self.values
