"""The seam between a drift detector and its univariate tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, Literal, Protocol, Self

from detectors.base import Array
from detectors.drift.univariate import Outcome, Tail
from govern.frame import Frame
from govern.schema import Feature

#: Rows that a reference and a window must have: below it the asymptotic p-values say little.
MIN_ROWS: Final = 20

#: What of a feature is tested: its values, the rate at which they are missing or unseen, or a check of quality.
Signal = Literal["", "missing", "unseen", "range", "type", "constant", "duplicate"]


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
    #: Whether its result is told when neither the reference nor the window has what it looks for.
    always_told: ClassVar[bool]

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
    def read(cls, position: int, state: Array, feature: Feature) -> Self:
        """What `state` was made of.

        Raises:
            ValueError: the array is none of this test's.
        """
        ...

    def run(self, window: Frame, how: Settings) -> Outcome: ...

    def state(self) -> Array: ...
