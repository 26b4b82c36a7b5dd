"""A sketch of rows: how many of them fall into the cells of each feature. Sketches of parts add up to that of all."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from detectors import memory as memories
from detectors.base import require_schema
from detectors.drift.binned import Guide, next_to
from detectors.drift.categorical import counts_of
from detectors.drift.numeric import numbers
from detectors.drift.univariate import CODE_OFFSET, Counts, Floats
from detectors.memory import Memory
from govern.errors import BadInput
from govern.frame import Frame
from govern.schema import FeatureSchema

#: As messages call it.
_NAME: Final = "sketch"


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells that sketches count in; only sketches of the same can be merged.

    Attributes:
        schema: of the rows.
        edges: position of a numeric feature -> (k,) float64, rising, where its bins meet; an edge belongs to the bin
            above it. Features of other kinds than numeric and categorical are not counted.
    """

    schema: FeatureSchema
    edges: Mapping[int, Floats]

    @cached_property
    def places(self) -> dict[int, slice]:
        """Position of a feature -> where its counts are: of a number missing, then the bins from the lowest up; of a
        category unseen, missing, then the categories in order."""
        found, start = {}, 0
        for position, feature in enumerate(self.schema.features):
            if position in self.edges:
                size = 2 + len(self.edges[position])
            elif feature.kind == "categorical":
                size = CODE_OFFSET + len(feature.categories)
            else:
                continue
            found[position] = slice(start, start + size)
            start += size
        return found

    @cached_property
    def size(self) -> int:
        """Of all counts."""
        return max((place.stop for place in self.places.values()), default=0)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 over the schema and the edges."""
        state = hashlib.sha256(self.schema.digest.encode())
        for position in sorted(self.edges):
            state.update(b"%d:%d:" % (position, len(self.edges[position])))
            state.update(self.edges[position].astype("<f8").tobytes())
        return state.digest()

    def empty(self) -> Sketch:
        """The sketch of no rows."""
        ends = np.tile([np.inf, -np.inf], (len(self.schema.features), 1))
        return Sketch(self, 0, np.zeros(self.size, dtype=np.int64), ends)

    def unpack(self, data: bytes) -> Sketch:
        """What `Sketch.pack` stored.

        Raises:
            BadInput: the bytes are no sketch in these cells.
        """
        features = len(self.schema.features)

        def accepts(memory: Memory) -> bool:
            if [one.shape for one in memory.arrays] != [(32,), (self.size,), (features, 2)]:
                return False
            digest, counts, ends = memory.arrays
            if digest.tobytes() != self.digest or counts.dtype != np.int64 or ends.dtype != np.float64:
                return False
            return bool((counts >= 0).all()) and all(counts[p].sum() == memory.rows for p in self.places.values())

        memory = memories.unpack(data, method=_NAME, accepts=accepts)
        return Sketch(self, memory.rows, memory.arrays[1], memory.arrays[2])

    @cached_property
    def guides(self) -> dict[int, Guide]:
        """Of the numeric features, by position."""
        return {position: Guide.of(edges) for position, edges in self.edges.items()}

    def add(self, frame: Frame, counts: Counts, ends: Floats) -> None:
        """Count the rows of `frame`, in place."""
        for position, place in self.places.items():
            if position in self.edges:
                self.guides[position].count(numbers(frame, position), counts[place], ends[position])
            else:
                counts[place] += counts_of(frame, position)


@dataclass(frozen=True, eq=False)
class Sketch:
    """Counts of rows in cells: a value, never changed in place.

    However rows are split, and in whatever order their sketches are merged, the result is the same to the last bit.

    Attributes:
        cells: what is counted in.
        rows: that were counted.
        counts: (cells.size,) int64, laid out as `Cells.places` says.
        ends: (features of the schema, 2) float64, the least and the greatest number; inf and -inf where there is none.
    """

    cells: Cells
    rows: int
    counts: Counts
    ends: Floats

    def update(self, frame: Frame) -> Sketch:
        """With the rows of `frame`, too.

        Raises:
            BadInput: its columns are not those of the cells.
        """
        require_schema(frame, self.cells.schema, method=_NAME)
        counts, ends = self.counts.copy(), self.ends.copy()
        self.cells.add(frame, counts, ends)
        return Sketch(self.cells, self.rows + len(frame), counts, ends)

    def merge(self, other: Sketch) -> Sketch:
        """Of the rows of both.

        Raises:
            BadInput: the other's cells are not these.
        """
        if other.cells is not self.cells and other.cells.digest != self.cells.digest:
            raise BadInput(
                "sketches that count in different cells were to be merged",
                why="their bins or categories are not the same, so their counts do not add up",
                fix="make both with the same fitted detector",
            )
        ends = np.column_stack(
            (np.minimum(self.ends[:, 0], other.ends[:, 0]), np.maximum(self.ends[:, 1], other.ends[:, 1]))
        )
        return Sketch(self.cells, self.rows + other.rows, self.counts + other.counts, ends)

    def of(self, feature: str) -> Counts:
        """The counts of a feature, laid out as `Cells.places` says.

        Raises:
            BadInput: it is not counted.
        """
        return self.counts[self._place(feature)[1]]

    def quantile(self, feature: str, q: float) -> tuple[float, float]:
        """Two numbers between which, or at which, the q-quantile of the rows' values lies.

        Args:
            feature: numeric.
            q: from 0 to 1. The quantile is the least value that a share q of the values does not exceed, as
                `numpy.quantile(method="inverted_cdf")` has it; missing values are none.

        Returns:
            NaN, twice, when there is no value.

        Raises:
            BadInput: the feature has no numbers, or q is out of range.
        """
        edges, bins = self._bins(feature)
        if not 0.0 <= q <= 1.0:
            raise BadInput(f"q is {q}", why="it is a share of the values: from 0 to 1", fix="correct it")
        upto = np.cumsum(bins)
        if not upto[-1]:
            return math.nan, math.nan
        least, greatest = self.ends[self.cells.schema.index(feature)].tolist()
        found = int(upto.searchsorted(max(1, math.ceil(q * int(upto[-1])))))
        low = max(least, float(edges[found - 1])) if found else least
        high = min(greatest, float(next_to(edges[found : found + 1], -np.inf)[0])) if found < len(edges) else greatest
        return low, high

    def rank_error(self, feature: str) -> float:
        """The distribution function of the rows, at any number, is known to within this: the largest share of a bin
        that holds more than one number. 0 when there is no value.

        Raises:
            BadInput: the feature has no numbers.
        """
        edges, bins = self._bins(feature)
        least, greatest = self.ends[self.cells.schema.index(feature)]
        low = np.maximum(np.append(-np.inf, edges), least)
        high = np.minimum(np.append(next_to(edges, -np.inf), np.inf), greatest)
        wide = bins[high > low]
        return float(wide.max(initial=0) / max(1, bins.sum()))

    def pack(self) -> bytes:
        """As it is stored or sent; equal sketches give equal bytes. `Cells.unpack` reads it."""
        digest = np.frombuffer(self.cells.digest, dtype=np.uint8)
        return memories.pack(Memory(self.rows, (digest, self.counts, self.ends)))

    def _place(self, feature: str) -> tuple[int, slice]:
        position = self.cells.schema.index(feature)
        if position not in self.cells.places:
            raise BadInput(
                f"feature {feature!r} is not counted",
                why=f"it is {self.cells.schema.features[position].kind}",
                fix="name a numeric or categorical feature",
            )
        return position, self.cells.places[position]

    def _bins(self, feature: str) -> tuple[Floats, Counts]:
        position, place = self._place(feature)
        if position not in self.cells.edges:
            raise BadInput(
                f"feature {feature!r} has no numbers",
                why=f"it is {self.cells.schema.features[position].kind}",
                fix="name a numeric feature, or read its counts with `of`",
            )
        return self.cells.edges[position], self.counts[place][1:]
