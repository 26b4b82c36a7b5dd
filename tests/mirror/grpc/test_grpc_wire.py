"""What is on the wire: the proxy changes nothing of it, whether it can read it or not."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from govern.mirror.grpc.http2 import PREFACE, Kind, frame
from tests.mirror.conftest import DEADLINE_S, records, until
from tests.mirror.grpc.conftest import ANY, INFER, UNLIMITED, infer_request, model_server
from tests.mirror.grpc.tap import Tap, tap
from tests.services.process import Process, free_port


def test_nothing_on_the_wire_is_changed(start_grpc: Callable[..., Process], spool_dir: Path) -> None:
    """A hundred calls of every kind, one in three cancelled somewhere: the bytes before and behind the proxy."""
    chance = random.Random(7)
    proxied = free_port()
    with model_server() as (model, direct), tap(direct) as behind, tap(proxied) as before:
        start_grpc(proxied, behind.port)
        model.released.set()
        with grpc.insecure_channel(f"127.0.0.1:{before.port}", options=UNLIMITED) as channel:
            for index in range(100):
                one_call(channel, chance, cancelled=index % 3 == 0)
            # While the channel is open: what the server sends to one that has closed may end anywhere on the way.
            until(lambda: all_the_same(before, behind), "the last bytes")
    assert len(records([spool_dir])) > 0


def all_the_same(before: Tap, behind: Tap) -> bool:
    """Whether the one connection before the proxy and the one behind it have carried the same bytes until now."""
    ((there, back),), ((seen_there, seen_back),) = calls(before.sent), calls(behind.sent)
    return (seen_there, back) == (there, seen_back)


def calls(sent: list[tuple[bytearray, bytearray]]) -> list[tuple[bytes, bytes]]:
    """The connections of HTTP/2; others only looked whether the proxy listens."""
    return [(bytes(there), bytes(back)) for there, back in sent if there.startswith(PREFACE)]


def one_call(channel: grpc.Channel, chance: random.Random, *, cancelled: bool) -> None:
    done = threading.Event()
    n_messages = chance.randrange(4)

    def requests() -> Iterator[bytes]:
        for _ in range(n_messages):
            yield infer_request(values=chance.randrange(2000)).SerializeToString()
        if cancelled:
            done.wait(DEADLINE_S)

    kind = chance.choice(["Chat", "Collect", "Infer"])
    if kind == "Infer":
        call = channel.unary_unary(INFER).future(infer_request().SerializeToString())
    elif kind == "Collect":
        call = channel.stream_unary(ANY + kind).future(requests())
    else:
        call = channel.stream_stream(ANY + kind)(requests())
    if cancelled:
        call.cancel()
    done.set()
    with contextlib.suppress(grpc.RpcError, grpc.FutureCancelledError):
        if kind == "Chat":
            for _ in call:
                pass
        else:
            call.result(DEADLINE_S)


@pytest.fixture(scope="module")
def echo() -> Iterator[int]:
    """The port of a server that sends back what comes, until the caller has no more."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(1 << 16):
                connection.sendall(data)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()

    thread = threading.Thread(target=accept)
    thread.start()
    yield server.getsockname()[1]
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()


FRAMES = st.builds(
    frame,
    st.sampled_from(Kind),
    st.integers(0, 255),
    st.integers(0, 9),
    st.binary(max_size=40),
)
HEADERS = frame(Kind.HEADERS, 0x4, 1, b"\x83\x04\x05/any/\x86")
PIECES = st.lists(st.one_of(st.binary(max_size=50), FRAMES, st.just(HEADERS)), max_size=8)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(preface=st.booleans(), pieces=PIECES)
def test_what_cannot_be_read_passes_all_the_same(
    start_grpc: Callable[..., Process], echo: int, ports: list[int], preface: bool, pieces: list[bytes]
) -> None:
    if not ports:
        ports.append(free_port())
        start_grpc(ports[0], echo)
    sent = (PREFACE if preface else b"") + b"".join(pieces)
    with socket.create_connection(("127.0.0.1", ports[0]), timeout=DEADLINE_S) as connection:
        received = b""
        for piece in [PREFACE] * preface + pieces:
            connection.sendall(piece)
        while len(received) < len(sent):
            data = connection.recv(1 << 16)
            assert data, "the connection was closed"
            received += data
    assert received == sent


@pytest.fixture
def ports() -> list[int]:
    """Where the one proxy of all examples listens."""
    return []
