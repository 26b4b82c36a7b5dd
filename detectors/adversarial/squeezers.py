"""Squeezers: coarser versions of a row, in which small changes disappear."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from detectors.base import Array
from govern.frame import Frame

Floats = npt.NDArray[np.float64]

#: Pixels on each side of the one that the median replaces: windows of 3 x 3.
_REACH: Final = 1


@dataclass(frozen=True, slots=True)
class Squeezers:
    """Coarser versions of the numeric columns; categories are as coarse as they are.

    A missing value stays missing. The median reads it as the reference's.

    Attributes:
        columns: (d,) int64 positions in the schema, of numeric features.
        lows, highs, medians: (d,) float64 of the reference.
        cells: (c + 1, d) float64, quantiles of the reference between which a value counts as their middle.
        bits: () int64, depth to which values are rounded between low and high; 0: not at all.
        width: () int64, pixels in a row of the image that the numeric features are; 0: they are none.
    """

    columns: npt.NDArray[np.int64]
    lows: Floats
    highs: Floats
    medians: Floats
    cells: Floats
    bits: npt.NDArray[np.int64]
    width: npt.NDArray[np.int64]

    @classmethod
    def of(cls, reference: Frame, columns: tuple[int, ...], *, bits: int, cells: int, width: int) -> Squeezers:
        """Squeezers to the range and the quantiles of these numeric columns, each of which has a value."""
        values = [column[~np.isnan(column)] for column in (reference.columns[position] for position in columns)]
        levels = np.linspace(0.0, 1.0, cells + 1)
        return cls(
            columns=np.array(columns, dtype=np.int64),
            lows=np.array([column.min() for column in values], dtype=np.float64),
            highs=np.array([column.max() for column in values], dtype=np.float64),
            medians=np.array([np.median(column) for column in values], dtype=np.float64),
            cells=np.array([np.quantile(column, levels) for column in values], dtype=np.float64)
            .reshape(len(columns), cells + 1)
            .T.copy(),
            bits=np.array(bits, dtype=np.int64),
            width=np.array(width, dtype=np.int64),
        )

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> Squeezers:
        return cls(**arrays)

    def arrays(self) -> dict[str, Array]:
        return {name: getattr(self, name) for name in self.__slots__}

    def __call__(self, frame: Frame) -> dict[str, Frame]:
        """Squeezer -> the frame as it leaves it: the same columns, with fewer values."""
        rows = np.array([frame.columns[position] for position in self.columns.tolist()], dtype=np.float64)
        rows = rows.reshape(len(self.columns), len(frame)).T
        squeezed = {}
        if self.bits:
            squeezed["bits"] = self._rounded(rows)
        if len(self.cells) > 1:
            squeezed["cells"] = self._binned(rows)
        if self.width:
            squeezed["median"] = self._smoothed(rows)
        return {name: self._put(frame, values) for name, values in squeezed.items()}

    def _put(self, frame: Frame, values: Floats) -> Frame:
        columns = list(frame.columns)
        for index, position in enumerate(self.columns.tolist()):
            columns[position] = np.ascontiguousarray(values[:, index])
        return dataclasses.replace(frame, columns=tuple(columns))

    def _rounded(self, rows: Floats) -> Floats:
        steps = 2.0 ** int(self.bits) - 1.0
        spans = np.where(self.highs > self.lows, self.highs - self.lows, 1.0)
        places = np.clip((rows - self.lows) / spans, 0.0, 1.0)
        return np.asarray(self.lows + np.rint(places * steps) / steps * spans, dtype=np.float64)

    def _binned(self, rows: Floats) -> Floats:
        out = np.empty_like(rows)
        for index, (column, edges) in enumerate(zip(rows.T, self.cells.T, strict=True)):
            middles = (edges[1:] + edges[:-1]) / 2.0
            out[:, index] = middles[np.searchsorted(edges[1:-1], column, side="right")]
        out[np.isnan(rows)] = np.nan
        return out

    def _smoothed(self, rows: Floats) -> Floats:
        width = int(self.width)
        gone = np.isnan(rows)
        images = np.where(gone, self.medians, rows).reshape(len(rows), -1, width)
        padded = np.pad(images, ((0, 0), (_REACH, _REACH), (_REACH, _REACH)), mode="edge")
        side = 2 * _REACH + 1
        windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(1, 2))
        smooth = np.median(windows.reshape(*images.shape, side * side), axis=-1).reshape(rows.shape)
        return np.where(gone, np.nan, smooth)
