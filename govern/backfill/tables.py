"""Rows of Parquet files, a bounded number of them in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from govern.errors import BadInput

#: Rows read at once: payloads are up to 1 MB.
_BATCH_ROWS: Final = 256


def rows(path: Path, *, needed: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows as dictionaries; a point in time is an int, microseconds since the Unix epoch.

    Raises:
        BadInput: it cannot be read, is no Parquet, or lacks a column.
    """
    try:
        with pq.ParquetFile(path) as file:
            names = set(file.schema_arrow.names)
            missing = [name for name in needed if name not in names]
            if missing:
                raise BadInput(
                    f"{path} has no column {missing[0]!r}",
                    why=f"its columns are {', '.join(file.schema_arrow.names)}",
                    fix="name a file of the table, written with its own column names",
                )
            for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                yield from _timed(batch).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise BadInput(f"{path} is no Parquet", why=str(error), fix="name an existing, whole file") from error


def _timed(batch: pa.RecordBatch) -> pa.RecordBatch:
    columns = []
    for column in batch.columns:
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.timestamp("us", tz=column.type.tz), safe=False).cast(pa.int64())
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)
