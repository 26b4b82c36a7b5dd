"""Frame: the typed rows that detectors and explainers work on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from govern.errors import BadInput
from govern.schema import FeatureSchema

#: Codes of a categorical value that is absent, and of one that the schema does not list.
MISSING: Final = -1
UNSEEN: Final = -2

Value = float | str | None


@dataclass(frozen=True, slots=True)
class Frame:
    """n rows in the columns of a schema, and the model's outputs for them where they are known.

    Attributes:
        schema: names and kinds of the columns.
        columns: one array of shape (n,) for each feature, in schema order.
            numeric: float64, NaN = missing; categorical: int32 index into `Feature.categories`, `MISSING` or
            `UNSEEN`; text: object (str or None); embedding/image: float64 of shape (n, ...).
        instance_ids: `<inference id>/<row>` for each row; empty for a frame that no inference gave.
        unseen: feature -> row -> the value that the schema does not list.
        outputs: output tensor's name -> float64 (n, k).
    """

    schema: FeatureSchema
    columns: tuple[npt.NDArray[np.generic], ...]
    instance_ids: tuple[str, ...] = ()
    unseen: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    outputs: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.columns[0])

    def __getitem__(self, name: str) -> npt.NDArray[np.generic]:
        return self.columns[self.schema.index(name)]

    def matrix(self) -> npt.NDArray[np.float64]:
        """Numeric and categorical columns as (n, d) float64 in schema order.

        A category is its code; a missing value of any kind is NaN; an unseen category is -2.

        Raises:
            BadInput: the schema has a feature of another kind.
        """
        for feature in self.schema.features:
            if feature.kind not in ("numeric", "categorical"):
                raise BadInput(
                    f"feature {feature.name!r} is {feature.kind}",
                    why="a matrix holds numeric and categorical features only",
                    fix="use a method that takes this kind, or leave the feature out of the schema",
                )
        wide = np.empty((len(self), len(self.columns)), dtype=np.float64)
        for position, (feature, column) in enumerate(zip(self.schema.features, self.columns, strict=True)):
            wide[:, position] = column
            if feature.kind == "categorical":
                wide[column == MISSING, position] = np.nan
        return wide

    def take(self, rows: npt.NDArray[np.intp] | slice | Sequence[int]) -> Frame:
        """The rows at these positions, in this order."""
        index = np.arange(len(self))[rows]
        unseen: dict[str, dict[int, str]] = {}
        for name, values in self.unseen.items():
            kept = {new: values[old] for new, old in enumerate(index.tolist()) if old in values}
            if kept:
                unseen[name] = kept
        return Frame(
            schema=self.schema,
            columns=tuple(column[index] for column in self.columns),
            instance_ids=tuple(self.instance_ids[i] for i in index.tolist()) if self.instance_ids else (),
            unseen=unseen,
            outputs={name: values[index] for name, values in self.outputs.items()},
        )

    @classmethod
    def concat(cls, frames: Sequence[Frame]) -> Frame:
        """The rows of all frames, of which there is at least one, in order.

        An output survives only when every frame has it, instance ids only when every row has one.

        Raises:
            BadInput: the frames are of different schemas.
        """
        if len(frames) == 1:
            return frames[0]
        first = frames[0]
        if any(frame.schema is not first.schema and frame.schema != first.schema for frame in frames):
            raise BadInput(
                "frames of different schemas",
                why=f"rows of {first.schema.model!r} were joined with rows of another schema",
                fix="decode all rows by the same schema",
            )
        unseen: dict[str, dict[int, str]] = {}
        start = 0
        for frame in frames:
            for name, values in frame.unseen.items():
                unseen.setdefault(name, {}).update({start + row: value for row, value in values.items()})
            start += len(frame)
        shared = [
            name
            for name in first.outputs
            if all(name in frame.outputs for frame in frames)
            and len({frame.outputs[name].shape[1:] for frame in frames}) == 1
        ]
        return cls(
            schema=first.schema,
            columns=tuple(np.concatenate([frame.columns[i] for frame in frames]) for i in range(len(first.columns))),
            instance_ids=tuple(one for frame in frames for one in frame.instance_ids)
            if all(len(frame.instance_ids) == len(frame) for frame in frames)
            else (),
            unseen=unseen,
            outputs={name: np.concatenate([frame.outputs[name] for frame in frames]) for name in shared},
        )

    def row(self, position: int) -> dict[str, Value]:
        """One row as plain values: float, category or text, None when missing."""
        values: dict[str, Value] = {}
        for feature, column in zip(self.schema.features, self.columns, strict=True):
            cell = column[position]
            if feature.kind == "categorical":
                code = int(cell)
                if code == UNSEEN:
                    values[feature.name] = self.unseen.get(feature.name, {}).get(position)
                else:
                    values[feature.name] = None if code == MISSING else feature.categories[code]
            elif feature.kind == "text":
                values[feature.name] = None if cell is None else str(cell)
            else:
                number = float(cell)
                values[feature.name] = None if np.isnan(number) else number
        return values

    @property
    def digest(self) -> str:
        """SHA-256, hex, over schema and cell contents (not over instance ids)."""
        state = hashlib.sha256(self.schema.digest.encode())
        for column in self.columns:
            state.update(
                repr(column.tolist()).encode() if column.dtype == object else np.ascontiguousarray(column).tobytes()
            )
        for name in sorted(self.unseen):
            state.update(repr((name, sorted(self.unseen[name].items()))).encode())
        return state.hexdigest()
