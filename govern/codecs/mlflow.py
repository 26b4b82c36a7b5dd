"""MLflow's scoring protocol, as Databricks serves models: data frames as JSON.

https://mlflow.org/docs/latest/genai/serving/, "accepted formats": `dataframe_split` (columns and rows) and
`dataframe_records` (one object for each row). Its `instances` and `inputs`, and its answers, are those of V1.
"""

from __future__ import annotations

from typing import Final

import msgspec

from govern.codecs import v1
from govern.codecs.json_body import parse
from govern.codecs.tensor import Tensor
from govern.errors import DecodeError

#: Of which a request has one.
FIELDS: Final = frozenset(("dataframe_split", "dataframe_records"))


class _Split(msgspec.Struct):
    columns: list[str]
    data: list[list[object]]


class _Request(msgspec.Struct):
    dataframe_split: _Split | None = None
    dataframe_records: list[dict[str, object]] | None = None


def decode_request(body: bytes) -> list[Tensor]:
    """Read an invocation; one tensor for each column.

    Raises:
        DecodeError: no JSON, neither form, rows of another length than the columns, no rows.
    """
    request = parse(body, _Request, what="MLflow request")
    split = request.dataframe_split
    if split is None:
        if request.dataframe_records is None:
            raise DecodeError("MLflow request", why="it has no data frame", fix="send dataframe_split or _records")
        return v1.decode_request(msgspec.json.encode({"instances": request.dataframe_records}))
    for number, row in enumerate(split.data):
        if len(row) != len(split.columns):
            raise DecodeError(
                f"MLflow request, row {number} has {len(row)} values",
                why=f"`dataframe_split` has {len(split.columns)} columns",
                fix="send one value of each column in each row",
            )
    columns = dict(zip(split.columns, map(list, zip(*split.data, strict=True)), strict=False))
    return v1.decode_request(msgspec.json.encode({"inputs": columns}))
