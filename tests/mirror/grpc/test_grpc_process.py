"""The gRPC proxy as a process: a model server that is away, SIGTERM, kill -9, a port that is taken."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
import yaml

from govern.mirror.grpc.http2 import END_HEADERS, PREFACE, Kind, frame, header_block
from tests.mirror.authority import Authority
from tests.mirror.conftest import DEADLINE_S, records, renew, until
from tests.mirror.grpc.conftest import ANY, INFER, STREAM_INFER, command, framed, infer_request, model_server
from tests.services.process import Process, free_port, listening

Start = Callable[..., Process]


@pytest.fixture
def connect() -> Iterator[Callable[[int], grpc.Channel]]:
    """`connect(port)`: a channel that tries again at once, with a connection of its own."""
    with contextlib.ExitStack() as stack:
        options = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 100),
        ]
        yield lambda port: stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{port}", options=options))


def test_a_model_server_that_is_away_is_said_recorded_and_found_again(
    start_grpc: Start, connect: Callable[[int], grpc.Channel], spool_dir: Path
) -> None:
    port, upstream = free_port(), free_port()
    start_grpc(port, upstream)
    infer = connect(port).unary_unary(INFER)
    name = str(uuid.uuid4())
    with pytest.raises(grpc.RpcError) as raised:
        infer(infer_request(id=name).SerializeToString(), timeout=DEADLINE_S)
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    said = raised.value.details()
    assert said.startswith(f"the model server at 127.0.0.1:{upstream} cannot be reached: ")
    with pytest.raises(grpc.RpcError):  # a stream, a call that is no inference, a second call on the connection
        list(connect(port).stream_stream(ANY + "Chat")(iter([b"x" * 100_000] * 10), timeout=DEADLINE_S))
    (found,) = records([spool_dir])
    assert (found.request_id, found.grpc_status, found.status_code) == (name, "UNAVAILABLE", 503)
    assert found.error == said
    assert found.request.body == framed(infer_request(id=name).SerializeToString())
    with model_server(upstream):
        again = str(uuid.uuid4())

        def answered() -> bool:
            try:
                infer(infer_request(id=again).SerializeToString(), timeout=DEADLINE_S)
            except grpc.RpcError:
                return False
            return True

        until(answered, "an answer of the model server")
    assert [each.grpc_status for each in records([spool_dir]) if each.request_id == again][-1] == "OK"


def test_a_model_server_that_goes_away_ends_its_calls(
    start_grpc: Start, connect: Callable[[int], grpc.Channel], spool_dir: Path
) -> None:
    """A server that is killed closes its connections, and so does this one: it reads, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = free_port()
        start_grpc(port, server.getsockname()[1])
        call = connect(port).unary_unary(INFER).future(infer_request(id="lost").SerializeToString(), timeout=DEADLINE_S)

        def hang_up() -> None:
            while True:  # the first connection may be a probe of the port
                connection, _ = server.accept()
                with connection, contextlib.suppress(OSError):
                    settings = bytes.fromhex("000000040000000000")
                    connection.sendall(settings)
                    seen = b""
                    while data := connection.recv(1 << 16):
                        seen += data
                        if b"lost" in seen:
                            return

        thread = threading.Thread(target=hang_up)
        thread.start()
        assert call.code() is grpc.StatusCode.UNAVAILABLE
        thread.join()
    (found,) = records([spool_dir])
    assert (found.request_id, found.grpc_status) == ("lost", "UNAVAILABLE")
    assert found.error.startswith("the connection to the model server was lost")


def test_sigterm_lets_calls_end_and_takes_no_new_ones(
    start_grpc: Start, connect: Callable[[int], grpc.Channel], spool_dir: Path
) -> None:
    port = free_port()
    with model_server() as (model, upstream):
        process = start_grpc(port, upstream)
        infer = connect(port).unary_unary(INFER)
        idle = connect(port)
        idle.unary_unary(ANY + "Unary")(b"x")
        call = infer.future(infer_request(id="slow").SerializeToString(), metadata=[("x-hold", "1")])
        until(lambda: model.n_read == 1, "the server has the request")
        subprocess.run(["kill", "-TERM", str(process.pid)], check=True)
        until(lambda: not listening(port), "the port is closed")
        with pytest.raises(grpc.RpcError) as refused:
            connect(port).unary_unary(INFER)(infer_request(id="late").SerializeToString(), timeout=DEADLINE_S)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        model.released.set()
        assert b"slow" in call.result(DEADLINE_S)
        until(lambda: gone(process.pid), "the process ends by itself")
    (found,) = records([spool_dir])
    assert (found.request_id, found.grpc_status, found.error) == ("slow", "OK", "")


def test_calls_past_drain_s_are_cut_and_recorded(
    start_grpc: Start, connect: Callable[[int], grpc.Channel], spool_dir: Path, tmp_path: Path
) -> None:
    config = tmp_path / "mirror.yaml"
    config.write_text("drain_s: 0.2\n")
    port = free_port()
    with model_server() as (model, upstream):
        process = start_grpc(port, upstream, "--config", str(config))
        call = (
            connect(port)
            .unary_unary(INFER)
            .future(infer_request(id="endless").SerializeToString(), metadata=[("x-hold", "1")])
        )
        until(lambda: model.n_read == 1, "the server has the request")
        subprocess.run(["kill", "-TERM", str(process.pid)], check=True)
        assert call.code() is grpc.StatusCode.UNAVAILABLE
        until(lambda: gone(process.pid), "the process ends by itself")
    (found,) = records([spool_dir])
    assert (found.request_id, found.error) == ("endless", "the proxy stopped before the call ended")


def gone(pid: int) -> bool:
    """Whether a child has ended; it stays a zombie until its `Process` is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_kill_9_loses_no_answered_call_and_repeats_none(
    start_grpc: Start, connect: Callable[[int], grpc.Channel], spool_dir: Path
) -> None:
    port = free_port()
    answered: list[str] = []
    with model_server() as (_, upstream):
        process = start_grpc(port, upstream)
        stop = threading.Event()

        def call_on() -> None:
            infer = connect(port).unary_unary(INFER)
            with contextlib.suppress(grpc.RpcError):
                while not stop.is_set():
                    name = str(uuid.uuid4())
                    infer(infer_request(id=name).SerializeToString(), timeout=DEADLINE_S)
                    answered.append(name)

        threads = [threading.Thread(target=call_on) for _ in range(4)]
        for thread in threads:
            thread.start()
        until(lambda: len(answered) > 300, "some calls are answered")
        process.kill()
        for thread in threads:
            thread.join(DEADLINE_S)
        stop.set()
    recorded = [each.request_id for each in records([spool_dir])]
    assert {recorded.count(name) for name in answered} == {1}
    assert len(recorded) <= len(answered) + len(threads)


def test_a_taken_port_is_said(start_grpc: Start, spool_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(command(port, 1, spool_dir), capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode != 0
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "another process listens on that port" in done.stderr


def test_the_messages_model_decides_on_sampling(
    start_grpc: Start, connect: Callable[[int], grpc.Channel], spool_dir: Path, tmp_path: Path
) -> None:
    config = tmp_path / "mirror.yaml"
    config.write_text("sampling_rate: 0\nsampling: {rates: [{model: fraud-*, rate: 1}], errors_rate: 1}\n")
    port = free_port()
    with model_server() as (_, upstream):
        start_grpc(port, upstream, "--config", str(config))
        infer = connect(port).unary_unary(INFER)
        for model in ("fraud-1", "income"):
            infer(infer_request(model, id=model).SerializeToString(), timeout=DEADLINE_S)
        with pytest.raises(grpc.RpcError):
            infer(infer_request(id="failed").SerializeToString(), metadata=[("x-fail", "INTERNAL")])
    found = {each.request_id: each.sampling.strategy for each in records([spool_dir])}
    assert found == {"fraud-1": "all", "failed": "errors"}


def test_new_rules_are_taken_over_without_a_restart(
    start_grpc: Start, connect: Callable[[int], grpc.Channel], spool_dir: Path, tmp_path: Path
) -> None:
    config = tmp_path / "mirror.yaml"
    config.write_text("sampling_rate: 0\n")
    port = free_port()
    with model_server() as (_, upstream):
        start_grpc(port, upstream, "--config", str(config))
        infer = connect(port).unary_unary(INFER)
        infer(infer_request(id="before").SerializeToString(), timeout=DEADLINE_S)
        renew(config, "sampling_rate: 1\n")

        def recorded() -> bool:
            infer(infer_request(id="after").SerializeToString(), timeout=DEADLINE_S)
            return bool(records([spool_dir]))

        until(recorded, "a call under the new rules")
    assert {each.request_id for each in records([spool_dir])} == {"after"}


def test_a_model_server_of_a_name_that_is_none(start_grpc: Start, connect: Callable[[int], grpc.Channel]) -> None:
    port = free_port()
    start_grpc(port, 1, "--upstream", f"http://{'x' * 64}.example:1")
    for _ in range(2):  # and the proxy goes on
        with pytest.raises(grpc.RpcError) as raised:
            connect(port).unary_unary(INFER)(infer_request().SerializeToString(), timeout=DEADLINE_S)
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "cannot be reached" in raised.value.details()


def test_calls_on_a_connection_that_turns_unreadable_are_recorded(start_grpc: Start, spool_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = free_port()
        start_grpc(port, server.getsockname()[1])
        fields = [(b":method", b"POST"), (b":path", INFER.encode()), (b"x-request-id", b"unread")]
        sent = (
            PREFACE
            + frame(Kind.HEADERS, END_HEADERS, 1, header_block(fields))
            + frame(Kind.DATA, 0, 1, framed(b"")[:3])
            + frame(Kind.CONTINUATION, 0, 3, b"of nothing")
        )
        with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as connection:
            connection.sendall(sent)
            until(lambda: len(records([spool_dir])) == 1, "the record")
    (found,) = records([spool_dir])
    assert (found.request_id, found.grpc_status, found.status_code) == ("unread", "UNKNOWN", 500)
    assert found.error == "the connection could not be read any further: a continuation of nothing"
    assert found.request.body == framed(b"")[:3]


def test_tls_on_both_sides(start_grpc: Start, spool_dir: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ca")
    own, caller = authority.issue("127.0.0.1"), authority.issue("caller")
    root = authority.file.read_bytes()
    port = free_port()
    with model_server(credentials=grpc.ssl_server_credentials([(own.key.read_bytes(), own.cert.read_bytes())])) as (
        _,
        upstream,
    ):
        config = tmp_path / "mirror.yaml"
        tls = {"cert": own.cert, "key": own.key, "client_ca": authority.file, "upstream_ca": authority.file}
        config.write_text(yaml.safe_dump({"tls": {name: str(path) for name, path in tls.items()}}))
        start_grpc(port, upstream, "--config", str(config), "--upstream", f"https://127.0.0.1:{upstream}")
        known = grpc.ssl_channel_credentials(root, caller.key.read_bytes(), caller.cert.read_bytes())
        with grpc.secure_channel(f"127.0.0.1:{port}", known) as channel:
            sent = [infer_request(id="tls", values=count).SerializeToString() for count in (1, 20_000)]
            answers = list(channel.stream_stream(STREAM_INFER)(iter(sent), timeout=DEADLINE_S))
        with (
            grpc.secure_channel(f"127.0.0.1:{port}", grpc.ssl_channel_credentials(root)) as nobody,
            pytest.raises(grpc.RpcError) as refused,
        ):
            nobody.unary_unary(INFER)(sent[0], timeout=DEADLINE_S)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    (found,) = records([spool_dir])
    assert (found.request_id, found.grpc_status) == ("tls", "OK")
    assert (found.request.body, found.response.body) == (framed(*sent), framed(*answers))


def test_without_the_extra_it_is_named(spool_dir: Path) -> None:
    hidden = "import sys; sys.modules['uvloop'] = None; from govern.cli.main import main; main()"
    arguments = command(free_port(), 1, spool_dir)[3:]
    done = subprocess.run(
        [sys.executable, "-c", hidden, *arguments], capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert done.returncode != 0
    assert "govern mirror needs the [mirror] extra" in done.stderr
