"""Mixed tables as points in a space whose distances mean something, whatever the columns are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from detectors.outlier.impute import Imputer
from govern.frame import Frame

Floats = npt.NDArray[np.float64]

#: A category rarer than this counts as if it were as frequent: it lies about 4.5 standard deviations from the others,
#: as a number seen once in a hundred thousand does, and no nearer to infinity with every row that the reference gains.
RAREST: Final = 0.05


@dataclass(frozen=True, slots=True)
class Coding:
    """Each numeric feature is one coordinate, each categorical one as many as it has categories, and one more.

    A number is standardised. A category is its indicators, each less its share p in the reference and divided by the
    root of p, so that agreeing on a rare category says more than on a frequent one; the last coordinate is that of a
    category which the schema does not list. Missing values are the reference's typical ones (`Imputer`).

    Attributes:
        columns: (d,) int64 positions in the schema, of numeric and categorical features.
        fills: (d,) float64, what stands for a missing value.
        widths: (d,) int64 coordinates that each feature has.
        centres, scales: (D,) float64 of the coordinates.

    References:
        Pagès (2004): Analyse factorielle de données mixtes. Revue de statistique appliquée 52(4), 93-111.
    """

    columns: npt.NDArray[np.int64]
    fills: Floats
    widths: npt.NDArray[np.int64]
    centres: Floats
    scales: Floats

    @classmethod
    def of(cls, reference: Frame, columns: Sequence[int]) -> Coding:
        """The coding in which these columns of the reference are centred and of comparable spread.

        Raises:
            BadInput: a column has no value at all.
        """
        imputer = Imputer.of(reference, columns)
        rows = imputer.rows(reference)
        centres, scales, widths = [], [], []
        for position, column in zip(columns, rows.T, strict=True):
            categories = reference.schema.features[position].categories
            if categories:
                shares = np.bincount(_indices(column, len(categories)), minlength=len(categories) + 1) / len(column)
                shares[-1] = 0.0
                centres.append(shares)
                scales.append(np.sqrt(np.maximum(shares, RAREST)))
            else:
                spread = float(np.std(column))
                centres.append(np.array([np.mean(column)]))
                scales.append(np.array([spread if spread > 0.0 else 1.0]))
            widths.append(len(centres[-1]))
        return cls(
            columns=imputer.columns,
            fills=imputer.fills,
            widths=np.array(widths, dtype=np.int64),
            centres=np.concatenate(centres),
            scales=np.concatenate(scales),
        )

    def points(self, frame: Frame) -> Floats:
        """(n, D) float64 without NaN."""
        rows = Imputer(self.columns, self.fills).rows(frame)
        points = np.zeros((len(rows), len(self.centres)))
        numbers = np.arange(len(rows))
        start = 0
        for position, width, column in zip(self.columns.tolist(), self.widths.tolist(), rows.T, strict=True):
            if frame.schema.features[position].kind == "categorical":
                points[numbers, start + _indices(column, width - 1)] = 1.0
            else:
                points[:, start] = column
            start += width
        points -= self.centres
        points /= self.scales
        return points

    def shares(self, parts: Floats, width: int) -> Floats:
        """What each feature adds to a row's score: (n, D) parts >= 0 -> (n, width), each row's sum 1 (or 0)."""
        starts = np.concatenate(([0], np.cumsum(self.widths)[:-1]))
        shares = np.zeros((len(parts), width))
        shares[:, self.columns] = of_each_row(np.add.reduceat(parts, starts, axis=1))
        return shares


def of_each_row(parts: Floats) -> Floats:
    """(n, k) parts >= 0 -> (n, k) shares, each row's sum 1; 0 where it has no parts."""
    totals = parts.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(parts, totals, out=np.zeros_like(parts), where=totals > 0.0), dtype=np.float64)


def _indices(column: Floats, categories: int) -> npt.NDArray[np.int64]:
    """Codes as places among the indicators: an unseen category has the last."""
    codes = column.astype(np.int64)
    return np.where(codes < 0, categories, codes)
