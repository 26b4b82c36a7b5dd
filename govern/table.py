"""Tables of reference data (CSV, Parquet): read, described by a `FeatureSchema`, and turned to a `Frame`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from govern.columns import encode, texts
from govern.errors import BadInput, DecodeError
from govern.frame import Frame
from govern.schema import FORMAT_VERSION, Feature, FeatureKind, FeatureSchema

#: Text with more different values than this is free text, not a category.
MAX_CATEGORIES: Final = 100
#: Integers with more different values than this measure something; codes of a questionnaire have fewer.
MAX_INTEGER_CATEGORIES: Final = 20

_PARQUET_MAGIC: Final = b"PAR1"
_NUMBER: Final = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?")
#: What stands for a missing cell in CSV. "NA" does not: it is also a country's code.
_CSV_NULLS: Final = ("", "NaN", "nan", "null", "NULL")


@dataclass(frozen=True, slots=True)
class Table:
    """Rows and named, typed columns.

    Attributes:
        origin: the file, for messages.
    """

    origin: str
    data: pa.Table

    def __len__(self) -> int:
        return int(self.data.num_rows)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(str(name) for name in self.data.column_names)

    def head(self, n: int) -> Table:
        """The first n rows (all when there are fewer)."""
        return Table(self.origin, self.data.slice(0, n))

    def sample(self, n: int, *, seed: int) -> Table:
        """n rows drawn without replacement, in their order (all when there are fewer)."""
        if n >= len(self):
            return self
        rows = np.random.default_rng(seed).choice(len(self), size=n, replace=False)
        return Table(self.origin, self.data.take(np.sort(rows)))

    def column(self, name: str) -> npt.NDArray[np.generic]:
        """(n,) values: float64 for numbers (NaN = missing; integers stay int64 when none is), bool, or object (text).

        Raises:
            BadInput: no such column, or one of a type that no feature can have.
        """
        self.require([name], needed_as="column")
        column = self.data.column(name)
        kind = column.type
        if pa.types.is_dictionary(kind):
            column = column.cast(kind.value_type)
            kind = column.type
        if pa.types.is_decimal(kind) or pa.types.is_floating(kind):
            column = column.cast(pa.float64())
        elif pa.types.is_large_string(kind):
            column = column.cast(pa.string())
        elif not (pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_string(kind)):
            raise BadInput(
                f"{self.origin}: column {name!r} has type {kind}",
                why="features are numbers, booleans or text",
                fix="exclude the column, or turn it to a number or text first",
            )
        values: npt.NDArray[np.generic] = column.to_numpy()
        return values

    def require(self, names: Sequence[str], *, needed_as: str) -> None:
        """Check that the columns exist.

        Raises:
            BadInput: one does not; it names the nearest that does.
        """
        for name in names:
            if name not in self.names:
                near = get_close_matches(name, self.names, n=1)
                raise BadInput(
                    f"{self.origin}: {needed_as} {name!r} is missing",
                    why=f"the columns are {', '.join(self.names)}",
                    fix=f"did you mean {near[0]!r}?" if near else "correct the name",
                )


def read(path: Path) -> Table:
    """Read a table: Parquet by its content, CSV (.csv, .csv.gz) with a header line by its name.

    Raises:
        BadInput: the file cannot be read, is damaged or of another format, has no rows, or a column twice.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            parquet = file.read(len(_PARQUET_MAGIC)) == _PARQUET_MAGIC
        if parquet:
            data = pa.parquet.read_table(path)
        elif path.name.endswith((".csv", ".csv.gz")):
            options = pa.csv.ConvertOptions(null_values=list(_CSV_NULLS), strings_can_be_null=True)
            data = pa.csv.read_csv(path, convert_options=options)
        else:
            raise BadInput(
                f"table {path} is no Parquet", why="it does not begin with PAR1", fix="name a Parquet or .csv file"
            )
    except OSError as error:
        raise BadInput(f"table {path} cannot be read", why=str(error), fix="name an existing, whole file") from error
    except pa.ArrowException as error:
        raise BadInput(f"table {path} is damaged", why=str(error), fix="write the file again") from error
    twice = sorted({name for name in data.column_names if data.column_names.count(name) > 1})
    if twice or data.num_rows == 0:
        raise BadInput(
            f"table {path}: {f'column {twice[0]!r} comes twice' if twice else 'it has no rows'}",
            why="a reference has rows, and each column one name",
            fix="write the file again",
        )
    return Table(str(path), data)


def infer_schema(
    table: Table,
    model: str,
    *,
    exclude: Sequence[str] = (),
    protected: Sequence[str] = (),
    pii: Sequence[str] = (),
    titles: Mapping[str, str] | None = None,
    labels: Mapping[str, Mapping[str, str]] | None = None,
) -> FeatureSchema:
    """Describe the columns as features: a first draft that a person can edit.

    Floating numbers are numeric. Dictionary columns and booleans are categorical, as are text and integers with few
    different values (`MAX_CATEGORIES`, `MAX_INTEGER_CATEGORIES`, and at most one for two rows). Other integers are
    numeric, other text is text. Categories are sorted as a person would, 2 before 10.

    Args:
        exclude: columns that are no input of the model (identifiers, labels, predictions).
        labels: column -> category -> words for it.

    Raises:
        BadInput: a named column that is missing, a column without values or of a type that no feature can have.
    """
    titles, labels = titles or {}, labels or {}
    for needed_as, names in (
        ("excluded column", exclude),
        ("protected column", protected),
        ("personal column", pii),
        ("column with a title", list(titles)),
        ("column with labels", list(labels)),
    ):
        table.require(names, needed_as=needed_as)
    features = []
    for name in table.names:
        if name in exclude:
            continue
        kind, datatype = _kind(table, name)
        values = table.column(name)
        numbers = _present(values) if kind == "numeric" else np.empty(0)
        features.append(
            Feature(
                name=name,
                kind=kind,
                title=titles.get(name, ""),
                datatype=datatype,
                categories=_categories(values) if kind == "categorical" else (),
                labels=dict(labels.get(name, {})),
                minimum=float(numbers.min()) if numbers.size else None,
                maximum=float(numbers.max()) if numbers.size else None,
                nullable=_has_missing(values),
                protected=name in protected,
                pii=name in pii,
            )
        )
    return FeatureSchema(format_version=FORMAT_VERSION, model=model, features=tuple(features))


def frame_of(table: Table, schema: FeatureSchema, outputs: Mapping[str, str] | None = None) -> Frame:
    """The rows as a frame of the schema; columns that are no feature are left out.

    Args:
        outputs: output tensor's name -> the column that holds it.

    Raises:
        BadInput: a feature or output without column, a value that is not of the feature's kind, an output that is
            no number.
    """
    table.require(schema.names, needed_as="feature")
    table.require(list((outputs or {}).values()), needed_as="output column")
    try:
        columns = [encode(feature, table.column(feature.name)) for feature in schema.features]
    except DecodeError as error:
        raise BadInput(f"{table.origin}: {error.what}", why=error.why, fix="correct the table or the schema") from error
    return Frame(
        schema=schema,
        columns=tuple(column.values for column in columns),
        unseen={name: column.unseen for name, column in zip(schema.names, columns, strict=True) if column.unseen},
        outputs={name: _output(table, column) for name, column in (outputs or {}).items()},
    )


def _kind(table: Table, name: str) -> tuple[FeatureKind, str]:
    column = table.data.column(name)
    if column.null_count == len(column):
        raise BadInput(
            f"{table.origin}: column {name!r} has no values",
            why="every cell is missing, so nothing can be learned of it",
            fix="exclude the column",
        )
    kind = column.type
    if pa.types.is_dictionary(kind):
        return "categorical", "BYTES"
    if pa.types.is_boolean(kind):
        return "categorical", "BOOL"
    if pa.types.is_integer(kind):
        return ("categorical" if _few(column, MAX_INTEGER_CATEGORIES) else "numeric"), "INT64"
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "numeric", "FP64"
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return ("categorical" if text and _few(column, MAX_CATEGORIES) else "text"), "BYTES"


def _few(column: pa.ChunkedArray[Any], limit: int) -> bool:
    count = int(pc.count_distinct(column).as_py())
    return count <= min(limit, max(2, len(column) // 2))


def _categories(values: npt.NDArray[np.generic]) -> tuple[str, ...]:
    return tuple(sorted({text for text in texts(values) if text}, key=_natural))


def _natural(text: str) -> tuple[tuple[int, float, str], ...]:
    if _NUMBER.fullmatch(text):
        return ((0, float(text), text),)
    parts = re.split(r"([0-9]+)", text)
    return tuple((1, float(part), part) if part[0] in "0123456789" else (2, 0.0, part) for part in parts if part)


def _present(values: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    numbers = values.astype(np.float64)
    return numbers[np.isfinite(numbers)]


def _has_missing(values: npt.NDArray[np.generic]) -> bool:
    if values.dtype == object:
        return any(value is None or value == "" for value in values.tolist())
    return bool(values.dtype.kind == "f" and not np.isfinite(values.astype(np.float64)).all())


def _output(table: Table, name: str) -> npt.NDArray[np.float64]:
    values = table.column(name)
    if values.dtype == object:
        raise BadInput(
            f"{table.origin}: output column {name!r} is {table.data.column(name).type}",
            why="a model's output is numbers (probabilities, scores, class numbers)",
            fix="name the column with the number",
        )
    return values.astype(np.float64).reshape(-1, 1)
