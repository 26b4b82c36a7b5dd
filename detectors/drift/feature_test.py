"""The seam between a drift detector and its univariate tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, Literal, Protocol, Self

from detectors.base import Array
from detectors.drift.univariate import Outcome, Tail
from govern.frame import Frame

#: Rows that a reference and a window must have: below it the asymptotic p-values say little.
MIN_ROWS: Final = 20

#: What of a feature is tested: its values, or the rate at which they are missing or unseen.
Signal = Literal["", "missing", "unseen"]


@dataclass(frozen=True, slots=True)
class Settings:
    """What the tests of one detector have in common.

    Attributes:
        level: significance level before correction: no p-value above it can raise an alarm.
        tail: how p-values are computed where there is a choice.
        draws: permutations that a p-value rests on at most.
        seed: of the permutations.
        min_statistic: a smaller statistic of a feature's values is no drift, whatever its p-value.
    """

    level: float
    tail: Tail = "asymptotic"
    draws: int = 999
    seed: int = 0
    min_statistic: float = 0.0


class FeatureTest(Protocol):
    """A test of one feature, fitted on the reference's column. What it keeps is one array, so that it can be stored."""

    signal: ClassVar[Signal]
    statistic_name: ClassVar[str]
    effect_size_name: ClassVar[str]

    @property
    def position(self) -> int:
        """Of its feature in the schema."""
        ...

    @classmethod
    def of(cls, reference: Frame, position: int) -> Self:
        """Fit it.

        Raises:
            BadInput: the feature has too few values.
        """
        ...

    @classmethod
    def read(cls, position: int, state: Array, n_categories: int) -> Self:
        """What `state` was made of.

        Raises:
            ValueError: the array is none of this test's.
        """
        ...

    def run(self, column: Array, how: Settings) -> Outcome: ...

    def state(self) -> Array: ...
