"""Tensors written as raw bytes, over REST and gRPC, are read back as they were."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from govern.codecs import v2, v2_binary, v2_grpc
from govern.codecs.tensor import DTYPES, Tensor, objects
from govern.errors import BadInput


@st.composite
def tensors(draw: st.DrawFn) -> list[Tensor]:
    shape = hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=3)
    found = []
    for position, kind in enumerate(draw(st.lists(st.sampled_from(sorted(DTYPES)), min_size=1, max_size=4))):
        if kind == "BYTES":
            text = st.text(st.characters(exclude_categories=["Cs"]))
            data: np.ndarray = objects(draw(st.lists(text | st.just(b"\xff\xfe"), max_size=4)))
        elif kind == "BF16":
            data = (draw(hnp.arrays(np.uint16, shape)).astype(np.uint32) << 16).view(np.float32)
        else:
            data = draw(hnp.arrays(DTYPES[kind], shape))
        found.append(Tensor(f"x{position}", kind, data))
    return found


def same(read: tuple[Tensor, ...], sent: list[Tensor]) -> None:
    assert [(one.name, one.datatype) for one in read] == [(one.name, one.datatype) for one in sent]
    for one, other in zip(read, sent, strict=True):
        np.testing.assert_array_equal(one.data, other.data)


@given(tensors())
def test_a_binary_request_is_read_back(sent: list[Tensor]) -> None:
    body, size = v2.encode_binary_request(sent, request_id="r")
    read = v2.decode_request(body, json_size=size)
    same(read.inputs, sent)
    assert (read.id, read.parameters[v2_binary.OUTPUT]) == ("r", True)


@given(tensors())
def test_grpc_messages_are_read_back(sent: list[Tensor]) -> None:
    request = v2_grpc.encode_request(sent, model="m", version="2", request_id="r")
    (asked,) = v2_grpc.decode_requests(request, "application/protobuf")
    same(asked.inputs, sent)
    answer = v2_grpc.encode_response("m", sent, model_version="2", request_id="r")
    (given_,) = v2_grpc.decode_responses(answer, "application/protobuf")
    same(given_.outputs, sent)
    assert (asked.id, given_.model_name, given_.model_version, given_.id) == ("r", "m", "2", "r")


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (Tensor("x", "MIXED", objects([1, "a"])), "'x': datatype 'MIXED' cannot be sent"),
        (Tensor("x", "BYTES", objects([1])), "'x': element 1: BYTES holds text or bytes, this is int"),
        (Tensor("x", "BYTES", objects(["\ud800"])), "'x': an element.*surrogates not allowed"),
    ],
)
def test_what_has_no_raw_form_is_named(tensor: Tensor, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        v2_grpc.encode_request([tensor], model="m")


def test_a_missing_text_is_empty() -> None:
    message = v2_grpc.encode_request([Tensor("x", "BYTES", objects([None]))], model="m")
    (read,) = v2_grpc.decode_requests(message, "application/protobuf")
    assert read.inputs[0].data.tolist() == [""]
