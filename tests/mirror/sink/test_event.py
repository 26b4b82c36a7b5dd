"""The formats of CloudEvents: what is read is right, and what cannot be read is refused and nothing else."""

from __future__ import annotations

import base64
import contextlib
import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from govern.mirror.sink.event import (
    MalformedEvent,
    batched_events,
    binary_attributes,
    structured_event,
    time_ns,
)

ATTRIBUTES = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(
    st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=st.just(UTC)),
    st.integers(-23 * 60 - 59, 23 * 60 + 59),
)
def test_times_are_those_of_the_standard_library(moment: datetime, minutes: int) -> None:
    written = moment.astimezone(timezone(timedelta(minutes=minutes))).isoformat()
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    assert time_ns(written) == (since // timedelta(microseconds=1)) * 1000


def test_nanoseconds_are_kept_and_what_is_no_time_is_none() -> None:
    assert time_ns("1970-01-01T00:00:01.123456789Z") == 1_123_456_789
    for text in ("", "now", "2026-13-01T00:00:00Z", "2026-01-01", "2026-01-01T00:00:00", "0000-01-01T00:00:00Z"):
        assert time_ns(text) is None


@given(JSON.filter(lambda data: data is not None))
def test_json_data_are_what_stood_in_the_envelope(data: object) -> None:
    text = json.dumps(data, ensure_ascii=False)
    envelope = f'{json.dumps(ATTRIBUTES)[:-1]}, "data" : {text}}}'.encode("utf-8", "surrogatepass")
    with contextlib.suppress(UnicodeDecodeError):
        envelope.decode()
        assert structured_event(envelope).data == text.encode()


@given(st.binary())
def test_base64_data_are_unpacked(data: bytes) -> None:
    packed = base64.b64encode(data).decode()
    assert structured_event(json.dumps({**ATTRIBUTES, "data_base64": packed}).encode()).data == data
    older = {**ATTRIBUTES, "specversion": "0.3", "datacontentencoding": "base64", "data": packed}
    assert structured_event(json.dumps(older).encode()).data == data


@given(
    st.binary()
    | JSON.map(lambda found: json.dumps(found).encode())
    | st.dictionaries(st.sampled_from([*ATTRIBUTES, "data", "data_base64", "time", "DATA", "é", ""]), JSON).map(
        lambda found: json.dumps({**ATTRIBUTES, **found}).encode()
    )
)
def test_whatever_comes_is_an_event_or_refused(body: bytes) -> None:
    for read in (structured_event, batched_events):
        with contextlib.suppress(MalformedEvent):
            read(body)


@given(st.dictionaries(st.sampled_from([b"ce-id", b"ce-type", b"ce-time", b"ce-\xff", b"ce-", b"x"]), st.binary()))
def test_whatever_headers_come_are_attributes_or_refused(headers: dict[bytes, bytes]) -> None:
    with contextlib.suppress(MalformedEvent):
        binary_attributes({b"ce-specversion": b"1.0", b"ce-source": b"/s", **headers})


@pytest.mark.parametrize("name", sorted(ATTRIBUTES))
def test_a_required_attribute_that_is_missing_is_named(name: str) -> None:
    left = {key: value for key, value in ATTRIBUTES.items() if key != name}
    with pytest.raises(MalformedEvent, match=repr(name)):
        structured_event(json.dumps(left).encode())
