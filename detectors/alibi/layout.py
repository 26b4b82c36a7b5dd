"""Frames as the arrays that a detector of alibi-detect takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from detectors.alibi.child.wire import Array
from govern.errors import BadInput
from govern.frame import Frame
from govern.schema import FeatureKind, FeatureSchema

TABULAR: tuple[FeatureKind, ...] = ("numeric", "categorical")


@dataclass(frozen=True, slots=True)
class Layout:
    """Which features a detector is given, and how.

    Attributes:
        method: as errors call the detector.
        columns: positions in the schema: of numeric and categorical features, or of one of another kind.
        context: positions of those that are given beside: what ContextMMDDrift conditions on, the times of Prophet.
        dtype: of the array.
    """

    method: str
    columns: tuple[int, ...]
    context: tuple[int, ...]
    dtype: str

    @classmethod
    def of(cls, schema: FeatureSchema, *, method: str, context: Sequence[str] = (), dtype: str = "float64") -> Layout:
        """
        Raises:
            BadInput: a name that the schema lacks, or a mixture of kinds that makes no array.
        """
        beside = tuple(schema.index(name) for name in context)
        columns = tuple(position for position in range(len(schema.features)) if position not in beside)
        kinds = {schema.features[position].kind for position in columns}
        if not columns or not (kinds <= set(TABULAR) or len(columns) == 1):
            raise BadInput(
                f"{method}: the schema of {schema.model!r} is of {', '.join(sorted(kinds)) or 'no'} features",
                why="alibi-detect takes one array: numbers and categories, or one text, image or embedding",
                fix="leave the others out of the schema",
            )
        return cls(method, columns, beside, dtype)

    @property
    def width(self) -> int:
        return len(self.columns)

    def question(self, frame: Frame) -> tuple[dict[str, Any], dict[str, Array]]:
        """What is sent of a frame: texts, and arrays `x` and `context` with a row for each row.

        Categories are their codes, missing -1, unseen -2.

        Raises:
            BadInput: a value is missing that has no such code.
        """
        arrays: dict[str, Array] = {}
        if self.context:
            arrays["context"] = self._numbers(frame, self.context, "float64")
        if frame.schema.features[self.columns[0]].kind == "text":
            return {"texts": ["" if text is None else str(text) for text in frame.columns[self.columns[0]]]}, arrays
        arrays["x"] = self._numbers(frame, self.columns, self.dtype)
        return {}, arrays

    def _numbers(self, frame: Frame, columns: Sequence[int], dtype: str) -> Array:
        if frame.schema.features[columns[0]].kind in TABULAR:
            rows = np.column_stack([frame.columns[position].astype(np.float64) for position in columns])
        else:
            rows = frame.columns[columns[0]].astype(np.float64)
        gone = np.argwhere(np.isnan(rows))
        if len(gone):
            row, column = gone[0].tolist()[:2]
            feature = frame.schema.features[columns[column if len(columns) > 1 else 0]].name
            raise BadInput(
                f"{self.method}: feature {feature!r} is missing in row {row}",
                why="alibi-detect takes complete numbers only",
                fix="use a native detector, which takes missing values into account, or leave the feature out",
            )
        return rows.astype(dtype)
