"""Checkpoint messages: exact round trip, and clear refusals."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from govern.errors import BadInput
from govern.runtime import checkpoint
from govern.runtime.checkpoint import WindowKey


@given(st.tuples(st.text(), st.text(), st.text(), st.text()), st.integers(0, 10**6), st.integers(0, 9))
def test_keys_survive_any_name(names: tuple[str, str, str, str], number: int, piece: int) -> None:
    key = WindowKey(*names)
    assert checkpoint.parse_chunk_key(key.chunk(number, piece)) == (key, number, piece)
    assert checkpoint.parse_window_text(key.text) == key


def test_partition_state_round_trip() -> None:
    state = checkpoint.decode_partition(checkpoint.encode_partition(17, {"k": 2}, {"agent": 5}))
    assert (state.offset, state.lost, state.dropped) == (17, {"k": 2}, {"agent": 5})


def test_another_format_version_is_refused_by_name() -> None:
    data = msgspec.msgpack.encode({"format_version": 99, "offset": "not even a number"})
    with pytest.raises(BadInput, match="format_version 99") as caught:
        checkpoint.decode_partition(data)
    assert "checkpoints topic" in caught.value.fix


@given(st.binary(max_size=40))
def test_damaged_bytes_are_bad_input_and_nothing_else(data: bytes) -> None:
    for decode in (checkpoint.decode_partition, checkpoint.parse_chunk_key):
        with pytest.raises(BadInput):
            decode(data)
