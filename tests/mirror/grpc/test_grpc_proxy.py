"""The gRPC proxy in front of a real server: calls end as they do without it, and every inference is recorded."""

from __future__ import annotations

import hashlib
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.mirror.conftest import DEADLINE_S, records, until
from tests.mirror.grpc.conftest import (
    ANY,
    INFER,
    STREAM_INFER,
    Relayed,
    framed,
    infer_request,
    infer_response,
)

Metadata = list[tuple[str, str | bytes]]


def outcome(channel: grpc.Channel, method: str, messages: list[bytes], metadata: Metadata = ()) -> dict[str, Any]:
    """All that a caller can see of a call."""
    kind = method.rpartition("/")[2]
    options = {"metadata": [("x-test", "1"), *metadata], "timeout": DEADLINE_S}
    received: list[bytes] = []
    try:
        if kind in ("Unary", "Digest", "ModelInfer", "Nowhere"):
            answer, call = channel.unary_unary(method).with_call(messages[0] if messages else b"", **options)
            received.append(answer)
        elif kind == "Collect":
            answer, call = channel.stream_unary(method).with_call(iter(messages), **options)
            received.append(answer)
        elif kind == "Repeat":
            call = channel.unary_stream(method)(messages[0] if messages else b"", **options)
            received += call
        else:
            call = channel.stream_stream(method)(iter(messages), **options)
            received += call
    except grpc.RpcError as error:
        call = error
        received.clear()  # an error may overtake messages, without a proxy too
    return {
        "messages": received,
        "code": call.code(),
        "details": call.details(),
        "initial": sorted(map(tuple, call.initial_metadata())),
        "trailing": sorted(map(tuple, call.trailing_metadata())),
    }


METADATA: Metadata = [
    ("x-a", "1"),
    ("x-a", "2"),
    ("x-empty", ""),
    ("x-packed-bin", bytes(range(256))),
    ("x-twice-bin", b""),
    ("x-twice-bin", b"\xff\x00"),
]
FAILURE: Metadata = [("x-fail", "FAILED_PRECONDITION"), ("x-details-bin", b"\x08\x09\x12\x03why")]


@pytest.mark.parametrize("metadata", [[], METADATA, FAILURE], ids=["plain", "metadata", "failure"])
@pytest.mark.parametrize("kind", ["Unary", "Collect", "Repeat", "Chat", "Nowhere"])
def test_calls_of_every_arity_end_as_they_do_without_the_proxy(relayed: Relayed, kind: str, metadata: Metadata) -> None:
    messages = [b"first", b"", b"x" * 100_000]
    direct = outcome(relayed.channel(relayed.direct), ANY + kind, messages, metadata)
    assert outcome(relayed.channel(), ANY + kind, messages, metadata) == direct
    expected = grpc.StatusCode.FAILED_PRECONDITION if metadata is FAILURE else grpc.StatusCode.OK
    assert direct["code"] is (grpc.StatusCode.UNIMPLEMENTED if kind == "Nowhere" else expected)


MESSAGES = st.lists(st.binary(max_size=300), max_size=8)
VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=40).map(str.strip)
PAIRS = st.one_of(
    st.tuples(st.sampled_from(["x-a", "x-b", "x-long-name-of-a-field"]), VALUES),
    st.tuples(st.sampled_from(["x-a-bin", "x-b-bin"]), st.binary(max_size=60)),
    st.tuples(st.just("x-fail"), st.sampled_from(["NOT_FOUND", "INTERNAL", "CANCELLED", "UNAVAILABLE", "DATA_LOSS"])),
    st.tuples(st.just("x-message"), VALUES),
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    kind=st.sampled_from(["Unary", "Collect", "Repeat", "Chat"]),
    messages=MESSAGES,
    metadata=st.lists(PAIRS, max_size=6),
)
def test_any_call_ends_as_it_does_without_the_proxy(
    relayed: Relayed, kind: str, messages: list[bytes], metadata: Metadata
) -> None:
    if not relayed.channels:
        relayed.channel(relayed.direct)
        relayed.channel()
    direct, proxied = relayed.channels
    assert outcome(proxied, ANY + kind, messages, metadata) == outcome(direct, ANY + kind, messages, metadata)


def test_an_inference_is_recorded_with_all_that_was_seen(relayed: Relayed) -> None:
    request = infer_request(id="in-the-message")
    parent = f"00-{'a' * 32}-{'b' * 16}-01"
    metadata = [("x-request-id", f"unary-{uuid.uuid4()}"), ("traceparent", parent)]
    answer = relayed.channel().unary_unary(INFER)(request.SerializeToString(), metadata=metadata)
    found = relayed.recorded(metadata[0][1])
    assert found.request.body == framed(request.SerializeToString())
    assert found.response.body == framed(answer) == framed(infer_response(request).SerializeToString())
    for payload in (found.request, found.response):
        assert payload.content_type == "application/grpc"
        assert payload.size == len(payload.body)
        assert payload.sha256 == hashlib.sha256(payload.body).hexdigest()
    assert (found.namespace, found.service, found.model, found.revision) == ("bank", "income", "income", "2")
    assert (found.protocol, found.path, found.capture.source) == ("v2-grpc", INFER, "grpc")
    assert (found.status_code, found.grpc_status, found.error) == (200, "OK", "")
    assert (found.traceparent, found.synthetic) == (parent, False)
    assert 0 < found.t_request <= found.t_response


def test_the_id_is_the_metadatas_then_the_messages_then_our_own(relayed: Relayed) -> None:
    infer = relayed.channel().unary_unary(INFER)
    name = f"message-{uuid.uuid4()}"
    infer(infer_request(id=name).SerializeToString())
    assert relayed.recorded(name).model == "income"
    event = f"event-{uuid.uuid4()}"
    infer(infer_request(id=name).SerializeToString(), metadata=[("ce-id", event)])
    assert relayed.recorded(event).model == "income"
    model = f"m-{uuid.uuid4()}"
    infer(infer_request(model).SerializeToString())
    (own,) = [each for each in records([relayed.spool_dir]) if each.model == model]
    assert own.request_id == own.id


def test_synthetic_calls_are_marked(relayed: Relayed) -> None:
    name = str(uuid.uuid4())
    relayed.channel().unary_unary(INFER)(
        infer_request(id=name).SerializeToString(), metadata=[("govern-synthetic", "1")]
    )
    assert relayed.recorded(name).synthetic


def test_a_failed_inference_is_recorded_with_its_status(relayed: Relayed) -> None:
    name = str(uuid.uuid4())
    with pytest.raises(grpc.RpcError) as raised:
        relayed.channel().unary_unary(INFER)(
            infer_request(id=name).SerializeToString(), metadata=[("x-fail", "NOT_FOUND"), *FAILURE[1:]]
        )
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND
    assert raised.value.details() == "as asked: 100 % äöü"
    assert ("grpc-status-details-bin", FAILURE[1][1]) in list(map(tuple, raised.value.trailing_metadata()))
    found = relayed.recorded(name)
    assert (found.status_code, found.grpc_status, found.error) == (404, "NOT_FOUND", "")
    assert found.response.body == b""


def test_a_stream_is_relayed_message_by_message(relayed: Relayed) -> None:
    """The caller sends a message only when it has the answer to the one before: nothing may wait on the way."""
    n_messages, name = 1000, str(uuid.uuid4())
    sent = [infer_request(id=f"{name}-{index}", values=1).SerializeToString() for index in range(n_messages)]
    turn = threading.Semaphore(1)

    def requests() -> Iterator[bytes]:
        for one in sent:
            assert turn.acquire(timeout=DEADLINE_S)
            yield one

    received = []
    for answer in relayed.channel().stream_stream(STREAM_INFER)(
        requests(), metadata=[("x-request-id", name)], timeout=DEADLINE_S
    ):
        received.append(answer)
        turn.release()
    assert len(received) == n_messages
    found = relayed.recorded(name)
    assert found.request.body == framed(*sent)
    assert found.response.body == framed(*received)
    assert (found.path, found.model, found.grpc_status) == (STREAM_INFER, "income", "OK")


def test_an_answer_is_in_the_spool_before_the_caller_has_it(relayed: Relayed) -> None:
    infer = relayed.channel().unary_unary(INFER)
    for _ in range(50):
        name = str(uuid.uuid4())
        infer(infer_request(id=name).SerializeToString())
        assert [each.request_id for each in records([relayed.spool_dir])].count(name) == 1


def test_a_callers_cancellation_ends_the_call_at_the_server(relayed: Relayed) -> None:
    n_calls = 20
    relayed.model.n_ended = 0
    watch = relayed.channel().stream_unary(ANY + "Watch")
    for index in range(n_calls):
        done = threading.Event()

        def requests(n_messages: int = index % 5, done: threading.Event = done) -> Iterator[bytes]:
            yield from [b"message"] * (n_messages + 1)
            done.wait(DEADLINE_S)

        call = watch.future(requests())
        call.initial_metadata()
        call.cancel()
        done.set()
    until(lambda: relayed.model.n_ended == n_calls, "the ends of all calls")


def test_a_cancelled_inference_is_recorded_as_such(relayed: Relayed) -> None:
    name = str(uuid.uuid4())
    relayed.model.n_read = 0
    call = (
        relayed.channel()
        .unary_unary(INFER)
        .future(infer_request(id=name).SerializeToString(), metadata=[("x-hold", "1")])
    )
    until(lambda: relayed.model.n_read == 1, "the server has the request")
    call.cancel()
    found = relayed.recorded(name)
    assert (found.grpc_status, found.status_code) == ("CANCELLED", 499)
    assert found.error == "the caller cancelled the call"
    assert found.request.body == framed(infer_request(id=name).SerializeToString())


def test_deadlines_reach_the_server_and_end_the_call(relayed: Relayed) -> None:
    channel = relayed.channel()
    relayed.model.remaining_s.clear()
    channel.unary_unary(ANY + "Deadline")(b"", timeout=50)
    (remaining_s,) = relayed.model.remaining_s
    assert 0 < remaining_s < 51  # clients send it rounded up, as 50.1 s at times
    infer = channel.unary_unary(INFER)
    for timeout_s in (2, 8, 32):  # on a busy machine much of a short one is over before the proxy has read the call
        request = infer_request(id=str(uuid.uuid4()))
        call = infer.future(request.SerializeToString(), metadata=[("x-hold", "1")], timeout=timeout_s)
        assert call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        found = relayed.recorded(request.id) if request.id in relayed.model.held else None
        if found and found.grpc_status != "CANCELLED":
            break
    assert found
    assert (found.grpc_status, found.status_code) == ("DEADLINE_EXCEEDED", 504)
    # The caller's reset, unless the server was quicker to end the call itself: then it is an answer like any other.
    assert found.error in ("the call's deadline passed", "")


def test_a_message_of_100_mb_passes_and_a_prefix_of_it_is_kept(relayed: Relayed) -> None:
    message = infer_request(id=str(uuid.uuid4()))
    message.raw_input_contents.append(bytes(range(256)) * (100 * 4096))
    body = message.SerializeToString()
    before = peak_bytes(relayed)
    digest = relayed.channel().unary_unary(ANY + "Digest")(body, timeout=DEADLINE_S)
    assert digest == hashlib.sha256(body).digest()
    relayed.channel().unary_unary(INFER)(body, timeout=DEADLINE_S)
    assert peak_bytes(relayed) - before < 32 * 1024 * 1024
    found = relayed.recorded(message.id)
    on_wire = framed(body)
    assert found.request.size == len(on_wire) > 100 * 1024 * 1024
    assert found.request.sha256 == hashlib.sha256(on_wire).hexdigest()
    assert found.request.body == on_wire[: len(found.request.body)]
    assert (found.truncated, len(found.request.body)) == (("request",), 448 * 1024)


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate], ids=["gzip", "deflate"])
def test_compressed_messages_stay_compressed(relayed: Relayed, compression: grpc.Compression) -> None:
    name = str(uuid.uuid4())
    request = infer_request(values=500).SerializeToString()
    channel = relayed.channel(compression=compression)
    answer = channel.unary_unary(INFER)(request, metadata=[("x-request-id", name)])
    assert answer == infer_response(infer_request(values=500)).SerializeToString()
    body = relayed.recorded(name).request.body
    assert body[0] == 1
    assert 5 + int.from_bytes(body[1:5], "big") == len(body) < len(request)


def test_a_server_that_does_not_read_holds_the_caller_back(relayed: Relayed) -> None:
    """What lies between is bounded by flow control: 256 MB are offered, and the proxy's memory shows none of it."""
    piece, n_pieces, n_taken = bytes(64 * 1024), 4096, 0

    def requests() -> Iterator[bytes]:
        nonlocal n_taken
        while n_taken < n_pieces:
            n_taken += 1
            yield piece

    before = peak_bytes(relayed)
    call = relayed.channel().stream_stream(ANY + "Hold")(requests(), timeout=DEADLINE_S)
    other = relayed.channel().unary_unary(ANY + "Unary")
    last = -1
    while last != n_taken:  # until nothing more is taken while a hundred other calls pass
        last = n_taken
        for _ in range(100):
            other(b"x")
    assert 0 < n_taken < n_pieces / 8
    assert peak_bytes(relayed) - before < 32 * 1024 * 1024
    relayed.model.released.set()
    assert next(call) == str(n_pieces).encode()
    assert peak_bytes(relayed) - before < 32 * 1024 * 1024


def test_a_caller_that_does_not_read_holds_the_server_back(relayed: Relayed) -> None:
    n_pieces, before = 4096, peak_bytes(relayed)
    relayed.model.n_flooded = 0
    # A client that measures its connection takes in tens of megabytes for a caller that does not read.
    channel = relayed.channel(arguments=[("grpc.http2.bdp_probe", 0)])
    call = channel.unary_stream(ANY + "Flood")(str(n_pieces).encode(), timeout=DEADLINE_S)
    assert len(next(call)) == 64 * 1024
    other = relayed.channel().unary_unary(ANY + "Unary")
    last = -1
    while last != relayed.model.n_flooded:
        last = relayed.model.n_flooded
        for _ in range(100):
            other(b"x")
    assert 0 < last < n_pieces / 8
    assert sum(1 for _ in call) == n_pieces - 1
    assert peak_bytes(relayed) - before < 32 * 1024 * 1024


def peak_bytes(relayed: Relayed) -> int:
    """The most memory that the proxy's process has taken so far."""
    with open(f"/proc/{relayed.proxy.pid}/status") as status:
        (line,) = [line for line in status if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def test_many_streams_at_once(relayed: Relayed) -> None:
    n_calls = 200
    names = [str(uuid.uuid4()) for _ in range(n_calls)]
    infer = relayed.channel().unary_unary(INFER)
    chat = relayed.channel().stream_stream(ANY + "Chat")

    def one(name: str) -> bool:
        assert list(chat(iter([name.encode()] * 10), timeout=DEADLINE_S)) == [name.encode()[::-1]] * 10
        return name.encode() in infer(infer_request(id=name).SerializeToString(), timeout=DEADLINE_S)

    with ThreadPoolExecutor(32) as pool:
        assert all(pool.map(one, names))
    recorded = [each.request_id for each in records([relayed.spool_dir])]
    assert {recorded.count(name) for name in names} == {1}


def test_health_and_reflection_pass_and_are_no_inferences(relayed: Relayed) -> None:
    before = len(records([relayed.spool_dir]))
    channel = relayed.channel()
    checked = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=DEADLINE_S)
    assert checked.status == health_pb2.HealthCheckResponse.SERVING
    watched = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=DEADLINE_S)
    assert next(watched).status == health_pb2.HealthCheckResponse.SERVING
    watched.cancel()
    ask = reflection_pb2.ServerReflectionRequest(list_services="")
    (listed,) = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([ask]))
    assert "grpc.health.v1.Health" in [each.name for each in listed.list_services_response.service]
    assert len(records([relayed.spool_dir])) == before
