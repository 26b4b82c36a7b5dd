"""Predicate: a condition on one feature, as it stands in an anchor."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Predicate:
    """`low < feature <= high`, `feature = category`, or `feature is missing`.

    Attributes:
        low, high: bounds of a numeric feature, low exclusive and high inclusive; None = unbounded.
        category: the category of a categorical feature; None for a numeric one.
        missing: the value is absent.
    """

    feature: str
    low: float | None = None
    high: float | None = None
    category: str | None = None
    missing: bool = False

    def __str__(self) -> str:
        if self.missing:
            return f"{self.feature} is missing"
        if self.category is not None:
            return f"{self.feature} = {self.category}"
        if self.low is None:
            return f"{self.feature} <= {self.high:g}"
        if self.high is None:
            return f"{self.feature} > {self.low:g}"
        return f"{self.low:g} < {self.feature} <= {self.high:g}"
