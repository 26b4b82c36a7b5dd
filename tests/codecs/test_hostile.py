"""Whatever comes in a body, every codec reads it or refuses it with a DecodeError that says what to do."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from govern.codecs.frames import to_frame
from govern.codecs.protocols import CODECS, Body
from govern.codecs.seldon_message import decode_feedback
from govern.codecs.sniff import protocol_of
from govern.errors import DecodeError
from govern.schema import Feature, FeatureSchema
from tests.codecs.test_golden import BODIES, body_of

SCHEMA = FeatureSchema(
    format_version=1,
    model="m",
    features=(Feature(name="prompt", kind="text", datatype="BYTES"), Feature(name="a", kind="numeric")),
)

CHAT = {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}], "stream": True}
CHUNK = {"choices": [{"delta": {"content": "a", "tool_calls": [{"index": 0, "function": {"name": "f"}}]}}]}
OTHERS = {
    "v1": [{"instances": [{"a": 1, "prompt": {"b64": "aGk="}}]}, {"outputs": {"a": [[1, 2]]}}],
    "v2": [{"inputs": [{"name": "a", "shape": [1], "datatype": "BF16", "data": [1.5]}]}],
    "seldon-v1": [
        {"data": {"names": ["a", "prompt"], "ndarray": [[1, "x"]]}, "meta": {"puid": "p"}},
        {"data": {"tensor": {"shape": [1, 2], "values": [1, 2]}}},
        {"binData": "aGk="},
        {"jsonData": {"a": 1}},
    ],
    "openai": [CHAT, {"prompt": ["a"]}, {"data": [{"embedding": "AACAPw==", "index": 0}]}],
}
STREAM = b"data: " + json.dumps(CHUNK).encode() + b"\n\ndata: [DONE]\n\n"

VALID: list[tuple[str, Body]] = [
    *((sent["protocol"], body_of(name)) for name, sent in BODIES.items()),
    *((name, Body(json.dumps(one).encode())) for name, many in OTHERS.items() for one in many),
    ("openai", Body(STREAM, "text/event-stream")),
]


@st.composite
def mutated(draw: st.DrawFn, data: bytes) -> bytes:
    """Pieces overwritten, taken out and put in."""
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        out, put = (
            draw(st.integers(0, 9)),
            draw(st.binary(max_size=9) | st.sampled_from([b"null", b"1e999", b"[", b"{"])),
        )
        data = data[:at] + put + data[at + out :]
    return data


def read(protocol: str, body: Body) -> None:
    """Read a body as either side; anything but an answer and a DecodeError fails the test."""
    codec = CODECS[protocol]
    refused: list[DecodeError] = []
    for side in (
        lambda: to_frame(codec.request(body, SCHEMA), SCHEMA),
        lambda: codec.response(body),
        lambda: protocol_of(body),
    ):
        try:
            side()
        except DecodeError as error:
            refused.append(error)
    assert all(error.what and error.why and error.fix for error in refused)


@pytest.mark.parametrize("protocol", CODECS)
@given(junk=st.binary(), content_type=st.sampled_from(["", "application/grpc", "application/protobuf"]))
def test_any_bytes(protocol: str, junk: bytes, content_type: str) -> None:
    read(protocol, Body(junk, content_type))


@given(st.sampled_from(VALID), st.data())
def test_messages_that_were_damaged(valid: tuple[str, Body], data: st.DataObject) -> None:
    protocol, body = valid
    damaged = data.draw(mutated(body.data))
    read(protocol, Body(damaged, body.content_type, body.headers, body.path))
    read(data.draw(st.sampled_from(sorted(CODECS))), Body(damaged))


#: Every field that a codec reads.
FIELDS = (
    *("name", "names", "shape", "values", "data", "datatype", "parameters", "content_type", "binary_data_size"),
    *("instances", "inputs", "predictions", "outputs", "b64"),
    *("ndarray", "tensor", "strData", "jsonData", "binData", "meta", "puid", "request", "response", "reward", "truth"),
    *("messages", "role", "content", "text", "tool_calls", "function", "prompt", "input"),
    *("dataframe_split", "dataframe_records", "columns"),
    *("choices", "index", "delta", "usage", "total_tokens", "embedding", "error"),
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([10**400, -(2**63)]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(FIELDS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@pytest.mark.parametrize("protocol", CODECS)
@given(document=JSON)
def test_any_json_of_the_fields(protocol: str, document: object) -> None:
    text = json.dumps(document).encode()
    read(protocol, Body(text))
    read(protocol, Body(b"data: " + text + b"\n\n", "text/event-stream"))


@given(JSON | st.fixed_dictionaries({"truth": JSON, "reward": st.floats()}))
def test_any_feedback(document: object) -> None:
    try:
        feedback = decode_feedback(json.dumps(document).encode())
    except DecodeError as error:
        assert error.fix  # noqa: PT017 - any other error fails the test, and none is as good
    else:
        assert isinstance(feedback.truth, str)
