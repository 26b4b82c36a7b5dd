from __future__ import annotations

import math
import typing

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from govern import record, record_pb2
from govern.errors import BadInput

RECORDS: tuple[type[msgspec.Struct], ...] = typing.get_args(record.Record)
#: Everything that is nested in them, too.
STRUCTS = [kind for kind in vars(record).values() if isinstance(kind, type) and issubclass(kind, msgspec.Struct)]

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


def values(kind: type[msgspec.Struct]) -> st.SearchStrategy[typing.Any]:
    """Any value of a record class that its protobuf message can hold."""
    fields = record_pb2.DESCRIPTOR.message_types_by_name[kind.__name__].fields_by_name
    hints = typing.get_type_hints(kind)

    def of(name: str) -> st.SearchStrategy[typing.Any]:
        if name == "schema_version":
            return st.sampled_from([0, record.SCHEMA_VERSION])
        field = fields[name]
        integers = {
            field.TYPE_INT64: st.integers(-(2**63), 2**63 - 1),
            field.TYPE_UINT64: st.integers(0, 2**64 - 1),
            field.TYPE_INT32: st.integers(-(2**31), 2**31 - 1),
            field.TYPE_UINT32: st.integers(0, 2**32 - 1),
        }
        hint = hints[name]
        if typing.get_origin(hint) is tuple:
            item = typing.get_args(hint)[0]
            return st.lists(TEXT if item is str else values(item), max_size=3).map(tuple)
        if typing.get_origin(hint) is dict:
            value = TEXT if typing.get_args(hint)[1] is str else st.binary(max_size=4)
            return st.dictionaries(TEXT, value, max_size=2)
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            return values(hint)
        plain = {str: TEXT, bytes: st.binary(max_size=8), bool: st.booleans(), float: st.floats(allow_nan=False)}
        return plain[hint] if hint in plain else integers[field.type]

    return st.builds(kind, **{name: of(name) for name in kind.__struct_fields__})


@pytest.mark.parametrize("kind", STRUCTS, ids=lambda kind: kind.__name__)
def test_each_class_mirrors_its_message(kind: type[msgspec.Struct]) -> None:
    message = record_pb2.DESCRIPTOR.message_types_by_name[kind.__name__]
    assert [field.name for field in message.fields] == list(kind.__struct_fields__)
    assert kind() == kind(**{name: getattr(kind(), name) for name in kind.__struct_fields__})


def test_no_message_is_without_class() -> None:
    assert {kind.__name__ for kind in STRUCTS} == set(record_pb2.DESCRIPTOR.message_types_by_name)


@given(st.one_of([values(kind) for kind in RECORDS]))
def test_what_is_written_is_read_back(sent: record.Record) -> None:
    wire = record.encode(sent)
    assert record.decode(type(sent), wire) == sent
    assert record.encode(record.decode(type(sent), wire)) == wire


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.__name__)
def test_an_empty_record_is_the_empty_message(kind: type[msgspec.Struct]) -> None:
    assert record.encode(kind()) == b""  # type: ignore[arg-type]
    assert record.decode(kind, b"") == kind()


def test_a_number_with_a_default_of_its_own_is_told_from_none() -> None:
    """As it was written before there was such a field, too."""
    older = record_pb2.Verdict(id="v").SerializeToString()
    assert record.decode(record.Verdict, older).alarm_row == -1
    for row in (0, 7, -1):
        assert record.decode(record.Verdict, record.encode(record.Verdict(id="v", alarm_row=row))).alarm_row == row
    assert record.encode(record.Verdict(id="v", alarm_row=-1)) == older


def test_not_a_number_survives() -> None:
    wire = record.encode(record.Verdict(statistic=math.nan, threshold=math.inf))
    got = record.decode(record.Verdict, wire)
    assert math.isnan(got.statistic)
    assert got.threshold == math.inf


@given(st.sampled_from(RECORDS), st.binary(max_size=60))
def test_foreign_bytes_are_a_record_or_bad_input(kind: type[msgspec.Struct], junk: bytes) -> None:
    try:
        got = record.decode(kind, junk)
    except BadInput:
        return
    assert isinstance(got, kind)


def test_a_newer_record_is_refused() -> None:
    wire = record_pb2.Inference(schema_version=record.SCHEMA_VERSION + 1).SerializeToString()
    with pytest.raises(BadInput, match=r"Inference.schema_version is 2.*upgrade the consumers"):
        record.decode(record.Inference, wire)


def test_an_unknown_field_of_the_same_version_is_ignored() -> None:
    wire = record.encode(record.Feedback(label="x")) + bytes([0x98, 0x06, 0x01])  # field 99, varint 1
    assert record.decode(record.Feedback, wire) == record.Feedback(label="x")


def test_what_is_no_message_says_so() -> None:
    with pytest.raises(BadInput, match=r"record of type Verdict cannot be read.*3 bytes"):
        record.decode(record.Verdict, b"\xff\xff\xff")
