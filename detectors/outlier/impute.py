"""Frames as complete matrices: a missing value takes the reference's typical one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from govern.errors import BadInput
from govern.frame import MISSING, Frame

#: Trees compare float32 values; a larger number is as extreme as this one.
_LARGEST: Final = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class Imputer:
    """What stands for a missing value in each column.

    Attributes:
        columns: (d,) int64 positions in the schema, of numeric and categorical features.
        fills: (d,) float64: the median of a numeric column, the most frequent code of a categorical one.
    """

    columns: npt.NDArray[np.int64]
    fills: npt.NDArray[np.float64]

    @classmethod
    def of(cls, reference: Frame, columns: Sequence[int]) -> Imputer:
        """The typical values of these columns of the reference.

        Raises:
            BadInput: a column has no value at all.
        """
        fills = []
        for position in columns:
            feature, column = reference.schema.features[position], reference.columns[position]
            categorical = feature.kind == "categorical"
            values = column[column != MISSING] if categorical else column[~np.isnan(column)]
            if len(values) == 0:
                raise BadInput(
                    f"feature {feature.name!r} has no value in the reference",
                    why=f"all {len(column)} are missing",
                    fix="give another reference, or leave the feature out of the schema",
                )
            if categorical:
                codes, counts = np.unique(values, return_counts=True)
                fills.append(float(codes[np.argmax(counts)]))
            else:
                fills.append(float(np.median(values)))
        return cls(np.array(columns, dtype=np.int64), np.array(fills))

    def rows(self, frame: Frame) -> npt.NDArray[np.float64]:
        """(n, d) float64 without NaN, within the range of float32. A category is its code, an unseen one -2."""
        out = np.empty((len(frame), len(self.columns)))
        positions = self.columns.tolist()
        for target, position in enumerate(positions):
            out[:, target] = frame.columns[position]
        coded = np.array([frame.schema.features[position].kind == "categorical" for position in positions])
        np.copyto(out, self.fills, where=np.isnan(out) | (coded & (out == MISSING)))
        return np.clip(out, -_LARGEST, _LARGEST, out=out)
