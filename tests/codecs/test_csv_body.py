"""Rows of CSV as SageMaker's endpoints take and give them."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from govern.codecs import csv_body
from govern.codecs.frames import to_frame
from govern.errors import DecodeError
from govern.schema import FeatureSchema


def test_rows_without_a_header_are_in_schema_order(people: FeatureSchema) -> None:
    body = b'39,1e3,1,"a, b"\r\n52,,2,\n'
    frame = to_frame(csv_body.decode_request(body, people.names), people)
    assert frame.columns[0].tolist() == [39.0, 52.0]
    assert frame.columns[1].tolist()[0] == 1000.0
    assert frame.columns[1].tolist()[1] != frame.columns[1].tolist()[1]  # NaN: the cell is empty
    assert frame.columns[2].tolist() == [0, 1]
    assert frame.columns[3].tolist() == ["a, b", None]


def test_a_header_may_have_another_order(people: FeatureSchema) -> None:
    body = "\ufeffnote,sex,income,age\nx,2,5.5,39\n".encode()
    frame = to_frame(csv_body.decode_request(body, people.names), people)
    assert [column.tolist() for column in frame.columns] == [[39.0], [5.5], [1], ["x"]]


def test_what_only_looks_like_a_number_stays_text() -> None:
    (tensor,) = csv_body.decode_request(b"007,1_000,inf,1.50\n", ())
    assert tensor.datatype == "MIXED"
    assert tensor.data.tolist() == [["007", "1_000", "inf", 1.5]]


def test_answers_are_numbers_where_all_are() -> None:
    (tensor,) = csv_body.decode_response(b"0.25,0.75\n0.5,0.5\n")
    assert (tensor.name, tensor.datatype, tensor.data.shape) == ("predictions", "FP64", (2, 2))


@pytest.mark.parametrize("body", [b"", b"\n\n", b"1,2\n3\n", b"\xff\xfe\x00", b'"open', b"age,income,sex,note\n"])
def test_what_are_no_rows_is_refused(people: FeatureSchema, body: bytes) -> None:
    with pytest.raises(DecodeError):
        csv_body.decode_request(body, people.names)


cells = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=6).map(lambda text: f"x{text}y")


@given(st.lists(st.lists(cells, min_size=3, max_size=3), min_size=1, max_size=5))
def test_text_comes_through_as_it_was_written(rows: list[list[str]]) -> None:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    (tensor,) = csv_body.decode_request(text.getvalue().encode(), ())
    assert tensor.data.tolist() == rows
