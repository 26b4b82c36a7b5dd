"""Frames, header blocks and the names in a message: read whatever way they come."""

from __future__ import annotations

import itertools

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from govern.codecs.open_inference_pb2 import ModelInferRequest
from govern.mirror.grpc.hpack import BadHeaders, HeaderReader, unpacked
from govern.mirror.grpc.hpack_tables import HUFFMAN
from govern.mirror.grpc.http2 import Frame, FrameReader, Kind, NotHttp2, frame, header_block
from govern.mirror.grpc.names import SCAN_BYTES, said_by
from govern.mirror.rules import Said

#: RFC 7541, appendix C.3 to C.6: blocks of one connection in order, and their fields.
REQUESTS = [
    [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")],
    [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "www.example.com"),
        ("cache-control", "no-cache"),
    ],
    [
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/index.html"),
        (":authority", "www.example.com"),
        ("custom-key", "custom-value"),
    ],
]
PLAIN = [
    "828684410f7777772e6578616d706c652e636f6d",
    "828684be58086e6f2d6361636865",
    "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
]
PACKED = [
    "828684418cf1e3c2e5f23a6ba0ab90f4ff",
    "828684be5886a8eb10649cbf",
    "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
]


@pytest.mark.parametrize("blocks", [PLAIN, PACKED], ids=["plain", "packed"])
def test_the_rfcs_requests(blocks: list[str]) -> None:
    reader = HeaderReader()
    for block, fields in zip(blocks, REQUESTS, strict=True):
        assert reader.read(bytes.fromhex(block)) == [(name.encode(), value.encode()) for name, value in fields]


def test_the_rfcs_packed_strings() -> None:
    assert unpacked(bytes.fromhex("6402")) == b"302"
    assert unpacked(bytes.fromhex("d07abe941054d444a8200595040b8166e082a62d1bff")) == b"Mon, 21 Oct 2013 20:13:21 GMT"
    assert unpacked(bytes.fromhex("9d29ad171863c78f0b97c8e9ae82ae43d3")) == b"https://www.example.com"


def test_any_packed_string_is_read() -> None:
    """Each byte's code, from the table of code lengths that the canonical codes follow from."""
    codes = {byte: code for code, byte in HUFFMAN.items()}
    for text in (bytes(range(256)), b"", b"a" * 1000):
        bits = "".join(f"{code:0{length}b}" for length, code in (codes[byte] for byte in text))
        bits += "1" * (-len(bits) % 8)
        packed = int(bits or "0", 2).to_bytes(len(bits) // 8, "big")
        assert unpacked(packed) == text
    with pytest.raises(BadHeaders):
        unpacked(b"\x00" * 3)  # five codes of "0" and padding that is none
    with pytest.raises(BadHeaders):
        unpacked(b"\xff\xff\xff\xff")  # the end of strings, which must not be sent


def test_an_entry_is_evicted_when_the_table_shrinks() -> None:
    reader = HeaderReader()
    reader.read(bytes.fromhex(PLAIN[0]))
    assert reader.read(b"\xbe") == [(b":authority", b"www.example.com")]
    with pytest.raises(BadHeaders):
        reader.read(b"\x20\xbe")


FIELDS = st.lists(st.tuples(st.binary(min_size=1, max_size=200), st.binary(max_size=300)), max_size=10)


def test_a_block_means_what_the_table_says_when_it_comes() -> None:
    reader = HeaderReader()
    newest, second = b"\xbe", b"\xbf"
    b_is_kept, c_is_kept = b"\x40\x01a\x01b", b"\x40\x01a\x01c"
    reader.read(b_is_kept)
    assert reader.read(newest) == reader.read(newest) == [(b"a", b"b")]
    reader.read(c_is_kept)
    assert (reader.read(newest), reader.read(second)) == ([(b"a", b"c")], [(b"a", b"b")])
    reader.read(c_is_kept)
    assert reader.read(second) == [(b"a", b"c")], "the same block again adds another entry"


@given(FIELDS)
def test_what_the_proxy_writes_is_read(fields: list[tuple[bytes, bytes]]) -> None:
    assert HeaderReader().read(header_block(fields)) == fields


@given(st.binary(max_size=100))
def test_any_block_is_read_or_refused(block: bytes) -> None:
    reader = HeaderReader()
    try:
        fields = reader.read(block)
    except BadHeaders:
        return
    assert all(isinstance(name, bytes) and isinstance(value, bytes) for name, value in fields)


def padded(kind: Kind, flags: int, stream: int, payload: bytes, padding: int) -> bytes:
    return frame(kind, flags | 0x8, stream, bytes((padding,)) + payload + bytes(padding))


@st.composite
def traffic(draw: st.DrawFn) -> tuple[bytes, list[Frame]]:
    """Bytes, and the frames that are in them."""
    sent, frames = b"", []
    for _ in range(draw(st.integers(0, 6))):
        stream, end = draw(st.integers(1, 9)), draw(st.booleans())
        payload = draw(st.binary(max_size=60))
        kind = draw(st.sampled_from(["data", "padded", "headers", "split", "other"]))
        if kind == "data":
            sent += frame(Kind.DATA, end, stream, payload)
            frames.append(Frame(Kind.DATA, end, stream, payload))
        elif kind == "padded":
            sent += padded(Kind.DATA, end, stream, payload, draw(st.integers(0, 20)))
            frames.append(Frame(Kind.DATA, end, stream, payload))
        elif kind == "headers":
            sent += padded(Kind.HEADERS, 0x24 | end, stream, bytes(5) + payload, draw(st.integers(0, 20)))
            frames.append(Frame(Kind.HEADERS, end, stream, payload))
        elif kind == "split":
            cut = draw(st.integers(0, len(payload)))
            sent += frame(Kind.HEADERS, end, stream, payload[:cut])
            sent += frame(Kind.CONTINUATION, 0x4, stream, payload[cut:])
            frames.append(Frame(Kind.HEADERS, end, stream, payload))
        else:
            sent += frame(Kind.PING, 0, 0, payload)
            frames.append(Frame(Kind.PING, 0, 0, payload))
    return sent, frames


def joined(frames: list[Frame]) -> list[Frame]:
    """Neighbouring pieces of DATA as one; what remains of the flags is whether the stream ends."""
    found: list[Frame] = []
    for one in frames:
        last = found[-1] if found else None
        if last and one.kind == last.kind == Kind.DATA and one.stream == last.stream and not last.ends_stream:
            found[-1] = one._replace(payload=last.payload + one.payload)
        else:
            found.append(one)
    return [
        one._replace(flags=int(one.ends_stream))
        for one in found
        if one.payload or one.kind != Kind.DATA or one.flags & 1
    ]


@given(traffic(), st.lists(st.integers(1, 30)))
def test_frames_are_found_however_they_are_cut(sent: tuple[bytes, list[Frame]], cuts: list[int]) -> None:
    data, frames = sent
    reader = FrameReader()
    found: list[Frame] = []
    at = 0
    for size in itertools.chain(cuts, itertools.repeat(max(1, len(data)))):
        if at >= len(data):
            break
        found += reader.feed(data[at : at + size])
        at += size
    assert joined(found) == joined(frames)
    assert reader.at_boundary


def test_within_a_frame_is_no_boundary() -> None:
    reader = FrameReader()
    assert list(reader.feed(frame(Kind.DATA, 1, 1, b"abc")[:-1])) == [Frame(Kind.DATA, 0, 1, b"ab")]
    assert not reader.at_boundary
    assert list(reader.feed(b"c")) == [Frame(Kind.DATA, 1, 1, b"c")]
    assert reader.at_boundary
    assert list(reader.feed(frame(Kind.HEADERS, 0, 1, b""))) == []
    assert not reader.at_boundary


@pytest.mark.parametrize("size", [1, 7, 65_536, 1 << 20])
def test_a_long_padded_frame_passes_in_pieces(size: int) -> None:
    """Longer than what is held of other frames; a server may allow 16 MB."""
    payload = bytes(range(250)) * 800
    data = padded(Kind.DATA, 1, 3, payload, 255) + frame(Kind.PING, 0, 0, b"12345678")
    reader = FrameReader()
    found = [one for at in range(0, len(data), size) for one in reader.feed(data[at : at + size])]
    assert joined(found) == [Frame(Kind.DATA, 1, 3, payload), Frame(Kind.PING, 0, 0, b"12345678")]
    assert reader.at_boundary


def test_within_padding_is_no_boundary() -> None:
    reader = FrameReader()
    assert joined(list(reader.feed(padded(Kind.DATA, 1, 1, b"ab", 3)[:-1]))) == [Frame(Kind.DATA, 1, 1, b"ab")]
    assert not reader.at_boundary
    assert list(reader.feed(b"\0")) == []
    assert reader.at_boundary


def test_more_padding_than_frame_is_refused() -> None:
    with pytest.raises(NotHttp2):
        list(FrameReader().feed(frame(Kind.DATA, 0x8, 1, bytes((5,)) + b"abc")))


def test_a_frame_within_headers_is_refused() -> None:
    with pytest.raises(NotHttp2):
        list(FrameReader().feed(frame(Kind.HEADERS, 0, 1) + frame(Kind.DATA, 0, 1, b"x")))


NAMES = st.text(max_size=40)


@given(NAMES, NAMES, NAMES, st.binary(max_size=3 * SCAN_BYTES), st.integers(0, 4))
def test_a_message_says_what_protobuf_reads(model: str, version: str, id: str, raw: bytes, n_inputs: int) -> None:
    request = ModelInferRequest(model_name=model, model_version=version, id=id)
    request.raw_input_contents.append(raw)
    request.parameters["p"].int64_param = -1
    for _ in range(n_inputs):
        request.inputs.add(name="x", datatype="FP64", shape=[-1, 3])
    head = request.SerializeToString()[:SCAN_BYTES]
    assert said_by(head) == Said(model.encode(), version.encode(), id.encode())


@given(st.permutations(["model_name", "model_version", "id", "inputs", "parameters"]), NAMES, NAMES, NAMES)
def test_fields_may_come_in_any_order(order: list[str], model: str, version: str, id: str) -> None:
    request = ModelInferRequest(model_name=model, model_version=version, id=id)
    request.inputs.add(name="x", shape=[1, 2])
    request.parameters["p"].double_param = 0.5
    parts = []
    for name in order:
        part = ModelInferRequest()
        part.MergeFrom(request)
        for field in request.DESCRIPTOR.fields:
            if field.name != name:
                part.ClearField(field.name)
        parts.append(part.SerializeToString())
    data = b"".join(parts)
    assert ModelInferRequest.FromString(data) == request
    assert said_by(data) == Said(model.encode(), version.encode(), id.encode())


@given(st.binary(max_size=200))
def test_any_bytes_say_something_or_nothing(data: bytes) -> None:
    said = said_by(data)
    try:
        request = ModelInferRequest.FromString(data)
    except DecodeError:
        return
    assert said == Said(request.model_name.encode(), request.model_version.encode(), request.id.encode())
