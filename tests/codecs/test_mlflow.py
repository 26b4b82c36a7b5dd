"""MLflow's data frames as Databricks' endpoints take them."""

from __future__ import annotations

import json

import pytest

from govern.codecs import mlflow
from govern.codecs.frames import to_frame
from govern.errors import DecodeError
from govern.schema import FeatureSchema

ROWS = [{"age": 39, "income": 5.5, "sex": "1", "note": "a"}, {"age": 52, "income": None, "sex": "2", "note": ""}]


def test_both_forms_say_the_same(people: FeatureSchema) -> None:
    split = {"columns": list(ROWS[0]), "index": [0, 1], "data": [list(row.values()) for row in ROWS]}
    frames = [
        to_frame(mlflow.decode_request(json.dumps(body).encode()), people)
        for body in ({"dataframe_split": split}, {"dataframe_records": ROWS})
    ]
    for frame in frames:
        assert frame.columns[0].tolist() == [39.0, 52.0]
        assert frame.columns[1].tolist()[0] == 5.5
        assert frame.columns[2].tolist() == [0, 1]
        assert frame.columns[3].tolist() == ["a", None]


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"no json",
        b'{"dataframe_split": {"columns": ["a", "b"], "data": [[1]]}}',
        b'{"dataframe_split": {"columns": ["a"], "data": []}}',
        b'{"dataframe_split": {"columns": ["a"]}}',
        b'{"dataframe_records": []}',
        b'{"dataframe_records": [1]}',
    ],
)
def test_what_is_no_data_frame_is_refused(body: bytes) -> None:
    with pytest.raises(DecodeError):
        mlflow.decode_request(body)
