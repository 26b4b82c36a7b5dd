"""From record to leaf."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st

from audit.document import BadDocument, canonical, disclose, iso_time, parse, undisclose
from audit.entry import KINDS, as_json, columns, draft, draft_record
from govern import record as records
from govern import record_pb2

from .conftest import Stream


def test_json_equals_protobufs_own() -> None:
    """ProtoJSON as google.protobuf writes it, for a record with every kind of field."""
    for record in (
        records.Verdict(
            schema_version=1,
            alarm=True,
            statistic=float("nan"),
            p_value=float("-inf"),
            threshold=0.1,
            seed=2**64 - 1,
            features=(records.FeatureResult(feature="ä\x00", n=2**60, p_value=1e-300),),
            window=records.Window(partition=3, first_offset=2**62),
        ),
        records.DeadLetter(id="d", key=b"\x00\xff", value=b"v", headers={"a": b"\x01"}, source_offset=-1),
        records.Inference(truncated=("request",), status_code=200, capture=records.Capture(seq=2**63)),
    ):
        message = getattr(record_pb2, type(record).__name__)()
        message.ParseFromString(records.encode(record))
        assert as_json(record) == MessageToDict(message, preserving_proto_field_name=True)


def test_every_record_has_a_kind() -> None:
    assert set(KINDS) == set(records.Record.__args__)


def test_personal_data_is_withheld() -> None:
    stream = Stream()
    secrets = ["31x", "refused", "lowered", "age <= 31", "0.3125", "principal-one", "ab" * 32, "inputs", "no protobuf"]
    for message in stream.everything():
        one = draft(message)
        leaf = canonical(one.leaf(log="l", recorded_ns=1, sealed=None)).decode()
        for secret in secrets:
            assert secret not in leaf, (one.kind, secret)
        assert bool(one.withheld) == (one.kind not in ("verdict", "access", "config"))


def test_captured_headers_are_withheld_and_come_back() -> None:
    headers = {"x-tenant": "ada@bank.example"}
    record = records.Inference(id="i", request_id="r", request=records.Payload(size=1, headers=headers))
    one = draft_record(record, None)
    assert one.record["request"] == {"size": "1"}
    shown = disclose("request.headers", one.withheld["request.headers"])
    assert shown == {"encoding": "json", "value": headers}


def test_sealed_values_are_withheld_so_that_they_can_be_erased() -> None:
    record = records.Inference(id="i", request_id="r", request=records.Payload(size=1, sealed=b"\x01box"))
    one = draft_record(record, None)
    assert "sealed" not in canonical(one.leaf(log="l", recorded_ns=1, sealed=None)).decode()
    assert one.withheld["request.sealed"] == b"\x01box"


def test_subjects() -> None:
    stream = Stream()
    plain, person = stream.inference(1), stream.inference(2, principal="principal-one")
    assert draft(plain).subject == "request:req-1"
    assert draft(person).subject == "principal:principal-one"
    letter = draft(stream.dead_letter(person))
    assert (letter.subject, letter.concerns) == ("principal:principal-one", "req-2")
    assert draft(stream.explanation(3)).subject == "request:req-3"
    raw = draft(stream.raw("inferences", b"\xff"))
    assert raw.kind == "undecodable"
    assert raw.subject == "record:govern.demo.inferences/0/2"
    access = draft(stream.access("req-9"))
    assert access.concerns == "req-9"
    query = draft_record(records.Access(id="a", action="query", subject="kind=verdict"), None)
    assert query.concerns == ""


def test_columns_come_from_the_leaf() -> None:
    stream = Stream()
    stream.inference(0)
    one = draft(stream.verdict(7, 9))
    leaf = parse(canonical(one.leaf(log="l", recorded_ns=1, sealed=None)))
    found = columns(leaf)
    assert (found.pipeline, found.step, found.alarm, found.topic, found.offset) == (
        "watch",
        "outlier",
        True,
        "govern.demo.verdicts",
        0,
    )
    assert (found.window_topic, found.window_first, found.window_last) == ("govern.demo.inferences", 7, 9)


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(value=st.dictionaries(st.text(), json_values))
def test_canonical_json_is_a_fixed_point(value: dict[str, Any]) -> None:
    once = canonical(value)
    assert canonical(parse(once)) == once
    assert parse(once) == value


@pytest.mark.parametrize("value", [2**53, float("nan"), float("inf"), "\ud800"])
def test_what_canonical_json_cannot_say(value: Any) -> None:
    with pytest.raises(BadDocument):
        canonical(value)


@pytest.mark.parametrize(
    "text", ["", "[]", "1", '{"a": 1, "a": 1}', '{"a": NaN}', '{"a": [{"b": 1, "b": 2}]}', "[" * 99_999]
)
def test_documents_that_are_refused(text: str) -> None:
    with pytest.raises(BadDocument):
        parse(text)


@given(value=st.binary())
def test_disclosed_bytes_come_back(value: bytes) -> None:
    shown = disclose("request.body", value)
    assert undisclose(json.loads(json.dumps(shown))) == value


def test_disclosed_json_comes_back() -> None:
    value = canonical([{"feature": "age", "contribution": -0.25}])
    assert undisclose(disclose("attributions", value)) == value
    for bad in (
        None,
        {"encoding": "text"},
        {"encoding": "text", "value": "a", "more": 1},
        {"encoding": "base64", "value": "A"},
    ):
        with pytest.raises(BadDocument):
            undisclose(bad)  # type: ignore[arg-type]


def test_times_keep_their_nanoseconds() -> None:
    assert iso_time(1_700_000_000_123_456_789) == "2023-11-14T22:13:20.123456789Z"
    assert iso_time(0) == ""
