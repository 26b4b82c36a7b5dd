"""Rows of a stream as plain arrays, the form in which a baseline keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from detectors.base import Array, positions
from govern.frame import Frame
from govern.schema import FeatureSchema


@dataclass(frozen=True, slots=True)
class Rows:
    """Never changed in place.

    Attributes:
        times: (n,) int64, t_response in nanoseconds.
        ranks: (n,) uint64, at random: the lowest of some rows are a fair sample of them.
        values: (n,) or (n, k) of each kept column and output.
    """

    times: npt.NDArray[np.int64]
    ranks: npt.NDArray[np.uint64]
    values: tuple[Array, ...]

    def __len__(self) -> int:
        return len(self.times)

    def take(self, rows: npt.NDArray[np.intp] | npt.NDArray[np.bool_] | slice) -> Rows:
        return Rows(self.times[rows], self.ranks[rows], tuple(one[rows] for one in self.values))

    def then(self, later: Rows) -> Rows:
        """These rows and later ones. Rows of another width (an output that has changed) are forgotten."""
        if len(self) == 0 or any(
            one.shape[1:] != other.shape[1:] for one, other in zip(self.values, later.values, strict=True)
        ):
            return later
        return Rows(
            np.concatenate([self.times, later.times]),
            np.concatenate([self.ranks, later.ranks]),
            tuple(np.concatenate(pair) for pair in zip(self.values, later.values, strict=True)),
        )

    def arrays(self) -> tuple[Array, ...]:
        return (self.times, self.ranks, *self.values)


@dataclass(frozen=True, slots=True)
class Layout:
    """Which columns and outputs are kept: numeric and categorical features, and the outputs that a detector reads."""

    schema: FeatureSchema
    columns: tuple[int, ...]
    outputs: tuple[str, ...]

    @classmethod
    def of(cls, schema: FeatureSchema, outputs: Sequence[str]) -> Self:
        return cls(schema, positions(schema, "numeric", "categorical"), tuple(outputs))

    def empty(self) -> Rows:
        columns = tuple(np.empty(0, dtype=self._dtype(position)) for position in self.columns)
        outputs = tuple(np.empty((0, 0)) for _ in self.outputs)
        return Rows(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.uint64), (*columns, *outputs))

    def rows(self, window: Frame, times: npt.NDArray[np.int64], *, before: int, seed: int) -> Rows:
        """
        Args:
            before: rows of the stream before the window, which with `seed` settle the ranks.
        """
        columns = tuple(window.columns[position].astype(self._dtype(position)) for position in self.columns)
        outputs = tuple(window.outputs[name].astype(np.float64) for name in self.outputs)
        numbers = np.arange(before, before + len(window), dtype=np.uint64)
        return Rows(times.astype(np.int64), _ranks(numbers, seed), (*columns, *outputs))

    def frame(self, rows: Rows) -> Frame:
        """The rows as a reference; a column that was not kept is one of zeros."""
        kept = dict(zip(self.columns, rows.values, strict=False))
        zeros = np.zeros(len(rows))
        return Frame(
            schema=self.schema,
            columns=tuple(kept.get(position, zeros) for position in range(len(self.schema.features))),
            outputs=dict(zip(self.outputs, rows.values[len(self.columns) :], strict=True)),
        )

    def read(self, arrays: tuple[Array, ...]) -> Rows | None:
        """The rows whose `arrays` these are; None when they are of no such rows."""
        shape = [array.dtype for array in self.empty().arrays()]
        if [array.dtype for array in arrays] != shape or len({len(array) for array in arrays}) != 1:
            return None
        times, ranks, *values = arrays
        dimensions = [1] * len(self.columns) + [2] * len(self.outputs)
        if [array.ndim for array in (times, ranks, *values)] != [1, 1, *dimensions]:
            return None
        return Rows(times, ranks, tuple(values))

    def _dtype(self, position: int) -> npt.DTypeLike:
        return np.float64 if self.schema.features[position].kind == "numeric" else np.int32


def _ranks(numbers: npt.NDArray[np.uint64], seed: int) -> npt.NDArray[np.uint64]:
    """A row's rank by its number in the stream, however the stream is cut into windows.

    SplitMix64 (Steele, Lea, Flood 2014: Fast splittable pseudorandom number generators. OOPSLA, 453-472).
    """
    golden = np.uint64(0x9E3779B97F4A7C15)
    mixed = (numbers + np.uint64(1)) * golden + np.uint64(seed % 2**64) * np.uint64(0xD1342543DE82EF95)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)), dtype=np.uint64)
