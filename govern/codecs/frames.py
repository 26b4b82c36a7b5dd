"""Tensors and rows to a `Frame` by its `FeatureSchema`, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

import numpy as np
import numpy.typing as npt

from govern.codecs.arrays import RANGES
from govern.codecs.tensor import DTYPES, Tensor
from govern.columns import encode
from govern.errors import BadInput, DecodeError
from govern.frame import MISSING, UNSEEN, Frame
from govern.schema import Feature, FeatureSchema


def to_frame(tensors: Sequence[Tensor], schema: FeatureSchema, *, instance_prefix: str = "") -> Frame:
    """The rows that an inference request's tensors hold.

    Either one tensor for each feature, by name, of shape (n,) or (n, 1) (embedding, image: (n, ...)), or one
    tensor of shape (n, d) with the d features in schema order, whatever its name. A missing value stays in the
    frame as missing whether or not the feature is nullable: a monitor must not lose the record that shows it.

    Args:
        instance_prefix: the inference's id; rows are named `<prefix>/<row>`. Empty: rows have no names.

    Raises:
        DecodeError: an unknown tensor, a feature without tensor, row counts that differ, a shape of neither form,
            a value that is not of the feature's kind; it names the tensor or feature.
    """
    columns = _columns(tensors, schema)
    rows = len(columns[0])
    for feature, column in zip(schema.features, columns, strict=True):
        if len(column) != rows:
            raise DecodeError(
                f"feature {feature.name!r} has {len(column)} rows",
                why=f"feature {schema.features[0].name!r} has {rows}",
                fix="send one value of each feature for each row",
            )
    return _frame(columns, schema, instance_prefix)


def from_rows(rows: Sequence[Mapping[str, object]], schema: FeatureSchema) -> Frame:
    """The frame of rows given as feature -> value (str, number, bool, None). A key absent from a row is missing.

    Raises:
        DecodeError: no rows, a key that is no feature, a feature that no row has, a value of the wrong kind.
    """
    if not rows:
        raise DecodeError("rows are empty", why="a frame needs at least one row", fix="send one")
    given = set().union(*rows)
    for name in sorted(given.difference(schema.names)):
        raise _unknown(name, schema)
    columns: list[npt.NDArray[np.generic]] = []
    for feature in schema.features:
        if feature.name not in given:
            raise _absent(feature.name, sorted(given))
        column = np.empty(len(rows), dtype=object)
        column[:] = [row.get(feature.name) for row in rows]
        if feature.kind in ("embedding", "image"):
            column = _stack(feature, column)
        columns.append(column)
    return _frame(columns, schema, "")


def to_tensors(frame: Frame) -> list[Tensor]:
    """One tensor (n, 1) for each feature, of its datatype, as a model takes them ((n, ...) for embedding, image).

    A missing value is NaN in a floating datatype and empty text in BYTES.

    Raises:
        BadInput: a missing value, or a category that is no number, in a feature of integer or boolean datatype.
    """
    return [
        _tensor(frame, feature, column) for feature, column in zip(frame.schema.features, frame.columns, strict=True)
    ]


def _columns(tensors: Sequence[Tensor], schema: FeatureSchema) -> list[npt.NDArray[np.generic]]:
    width = len(schema.features)
    if len(tensors) == 1 and tensors[0].name not in schema.names:
        data = tensors[0].data
        if data.ndim == 2 and data.shape[1] == width:
            return [data[:, position] for position in range(width)]
        raise _unknown(tensors[0].name, schema, shape=data.shape)
    named = {tensor.name: tensor for tensor in tensors}
    for name in named:
        if name not in schema.names:
            raise _unknown(name, schema)
    columns: list[npt.NDArray[np.generic]] = []
    for feature in schema.features:
        tensor = named.get(feature.name)
        if tensor is None:
            raise _absent(feature.name, list(named))
        columns.append(_column(tensor.data, feature))
    return columns


def _column(data: npt.NDArray[np.generic], feature: Feature) -> npt.NDArray[np.generic]:
    if feature.kind in ("embedding", "image") and data.ndim > 1:
        return data
    if data.ndim == 2 and data.shape[1] == 1:
        return data[:, 0]
    if data.ndim == 1:
        return data
    raise DecodeError(
        f"tensor {feature.name!r} has shape {list(data.shape)}",
        why=f"a {feature.kind} feature has one value for each row",
        fix="send shape [n] or [n, 1]",
    )


def _frame(columns: Sequence[npt.NDArray[np.generic]], schema: FeatureSchema, instance_prefix: str) -> Frame:
    rows = len(columns[0])
    if rows == 0:
        raise DecodeError("payload has no rows", why="its tensors are empty", fix="send at least one row")
    encoded = [encode(feature, column) for feature, column in zip(schema.features, columns, strict=True)]
    return Frame(
        schema=schema,
        columns=tuple(column.values for column in encoded),
        instance_ids=tuple(f"{instance_prefix}/{row}" for row in range(rows)) if instance_prefix else (),
        unseen={
            feature.name: column.unseen
            for feature, column in zip(schema.features, encoded, strict=True)
            if column.unseen
        },
    )


def _stack(feature: Feature, column: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    try:
        return np.array(column.tolist(), dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise DecodeError(
            f"feature {feature.name!r}",
            why=f"its values are no {feature.kind}s of one shape: {error}",
            fix="send nested lists of numbers of the same shape in every row",
        ) from error


def _tensor(frame: Frame, feature: Feature, column: npt.NDArray[np.generic]) -> Tensor:
    values: npt.NDArray[np.generic] = _categories(frame, feature, column) if feature.kind == "categorical" else column
    if feature.datatype == "BYTES":
        data = np.empty(len(values), dtype=object)
        data[:] = ["" if value is None else str(value) for value in values.tolist()]
    else:
        data = _cast(feature, values, DTYPES[feature.datatype])
    return Tensor(feature.name, feature.datatype, data if data.ndim > 1 else data.reshape(-1, 1))


def _categories(frame: Frame, feature: Feature, column: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    unseen = frame.unseen.get(feature.name, {})
    values = np.empty(len(column), dtype=object)
    values[:] = [
        (unseen.get(row) if code == UNSEEN else None if code == MISSING else feature.categories[code])
        for row, code in enumerate(column.tolist())
    ]
    return values


def _cast(feature: Feature, values: npt.NDArray[np.generic], dtype: np.dtype[np.generic]) -> npt.NDArray[np.generic]:
    if dtype.kind == "b":
        values = np.array(
            [{"true": 1.0, "false": 0.0}.get(str(value), value) for value in values.tolist()], dtype=object
        )
    try:
        numbers = values.astype(np.float64)
    except (ValueError, TypeError) as error:
        raise BadInput(
            f"feature {feature.name!r}: a value is no {feature.datatype}",
            why=str(error),
            fix="set the feature's datatype in the schema to BYTES",
        ) from error
    if dtype.kind != "f" and not bool(np.isfinite(numbers).all()):
        row = int(np.flatnonzero(~np.isfinite(numbers))[0])
        raise BadInput(
            f"feature {feature.name!r}, row {row}: the value is missing",
            why=f"{feature.datatype} has no missing value",
            fix="give a value, or set the feature's datatype in the schema to FP64",
        )
    low, high = RANGES[feature.datatype] if dtype.kind != "b" else (0, 1)
    present = numbers[np.isfinite(numbers)]
    if present.size and not low <= float(present.min()) <= float(present.max()) <= high:
        raise BadInput(
            f"feature {feature.name!r}: a value does not fit {feature.datatype}",
            why=f"the values go from {present.min():g} to {present.max():g}",
            fix="set a wider datatype in the schema",
        )
    return numbers.astype(dtype)


def _unknown(name: str, schema: FeatureSchema, *, shape: tuple[int, ...] | None = None) -> DecodeError:
    near = get_close_matches(name, schema.names, n=1)
    why = f"the schema of {schema.model!r} has no such feature"
    if shape is not None:
        why += f", and its shape {list(shape)} is not [n, {len(schema.features)}] (all features in one tensor)"
    return DecodeError(
        f"{name!r} is no feature",
        why=why,
        fix=f"did you mean {near[0]!r}?" if near else f"send {', '.join(schema.names[:20])}",
    )


def _absent(name: str, given: Sequence[str]) -> DecodeError:
    return DecodeError(
        f"feature {name!r} is absent",
        why=f"the payload has {', '.join(given[:20]) or 'nothing'}",
        fix="send every feature of the schema; null when a value is missing",
    )
