"""The student: a small multilayer perceptron on mixed columns, kept and evaluated as plain arrays."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from detectors.base import Array
from govern.errors import BadInput
from govern.frame import Frame

Floats = npt.NDArray[np.float64]

#: Codes run from UNSEEN (-2) over MISSING (-1) to the last category: adding this makes them indices.
_CODE_OFFSET: Final = 2
#: Neurons of the two hidden layers: a smooth function of some tens of columns, which must not learn the teacher's
#: every notch, because the notches are what an attack exploits.
_HIDDEN: Final = (64, 32)
#: Share of the rows that tell training when to stop.
_STOPPING_SHARE: Final = 0.1


@dataclass(frozen=True, slots=True)
class Student:
    """A function from rows to centred log-odds (n, k).

    Attributes:
        columns: (d,) int64 positions in the schema, of numeric and categorical features.
        offsets: (d + 1,) int64 where each column's rows of `first` begin: one row for a numeric column and one more
            for "missing"; for a categorical column unseen, missing, then its categories.
        means, deviations: (d,) float64 of numeric columns; 0 and 1 elsewhere.
        first, first_bias, second, second_bias, last, last_bias: the layers' weights, (inputs, outputs) float64.
    """

    columns: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    means: Floats
    deviations: Floats
    first: Floats
    first_bias: Floats
    second: Floats
    second_bias: Floats
    last: Floats
    last_bias: Floats

    @classmethod
    def fit(cls, reference: Frame, columns: tuple[int, ...], targets: Floats, *, epochs: int, seed: int) -> Student:
        """Train on the reference's rows and their targets (n, k), by squared error.

        Raises:
            BadInput: a numeric feature without any value.
        """
        # Half a second to import, which whoever only asks a student does without.
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.neural_network import MLPRegressor

        means, deviations, offsets = [], [], [0]
        for position in columns:
            feature, column = reference.schema.features[position], reference.columns[position]
            if feature.kind == "categorical":
                means.append(0.0)
                deviations.append(1.0)
                offsets.append(offsets[-1] + _CODE_OFFSET + len(feature.categories))
                continue
            values = column[~np.isnan(column)].astype(np.float64)
            if len(values) == 0:
                raise BadInput(
                    f"feature {feature.name!r} has no value in the reference",
                    why=f"all {len(column)} are missing",
                    fix="give another reference, or leave the feature out of the schema",
                )
            means.append(float(values.mean()))
            deviations.append(float(values.std()) or 1.0)
            offsets.append(offsets[-1] + 2)
        where = np.array(columns, dtype=np.int64), np.array(offsets, dtype=np.int64)
        scale = np.array(means), np.array(deviations)
        wide = _wide(reference, *where, *scale)
        network = MLPRegressor(
            hidden_layer_sizes=_HIDDEN,
            early_stopping=True,
            validation_fraction=_STOPPING_SHARE,
            max_iter=epochs,
            random_state=seed,
        )
        # One thread: the matrices are too small to share out, and the order of additions stays the same anywhere.
        with warnings.catch_warnings(), threadpool_limits(limits=1, user_api="blas"):
            # Stopping at the stated number of epochs is the budget, not a fault.
            warnings.simplefilter("ignore", ConvergenceWarning)
            network.fit(wide, targets if targets.shape[1] > 1 else targets[:, 0])
        first, second, last = network.coefs_
        _settle_untrained(first, wide, where[1])
        return cls(*where, *scale, first, network.intercepts_[0], second, network.intercepts_[1], last,
                   network.intercepts_[2])  # fmt: skip

    def __call__(self, frame: Frame) -> Floats:
        """Log-odds (n, k) of each row. A row's result depends on no other row, to the last bit."""
        hidden = np.tile(self.first_bias, (len(frame), 1))
        for index, position in enumerate(self.columns.tolist()):
            start = int(self.offsets[index])
            column = frame.columns[position]
            if frame.schema.features[position].kind == "categorical":
                hidden += self.first[start + _CODE_OFFSET + column.astype(np.int64)]
                continue
            gone = np.isnan(column)
            scaled = np.where(gone, 0.0, (column - self.means[index]) / self.deviations[index])
            hidden += scaled[:, None] * self.first[start]
            hidden[gone] += self.first[start + 1]
        # einsum, not matmul: a BLAS library may add in another order for another number of rows or threads.
        hidden = np.einsum("ni,ij->nj", np.maximum(hidden, 0.0), self.second) + self.second_bias
        return np.asarray(np.einsum("ni,ij->nj", np.maximum(hidden, 0.0), self.last) + self.last_bias, dtype=np.float64)

    def arrays(self) -> dict[str, Array]:
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> Student:
        return cls(**arrays)


def _wide(frame: Frame, columns: npt.NDArray[np.int64], offsets: npt.NDArray[np.int64],
          means: Floats, deviations: Floats) -> Floats:  # fmt: skip
    """(n, offsets[-1]): scaled numbers and their missing marks, and one column for each code."""
    wide = np.zeros((len(frame), int(offsets[-1])))
    rows = np.arange(len(frame))
    for index, position in enumerate(columns.tolist()):
        start, column = int(offsets[index]), frame.columns[position]
        if frame.schema.features[position].kind == "categorical":
            wide[rows, start + _CODE_OFFSET + column.astype(np.int64)] = 1.0
            continue
        gone = np.isnan(column)
        wide[:, start] = np.where(gone, 0.0, (column - means[index]) / deviations[index])
        wide[gone, start + 1] = 1.0
    return wide


def _settle_untrained(first: Floats, wide: Floats, offsets: npt.NDArray[np.int64]) -> None:
    """Give codes that no row had the mean weight of their feature's codes, instead of the random start."""
    shares = wide.mean(axis=0)
    for start, stop in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        part = slice(start, stop)
        if stop - start == 2:  # numeric: value and missing mark
            if not wide[:, start + 1].any():
                first[start + 1] = 0.0
            continue
        never = ~wide[:, part].any(axis=0)
        first[part][never] = shares[part] @ first[part]
