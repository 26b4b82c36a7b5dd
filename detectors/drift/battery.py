"""A battery: the univariate tests of a drift detector, one or two for each feature, and their joint verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, get_args

import numpy as np

from detectors.base import Array, Fitted
from detectors.drift.correction import Correction, corrected_threshold
from detectors.drift.univariate import (
    CODE_OFFSET,
    Counts,
    Floats,
    Outcome,
    Tail,
    category_counts,
    chi_squared,
    kolmogorov_smirnov,
)
from govern.detection import WindowScores
from govern.errors import BadInput
from govern.frame import Frame
from govern.record import FeatureResult

#: Rows that a reference and a window must have: below it the asymptotic p-values say little.
MIN_ROWS: Final = 20


class FeatureTest(Protocol):
    """A test of one feature, fitted on the reference's column."""

    @property
    def position(self) -> int:
        """Of its feature in the schema."""
        ...

    @property
    def suffix(self) -> str:
        """What sets its result apart from another test's of the same feature: "", ":missing"."""
        ...

    @property
    def statistic_name(self) -> str: ...

    @property
    def effect_size_name(self) -> str: ...

    def run(self, column: Array) -> Outcome: ...

    def state(self) -> Array: ...


@dataclass(frozen=True, slots=True)
class KolmogorovSmirnov:
    """Of a numeric feature; missing values are left out on both sides."""

    position: int
    values: Floats
    tail: Tail
    suffix: str = ""
    statistic_name: str = "ks"
    effect_size_name: str = "ks_distance"

    @classmethod
    def of(cls, reference: Frame, position: int, tail: Tail) -> KolmogorovSmirnov:
        column = reference.columns[position].astype(np.float64)
        values = np.sort(column[~np.isnan(column)])
        if len(values) < MIN_ROWS:
            name = reference.schema.features[position].name
            raise BadInput(
                f"feature {name!r} has {len(values)} values in the reference",
                why=f"{len(column) - len(values)} of {len(column)} are missing, and at least {MIN_ROWS} are needed",
                fix="give a larger reference, or leave the feature out of the schema",
            )
        return cls(position, values, tail)

    def run(self, column: Array) -> Outcome:
        return kolmogorov_smirnov(self.values, column.astype(np.float64, copy=False), tail=self.tail)

    def state(self) -> Array:
        return self.values


@dataclass(frozen=True, slots=True)
class ChiSquared:
    """Of a categorical feature; "missing" and "unseen" are two more categories, so their coming is drift too."""

    position: int
    counts: Counts
    suffix: str = ""
    statistic_name: str = "chi2"
    effect_size_name: str = "cramers_v"

    @classmethod
    def of(cls, reference: Frame, position: int) -> ChiSquared:
        categories = reference.schema.features[position].categories
        return cls(position, category_counts(reference.columns[position].astype(np.int32), len(categories)))

    def run(self, column: Array) -> Outcome:
        codes = column.astype(np.int32, copy=False)
        return chi_squared(self.counts, category_counts(codes, len(self.counts) - CODE_OFFSET))

    def state(self) -> Array:
        return self.counts


@dataclass(frozen=True, slots=True)
class MissingRate:
    """Of a nullable numeric feature: whether values are missing as often as in the reference (2 x 2 chi-squared)."""

    position: int
    counts: Counts
    suffix: str = ":missing"
    statistic_name: str = "chi2"
    effect_size_name: str = "cramers_v"

    @classmethod
    def of(cls, reference: Frame, position: int) -> MissingRate:
        return cls(position, _missing_counts(reference.columns[position]))

    def run(self, column: Array) -> Outcome:
        return chi_squared(self.counts, _missing_counts(column))

    def state(self) -> Array:
        return self.counts


def _missing_counts(column: Array) -> Counts:
    missing = int(np.isnan(column).sum())
    return np.array([missing, len(column) - missing], dtype=np.int64)


def require_tail(name: str, *, method: str) -> Tail:
    """The way to compute a Kolmogorov-Smirnov p-value.

    Raises:
        BadInput: there is none of that name.
    """
    for known in get_args(Tail):
        if name == known:
            return known  # type: ignore[no-any-return]
    raise BadInput(f"{method}: tail is {name!r}", why='known are "asymptotic" and "exact"', fix="name one of them")


def to_arrays(tests: Sequence[FeatureTest]) -> dict[str, Array]:
    return {f"{type(test).__name__}.{test.position}": test.state() for test in tests}


def from_arrays(state: Fitted, *, tail: Tail = "asymptotic") -> tuple[FeatureTest, ...]:
    """The battery that `to_arrays` stored, in the same order.

    Raises:
        ArtifactError: an array is no test's.
    """
    tests: list[FeatureTest] = []
    for name, array in state.arrays().items():
        kind, _, position = name.partition(".")
        if not position.isdecimal() or int(position) >= len(state.schema.features) or array.ndim != 1:
            raise state.damaged(f"array {name!r} belongs to no feature")
        categories = state.schema.features[int(position)].categories
        if kind == "ChiSquared" and len(array) != CODE_OFFSET + len(categories):
            raise state.damaged(f"array {name!r} has {len(array)} counts for {len(categories)} categories")
        match kind:
            case "KolmogorovSmirnov":
                tests.append(KolmogorovSmirnov(int(position), array, tail))
            case "ChiSquared":
                tests.append(ChiSquared(int(position), array))
            case "MissingRate":
                tests.append(MissingRate(int(position), array))
            case _:
                raise state.damaged(f"array {name!r} belongs to no test known here")
    return tuple(tests)


def judge(tests: Sequence[FeatureTest], window: Frame, *, p_val: float, correction: Correction) -> WindowScores:
    """Run every test on the window and correct for their number.

    A feature drifts when its p-value is below the corrected threshold; the window does when a feature does.
    """
    outcomes = [test.run(window.columns[test.position]) for test in tests]
    verdict = [outcome.p_value for outcome in outcomes]
    threshold = corrected_threshold(np.array(verdict), p_val, correction)
    features = tuple(
        FeatureResult(
            feature=window.schema.features[test.position].name + test.suffix,
            statistic_name=test.statistic_name,
            statistic=outcome.statistic,
            p_value=outcome.p_value,
            effect_size=outcome.effect_size,
            effect_size_name=test.effect_size_name,
            threshold=threshold,
            n=outcome.n,
            is_drift=outcome.p_value < threshold,
        )
        for test, outcome in zip(tests, outcomes, strict=True)
    )
    return WindowScores(
        alarm=any(one.is_drift for one in features), features=features, threshold=threshold, correction=correction
    )
