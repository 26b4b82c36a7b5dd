"""Outliers by Mahalanobis distance from a centre that moves along."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from detectors.base import Array, fitted, require_at_least
from detectors.compiled import compiled
from detectors.outlier.detector import MIN_REFERENCE_ROWS, OutlierDetector
from govern.detection import InstanceScores
from govern.errors import BadInput
from govern.frame import Frame

Floats = npt.NDArray[np.float64]

#: A row is learned as if it lay no further out than so many times the threshold. At 1 what is learned is narrower than
#: the stream, and where rare categories are far out ever more rows are flagged while nothing changes; from 1.5 on the
#: rate stays, also with heavy tails.
REACH: Final = 1.5
#: How numbers of a memory are stored.
_STORED: Final = np.dtype("<f8")


def _scatter_of(points: Floats, centre: Floats) -> Floats:
    """(D, D), the sums of products of what the points differ by from the centre."""
    width = len(centre)
    sums = np.zeros((width, width))
    for row in range(len(points)):
        for i in range(width):
            off = points[row, i] - centre[i]
            for j in range(i, width):
                sums[i, j] += off * (points[row, j] - centre[j])
    for i in range(width):
        for j in range(i):
            sums[i, j] = sums[j, i]
    return sums


def _factor_of(covariance: Floats, least: float) -> Floats:
    """Cholesky: the lower triangle that times its transpose is the covariance, with `least` more on the diagonal."""
    width = len(covariance)
    lower = np.zeros((width, width))
    for i in range(width):
        for j in range(i + 1):
            rest = covariance[i, j]
            for k in range(j):
                rest -= lower[i, k] * lower[j, k]
            if i == j:
                lower[i, i] = np.sqrt(max(rest + least, least))
            else:
                lower[i, j] = rest / lower[j, j]
    return lower


def _solve_lower(offsets: Floats, lower: Floats) -> Floats:
    """(n, D) -> (n, D) whose squares sum up to each row's squared distance."""
    found = np.empty_like(offsets)
    for row in range(len(offsets)):
        for i in range(len(lower)):
            rest = offsets[row, i]
            for k in range(i):
                rest -= lower[i, k] * found[row, k]
            found[row, i] = rest / lower[i, i]
    return found


def _solve_upper(solved: Floats, lower: Floats) -> Floats:
    """(n, D) as `_solve_lower` gives it -> (n, D) the inverse covariance times the offsets."""
    width = len(lower)
    found = np.empty_like(solved)
    for row in range(len(solved)):
        for i in range(width - 1, -1, -1):
            rest = solved[row, i]
            for k in range(i + 1, width):
                rest -= lower[k, i] * found[row, k]
            found[row, i] = rest / lower[i, i]
    return found


# Compiled, and no library's: every sum runs in one order, so what is remembered is the same on whichever machine, and
# however many processors it has.
_scatter = compiled(_scatter_of)
_factor = compiled(_factor_of)
_lower = compiled(_solve_lower)
_upper = compiled(_solve_upper)


@dataclass(frozen=True, slots=True)
class Ellipsoid:
    """The rows that are as far out as each other.

    Attributes:
        centre: (D,).
        lower: (D, D) factor of the covariance.
    """

    centre: Floats
    lower: Floats

    def scores(self, points: Floats) -> Floats:
        squares = np.square(_lower(points - self.centre, self.lower))
        return np.asarray(np.sqrt(squares.sum(axis=1)), dtype=np.float64)

    def parts(self, points: Floats) -> Floats:
        """Each coordinate's term of the squared distance; one that makes a row less strange counts as nothing."""
        offsets = points - self.centre
        return np.maximum(offsets * _upper(_lower(offsets, self.lower), self.lower), 0.0)


@dataclass(frozen=True, slots=True)
class Moments:
    """What is known of the rows so far.

    Attributes:
        count: () how many rows they weigh as.
        centre: (D,).
        covariance: (D, D), symmetric.
    """

    count: Floats
    centre: Floats
    covariance: Floats

    @classmethod
    def of(cls, points: Floats) -> Moments:
        centre = points.mean(axis=0)
        return cls(np.array(float(len(points))), centre, _scatter(points, centre) / len(points))

    def ellipsoid(self) -> Ellipsoid:
        # Of a direction in which n rows do not vary, nothing tells a variance below 1/n from zero.
        return Ellipsoid(self.centre, _factor(self.covariance, 1.0 / float(self.count)))

    def with_points(self, points: Floats, *, at_most: float) -> Moments:
        """After more points, which weigh one each, and those before no more than `at_most` together."""
        before = min(float(self.count), at_most)
        centre = points.mean(axis=0)
        step = centre - self.centre
        count = before + len(points)
        scatter = before * self.covariance + _scatter(points, centre)
        scatter += np.outer(step, step) * (before * len(points) / count)
        return Moments(np.array(count), self.centre + step * (len(points) / count), scatter / count)

    def scores(self, points: Floats) -> Floats:
        return self.ellipsoid().scores(points)

    def parts(self, points: Floats) -> Floats:
        return self.ellipsoid().parts(points)


class OnlineMahalanobisOutlier(OutlierDetector):
    """How far a row lies from where the rows before it lay: `mahalanobis` with a centre and a spread that move along.

    For streams whose normal moves (a season, a price level), so that the old normal becomes strange and the new one
    does not stay an alarm. It begins with the reference; each window is judged by what was known before it, and is then
    learned: a row that is far past the threshold as if it lay nearer (`REACH`), so that one wild value moves the centre
    no further than a strange one.

    Args:
        contamination: the expected share of flagged rows while nothing changes, at most.
        max_n: all rows so far never weigh as more than this many, so that the stream of long ago is forgotten; None:
            nothing is, and the detector learns ever more slowly.
        seed: of the split of the reference into a part to learn from and a part to set the threshold on.

    References:
        Chan, Golub, LeVeque (1983): Algorithms for computing the sample variance. Amer. Statist. 37, 242-247;
        Huber (1981): Robust statistics, section 8.3 (pulling what is far out back, by its distance).
    """

    method = "online_mahalanobis"

    def __init__(self, *, contamination: float = 0.01, max_n: int | None = None, seed: int = 0) -> None:
        super().__init__(contamination=contamination, max_n=max_n, seed=seed)
        if max_n is not None:
            require_at_least("max_n", max_n, MIN_REFERENCE_ROWS, method=self.method)
        self.max_n = max_n

    def start(self) -> Moments:
        fitted(self._state, self.method)
        assert isinstance(self._model, Moments), "of this detector"
        return self._model

    def score(self, window: Frame) -> InstanceScores:
        """What it says of rows that come right after the reference.

        Raises:
            BadInput: no rows, or columns that are not the reference's.
        """
        points = self._points(window)
        return self._scored(points, self.start().ellipsoid())

    def advance(self, memory: Moments, window: Frame, times: npt.NDArray[np.int64]) -> tuple[InstanceScores, Moments]:
        points = self._points(window)
        found = self._scored(points, memory.ellipsoid())
        reach = REACH * self._threshold
        far = found.scores > reach
        points[far] = memory.centre + (points[far] - memory.centre) * (reach / found.scores[far])[:, None]
        return found, memory.with_points(points, at_most=np.inf if self.max_n is None else float(self.max_n))

    def pack(self, memory: Moments) -> bytes:
        upper = memory.covariance[np.triu_indices(len(memory.centre))]
        return np.concatenate(([memory.count], memory.centre, upper)).astype(_STORED).tobytes()

    def unpack(self, data: bytes) -> Moments:
        width = len(self.start().centre)
        expected = (1 + width + width * (width + 1) // 2) * _STORED.itemsize
        if len(data) != expected:
            raise BadInput(
                f"{self.method}: a memory of {len(data)} bytes",
                why=f"one of {width} coordinates has {expected}",
                fix="it is of another detector: let the step begin anew",
            )
        numbers = np.frombuffer(data, dtype=_STORED).astype(np.float64)
        covariance = np.empty((width, width))
        rows, columns = np.triu_indices(width)
        covariance[rows, columns] = covariance[columns, rows] = numbers[1 + width :]
        return Moments(numbers[0].reshape(()), numbers[1 : 1 + width], covariance)

    def _learn(self, points: Floats) -> Moments:
        return Moments.of(points)

    def _read(self, arrays: Mapping[str, Array]) -> Moments:
        return Moments(**arrays)
