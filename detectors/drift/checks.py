"""Checks of what a schema says of its features, each by how often the reference breaks it."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, replace
from typing import ClassVar, Final, Self

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from detectors.base import Array
from detectors.drift.feature_test import Settings, Signal
from detectors.drift.permutation import permutation_p
from detectors.drift.rates import as_pair, as_seldom, compare, compare_new, having, is_missing, seldom
from detectors.drift.univariate import UNTESTED, Floats, Outcome
from govern.frame import UNSEEN, Frame
from govern.schema import Feature

#: Of SplitMix64's finaliser, which mixes a row's cells to its digest.
_MIX: Final = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


@dataclass(frozen=True, slots=True)
class Check:
    """Whether rows break a rule more often than the reference's rate explains, by Fisher's exact test, one-sided.

    The bounds of a feature are as a rule those of the reference, so that a large window will leave them at times: the
    test knows how often is no surprise. The statistic is the share of rows that break the rule.
    """

    signal: ClassVar[Signal]
    statistic_name: ClassVar[str] = "rate"
    effect_size_name: ClassVar[str] = "rate_difference"
    always_told: ClassVar[bool] = True
    #: (n,) values of a column that are there, and the feature -> (n,) bool, which of them break the rule.
    rule: ClassVar[staticmethod[[Array, Feature], Array]]
    #: Whether the rule is about missing values, too.
    of_missing: ClassVar[bool] = False

    position: int
    before: int
    rows: int

    @classmethod
    def of(cls, reference: Frame, position: int) -> Self:
        return cls(position, *having(cls.broken(reference, position)))

    @classmethod
    def read(cls, position: int, state: Array, feature: Feature) -> Self:
        return cls(position, *as_pair(state))

    @classmethod
    def broken(cls, frame: Frame, position: int) -> Array:
        column = frame.columns[position]
        values: Array = column if cls.of_missing else column[~is_missing(column)]
        return cls.rule(values, frame.schema.features[position])

    def run(self, window: Frame, how: Settings) -> Outcome:
        broken = having(self.broken(window, self.position))
        if not (broken[1] and self.rows):
            return UNTESTED
        return self.compared(broken)

    def compared(self, broken: tuple[int, int]) -> Outcome:
        """What `having` gave of the window's values, which are some, with the reference's."""
        return compare((self.before, self.rows), broken, alternative="greater")

    def state(self) -> Array:
        return np.array([self.before, self.rows - self.before], dtype=np.int64)


class MissingCheck(Check):
    signal: ClassVar[Signal] = "missing"
    of_missing = True

    @staticmethod
    def rule(values: Array, feature: Feature) -> Array:
        return is_missing(values)


@dataclass(frozen=True, slots=True)
class UnseenCheck(Check):
    """Of a categorical feature. Where the schema was learned from the reference it is no longer exact (`compare_new`).

    Attributes:
        once, twice: what `seldom` says of the reference.
    """

    signal: ClassVar[Signal] = "unseen"

    once: int = 0
    twice: int = 0

    @classmethod
    def of(cls, reference: Frame, position: int) -> Self:
        return cls(position, *having(cls.broken(reference, position)), *seldom(reference, position))

    @classmethod
    def read(cls, position: int, state: Array, feature: Feature) -> Self:
        return cls(position, *as_pair(state[:2]), *as_seldom(state))

    def compared(self, broken: tuple[int, int]) -> Outcome:
        return compare_new((self.before, self.rows), broken, (self.once, self.twice), alternative="greater")

    def state(self) -> Array:
        return np.array([self.before, self.rows - self.before, self.once, self.twice], dtype=np.int64)

    @staticmethod
    def rule(values: Array, feature: Feature) -> Array:
        return np.equal(values, UNSEEN)


class RangeCheck(Check):
    """Of a numeric feature with a `minimum` or a `maximum`.

    Where none of the reference is outside, both bounds may be its own smallest and largest value. Those are not two
    bounds like any others: Fisher's test would alarm up to three times as often as it says, so `beyond_extremes` is
    the p-value. It is exact for such bounds where no values are equal; with ties or wider bounds it is too large.
    """

    signal: ClassVar[Signal] = "range"

    def run(self, window: Frame, how: Settings) -> Outcome:
        found = super().run(window, how)
        feature = window.schema.features[self.position]
        if self.before or not found.statistic > 0.0 or feature.minimum is None or feature.maximum is None:
            return found
        return replace(found, p_value=beyond_extremes(round(found.statistic * found.n), found.n, self.rows))

    @staticmethod
    def rule(values: Array, feature: Feature) -> Array:
        least = -math.inf if feature.minimum is None else feature.minimum
        most = math.inf if feature.maximum is None else feature.maximum
        within: Array = (values >= least) & (values <= most)
        return ~within


class TypeCheck(Check):
    """Of a numeric feature that is an integer or a truth value: whether its values are, and fit the datatype."""

    signal: ClassVar[Signal] = "type"

    @staticmethod
    def rule(values: Array, feature: Feature) -> Array:
        least, most = integer_bounds(feature.datatype)
        fits: Array = (values == np.rint(values)) & (values >= least) & (values <= most)
        return ~fits


def beyond_extremes(k: int, m: int, n: int) -> float:
    """The probability that k or more of m values lie outside the smallest and the largest of n others, all drawn alike.

    The n values leave n + 1 gaps, of which any two hold as many of the m as any other two: so it is the probability
    that of the first k + 1 of all, in random order, at most one is of the n.

    References:
        Wilks (1942): Statistical prediction with special reference to the problem of tolerance limits. Ann. Math.
        Stat. 13, 400-409.
    """
    few = n * np.exp(_log_choose(np.float64(m), k) - _log_choose(np.float64(n + m), k + 1))
    none = np.exp(_log_choose(np.float64(m), k + 1) - _log_choose(np.float64(n + m), k + 1))
    return min(1.0, float(few + none))


def integer_bounds(datatype: str) -> tuple[float, float]:
    """The least and the largest value of BOOL or an integer datatype."""
    if datatype == "BOOL":
        return 0.0, 1.0
    unsigned, bits = datatype.startswith("U"), int(datatype.rpartition("INT")[2])
    return (0.0, 2.0**bits - 1) if unsigned else (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1)


@dataclass(frozen=True, slots=True)
class ConstantCheck:
    """Whether a feature has one value in all rows, and how probable that was: exact, by permuted rows.

    A value that c of N rows have, window and reference together, is all that a window of m rows holds with probability
    C(c, m) / C(N, m). The statistic is 1 where the window is constant.

    Attributes:
        values, often: (u,) float64, what comes more than once in the reference, and how often.
        n: values of the reference.
    """

    signal: ClassVar[Signal] = "constant"
    statistic_name: ClassVar[str] = "constant"
    effect_size_name: ClassVar[str] = "constant"
    always_told: ClassVar[bool] = True

    position: int
    values: Floats
    often: Floats
    n: int

    @classmethod
    def of(cls, reference: Frame, position: int) -> Self:
        present = cls._present(reference, position)
        values, often = np.unique(present, return_counts=True)
        return cls(position, values[often > 1], often[often > 1].astype(np.float64), len(present))

    @classmethod
    def read(cls, position: int, state: Array, feature: Feature) -> Self:
        if state.dtype != np.float64 or len(state) % 2 != 1 or not state[-1] >= state[len(state) // 2 : -1].sum():
            raise ValueError("it holds no values with their counts")
        half = len(state) // 2
        return cls(position, state[:half], state[half:-1], int(state[-1]))

    @staticmethod
    def _present(frame: Frame, position: int) -> Floats:
        column = frame.columns[position]
        return column[~is_missing(column)].astype(np.float64)

    def run(self, window: Frame, how: Settings) -> Outcome:
        present = self._present(window, self.position)
        m = len(present)
        if m == 0:
            return UNTESTED
        if (present != present[0]).any():
            return Outcome(0.0, 1.0, 0.0, m)
        here = self.values == present[0]
        # One that comes not more than once is not kept: it may have come once.
        pooled = np.append(self.often[~here], m + (self.often[here].sum() if here.any() else min(1, self.n)))
        p_value = float(np.exp(_log_choose(pooled[pooled >= m], m) - _log_choose(np.float64(self.n + m), m)).sum())
        return Outcome(1.0, min(1.0, p_value), 1.0, m)

    def state(self) -> Array:
        return np.concatenate((self.values, self.often, [float(self.n)]))


@dataclass(frozen=True, slots=True)
class DuplicateCheck:
    """Whether more rows equal another row of their window than in windows drawn of reference and window together.

    Attributes:
        rows: (n,) uint64, the reference's rows, digested.
    """

    signal: ClassVar[Signal] = "duplicate"
    statistic_name: ClassVar[str] = "rate"
    effect_size_name: ClassVar[str] = "rate"
    always_told: ClassVar[bool] = True

    position: int
    rows: npt.NDArray[np.uint64]

    @classmethod
    def of(cls, reference: Frame, position: int) -> Self:
        return cls(position, row_digests(reference))

    @classmethod
    def read(cls, position: int, state: Array, feature: Feature) -> Self:
        if state.dtype != np.int64:
            raise ValueError("it holds no digests of rows")
        return cls(position, state.view(np.uint64))

    def run(self, window: Frame, how: Settings) -> Outcome:
        m = len(window)
        _, rows = np.unique(np.concatenate((self.rows, row_digests(window))), return_inverse=True)
        most = int(rows.max()) + 1

        def again(mine: Array) -> float:
            return float(m - np.count_nonzero(np.bincount(mine, minlength=most)))

        def draw(generator: np.random.Generator, count: int) -> Floats:
            return np.array([again(generator.choice(rows, size=m, replace=False, shuffle=False)) for _ in range(count)])

        found = again(rows[len(self.rows) :])
        p_value = permutation_p(found, draw, draws=how.draws, seed=(how.seed,)) if found else 1.0
        return Outcome(found / m, p_value, found / m, m)

    def state(self) -> Array:
        return self.rows.view(np.int64)


def row_digests(frame: Frame) -> npt.NDArray[np.uint64]:
    """(n,) uint64: equal for equal rows, and different for different ones but for one pair in 2^64."""
    digests = np.zeros(len(frame), dtype=np.uint64)
    for column in frame.columns:
        for cells in _words(column).T:
            digests = (digests ^ cells) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(1)
            for shift, factor in zip((30, 27), _MIX, strict=True):
                digests = (digests ^ (digests >> np.uint64(shift))) * factor
            digests ^= digests >> np.uint64(31)
    return digests


def _words(column: Array) -> npt.NDArray[np.uint64]:
    """(n, k) uint64, equal where cells are."""
    if column.dtype == object:
        texts = ["" if value is None else str(value) for value in column.tolist()]
        pairs = [(zlib.crc32(text.encode()), zlib.adler32(text.encode()), len(text)) for text in texts]
        return np.array(pairs, dtype=np.uint64)
    numbers = column.reshape(len(column), -1).astype(np.float64) + 0.0  # -0.0 is 0.0
    numbers[np.isnan(numbers)] = np.nan  # of one pattern of bits
    return numbers.view(np.uint64)


def _log_choose(n: Floats | np.float64, k: int) -> Floats:
    found: Floats = gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0)
    return found
