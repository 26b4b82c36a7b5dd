"""The proxy in front of a real uvicorn: the bytes are those of the server, and every inference is recorded."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.client
import itertools
import json
import os
import signal
import socket
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import cramjam
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.mirror.conftest import DEADLINE_S, Served, exchange, govern, read_all, records, request, until
from tests.services.process import Process, free_port, listening

BODY = b'{"inputs": [{"name": "age", "shape": [1], "datatype": "FP64", "data": [41.5]}]}'
INFER = "/v2/models/income/infer"


def infer(kind: str, query: str = "") -> str:
    return f"/v2/models/{kind}/infer{query}"


SHAPES: dict[str, list[bytes]] = {
    "echo": [request(infer("echo"), BODY)],
    "empty body": [request(infer("echo"), b"")],
    "chunked request": [request(infer("echo"), chunks=[BODY[:9], BODY[9:]])],
    "chunked with trailer": [
        request(infer("echo"), chunks=[BODY]).removesuffix(b"\r\n") + b"X-Sum: 1\r\n\r\n",
    ],
    "chunked response": [request(infer("chunked"), BODY * 20)],
    "large response": [request(infer("large", "?pieces=40"), BODY)],
    "204": [request(infer("nothing"))],
    "304": [request(infer("unchanged"))],
    "500": [request(infer("refuse"))],
    "422": [request(infer("refuse", "?status=422"))],
    "404": [request("/v2/models/income/nowhere")],
    "get": [request("/v2/health/echo", None, method="GET")],
    "head": [request(infer("echo"), None, method="HEAD")],
    "head of chunked": [request(infer("chunked"), None, method="HEAD")],
    "options": [request("/echo", None, method="OPTIONS")],
    "delete with body": [request("/echo", b"x", method="DELETE")],
    "put": [request("/echo", BODY, method="PUT")],
    "patch": [request("/echo", BODY, method="PATCH")],
    "trace": [request("/echo", None, method="TRACE")],
    "a method of webdav": [request("/echo", BODY, method="PROPFIND")],
    "http 1.0": [request(infer("echo"), BODY, version="1.0", close=False)],
    "expect": [request(infer("echo"), BODY, headers=["Expect: 100-continue"])],
    "odd headers": [request(infer("echo"), BODY, headers=["X-A: 1", "x-a:2", "X-Empty:", "Cookie: a=b; c=d"])],
    "keep-alive then close": [request(infer("echo"), BODY, close=False), request(infer("chunked"), BODY)],
    "head then get": [request("/echo", None, method="HEAD", close=False), request(infer("echo"), BODY)],
    "pipelined": [
        request(infer("echo"), BODY, close=False)
        + request(infer("refuse"), close=False)
        + request(infer("chunked"), BODY, close=False)
        + request(infer("nothing"))
    ],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_response_is_byte_for_byte_the_servers(served: Served, shape: str) -> None:
    direct = exchange(served.direct, SHAPES[shape])
    assert direct.startswith(b"HTTP/1.")
    assert exchange(served.proxied, SHAPES[shape]) == direct


pieces = st.binary(min_size=1, max_size=3000)
one_request = st.builds(
    lambda kind, body, chunks, close_style: (kind, body, chunks),
    st.sampled_from(["echo", "chunked", "nothing", "refuse", "unchanged", "digest"]),
    st.binary(max_size=3000),
    st.none() | st.lists(pieces, max_size=4),
    st.none(),
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(requests=st.lists(one_request, min_size=1, max_size=5), cuts=st.lists(st.floats(0, 1), max_size=12))
def test_any_pipelining_cut_anywhere_gives_the_same_bytes(
    served: Served, requests: list[tuple[str, bytes, list[bytes] | None]], cuts: list[float]
) -> None:
    data = b"".join(
        request(infer(kind), body, chunks=chunks, close=number == len(requests) - 1)
        for number, (kind, body, chunks) in enumerate(requests)
    )
    places = sorted({0, len(data), *(int(cut * len(data)) for cut in cuts)})
    parts = [data[start:stop] for start, stop in itertools.pairwise(places)]
    assert exchange(served.proxied, parts) == exchange(served.direct, parts)


def test_what_passed_is_in_the_spool_when_the_answer_arrives(served: Served) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.proxied)
    for number in range(20):
        name = f"there-{uuid.uuid4()}"
        connection.request("POST", infer("echo"), BODY, {"x-request-id": name, "content-type": "application/json"})
        assert connection.getresponse().read() == BODY
        found = served.recorded(name)
        assert (found.request.body, found.response.body, found.status_code) == (BODY, BODY, 200), number
        assert found.response.content_type == "application/json"
    connection.close()


@pytest.mark.parametrize(("shape", "status"), [("refuse", 500), ("nothing", 204), ("unchanged", 304)])
def test_errors_and_empty_answers_are_captured_too(served: Served, shape: str, status: int) -> None:
    name = f"status-{uuid.uuid4()}"
    exchange(served.proxied, [request(infer(shape), BODY, headers=[f"X-Request-Id: {name}"])])
    found = served.recorded(name)
    assert (found.status_code, found.error, found.request.body) == (status, "", BODY)


@pytest.mark.parametrize(
    ("coding", "packed"),
    [("gzip", gzip.compress(BODY * 50)), ("br", bytes(cramjam.brotli.compress(BODY * 50)))],
    ids=["gzip", "br"],
)
def test_packed_bodies_pass_and_are_captured_as_they_are(served: Served, coding: str, packed: bytes) -> None:
    name = f"packed-{uuid.uuid4()}"
    headers = [f"Content-Encoding: {coding}", f"X-Request-Id: {name}"]
    data = [request(infer("packed", f"?coding={coding}"), packed, headers=headers)]
    direct = exchange(served.direct, data)
    assert direct.endswith(packed)
    assert exchange(served.proxied, data) == direct
    found = served.recorded(name)
    for side in (found.request, found.response):
        assert (side.body, side.content_encoding, side.size) == (packed, coding, len(packed))


@pytest.mark.parametrize(
    ("path", "protocol", "model"),
    [
        ("/v1/models/iris:predict", "v1", "iris"),
        ("/v2/models/iris/versions/3/infer", "v2", "iris"),
        ("/api/v1.0/predictions", "seldon-v1", ""),
        ("/api/v0.1/predictions", "seldon-v1", ""),
        ("/seldon/bank/credit/api/v1.0/predictions", "seldon-v1", ""),
        ("/v1/chat/completions", "openai", ""),
        ("/v1/completions", "openai", ""),
        ("/openai/v1/chat/completions", "openai", ""),
        ("/openai/v1/embeddings", "openai", ""),
    ],
)
def test_each_protocols_paths_are_captured_without_a_rule_of_ones_own(
    served: Served, path: str, protocol: str, model: str
) -> None:
    name = f"path-{uuid.uuid4()}"
    exchange(served.proxied, [request(path, BODY, headers=[f"X-Request-Id: {name}"])])
    found = served.recorded(name)
    assert (found.path, found.protocol, found.model) == (path, protocol, model)


def test_health_and_metadata_pass_uncaptured(served: Served) -> None:
    name = f"health-{uuid.uuid4()}"
    for path in ("/v2/health/ready", "/v2/models/income", "/metrics", "/v1/models", "/v1/chat/completions"):
        exchange(served.proxied, [request(path, None, method="GET", headers=[f"X-Request-Id: {name}"])])
    assert name not in [each.request_id for each in records([served.spool_dir])]


def test_tokens_arrive_one_by_one(served: Served) -> None:
    gate, name, n = uuid.uuid4().hex, f"sse-{uuid.uuid4()}", 12
    with socket.create_connection(("127.0.0.1", served.proxied), timeout=DEADLINE_S) as connection:
        connection.sendall(
            request(infer("tokens", f"?n={n}&gate={gate}"), BODY, headers=[f"X-Request-Id: {name}"], close=True)
        )
        received = b""
        for number in range(n):
            # The server sends a token only when told; a proxy that waited for more would wait for ever.
            exchange(served.direct, [request(f"/gate?gate={gate}", None, method="GET")])
            while f"data: token-{number}\n\n".encode() not in received:
                received += connection.recv(4096)
            assert f"token-{number + 1}".encode() not in received
        received += read_all(connection)
    assert received.endswith(b"0\r\n\r\n")
    found = served.recorded(name)
    assert found.response.body == b"".join(f"data: token-{number}\n\n".encode() for number in range(n))


def test_a_long_upload_passes_whole_with_flat_memory(served: Served) -> None:
    size, name = 100_000_000, f"long-{uuid.uuid4()}"
    body = os.urandom(1 << 16) * (size // (1 << 16)) + bytes(size % (1 << 16))
    before, most = _private_kib(served.proxy.pid), 0

    def watched() -> Iterator[bytes]:
        nonlocal most
        for at in range(0, size, 1 << 20):
            yield body[at : at + (1 << 20)]
            most = max(most, _private_kib(served.proxy.pid))

    connection = http.client.HTTPConnection("127.0.0.1", served.proxied)
    connection.request("POST", infer("digest"), watched(), {"x-request-id": name, "content-length": str(size)})
    answer = connection.getresponse().read()
    connection.close()
    digest = hashlib.sha256(body).hexdigest()
    assert answer == f"{size} {digest}".encode()
    found = served.recorded(name)
    assert (found.request.size, found.request.sha256, found.truncated) == (size, digest, ("request",))
    assert found.request.body == body[: 448 * 1024]
    assert most - before < 8 * 1024


def test_a_long_download_waits_for_a_slow_reader_with_flat_memory(served: Served) -> None:
    pieces_, piece = 1600, bytes(range(256)) * 256
    name = f"down-{uuid.uuid4()}"
    before, most = _private_kib(served.proxy.pid), 0
    with socket.create_connection(("127.0.0.1", served.proxied), timeout=DEADLINE_S) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        path = infer("large", f"?pieces={pieces_}")
        connection.sendall(request(path, BODY, headers=[f"X-Request-Id: {name}"]))
        digest, size = hashlib.sha256(), 0
        head, _, rest = _read_head(connection)
        assert b"200 OK" in head
        rest = rest or connection.recv(4096)  # the head may have come alone
        while rest:
            digest.update(rest)
            size += len(rest)
            rest = connection.recv(1 << 14)
            most = max(most, _private_kib(served.proxy.pid)) if size % 1_000_000 < 1 << 14 else most
    assert size == pieces_ * len(piece)
    found = served.recorded(name)
    assert (found.response.size, found.response.sha256) == (size, digest.hexdigest())
    assert most > 0
    assert most - before < 8 * 1024


def test_a_client_that_leaves_is_captured_with_its_reason(served: Served) -> None:
    name = f"left-{uuid.uuid4()}"
    with socket.create_connection(("127.0.0.1", served.proxied), timeout=DEADLINE_S) as connection:
        connection.sendall(request(infer("echo"), BODY, headers=[f"X-Request-Id: {name}"])[:-5])
    until(lambda: name in [each.request_id for each in records([served.spool_dir])], "the record of who left")
    found = served.recorded(name)
    assert (found.status_code, found.response.size) == (0, 0)
    assert "closed the connection" in found.error


def test_a_client_that_leaves_a_stream_is_captured_with_what_it_got(served: Served) -> None:
    gate, name = uuid.uuid4().hex, f"walked-{uuid.uuid4()}"
    with socket.create_connection(("127.0.0.1", served.proxied), timeout=DEADLINE_S) as connection:
        target = infer("tokens", f"?n=1000&gate={gate}")
        connection.sendall(request(target, BODY, headers=[f"X-Request-Id: {name}"]))
        exchange(served.direct, [request(f"/gate?gate={gate}", None, method="GET")])
        received = b""
        while b"token-0" not in received:
            received += connection.recv(4096)

    def noticed() -> bool:  # by the first tokens that nobody takes
        exchange(served.direct, [request(f"/gate?gate={gate}", None, method="GET")])
        return name in [each.request_id for each in records([served.spool_dir])]

    until(noticed, "the record of who left")
    found = served.recorded(name)
    assert found.status_code == 200
    assert found.response.body.startswith(b"data: token-0\n\n")
    assert "client closed the connection" in found.error


def test_an_early_refusal_reaches_a_client_that_is_still_sending(served: Served) -> None:
    body = bytes(4_000_000)
    name = f"early-{uuid.uuid4()}"
    connection = http.client.HTTPConnection("127.0.0.1", served.proxied, timeout=DEADLINE_S)
    connection.request("POST", infer("early"), iter([body[:1000]] * 4), {"x-request-id": name})
    response = connection.getresponse()
    assert (response.status, response.read()) == (413, b"big")
    connection.close()
    assert served.recorded(name).status_code == 413


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"this is no HTTP\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET /echo HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 70_000 + b"\r\n\r\n", 431),
        (request("/echo", b"ok", close=False) + b"garbage\r\n\r\n", 400),
    ],
)
def test_what_is_no_request_is_refused_with_a_problem_document(served: Served, data: bytes, status: int) -> None:
    answer = exchange(served.proxied, [data])
    head, _, body = answer[answer.rindex(b"HTTP/1.1 ") :].partition(b"\r\n\r\n")
    assert int(head.split()[1]) == status
    assert b"application/problem+json" in head
    assert json.loads(body)["status"] == status


def test_an_upgrade_offered_by_a_client_that_sends_a_body_is_ignored(served: Served) -> None:
    """Java's HttpClient offers h2c with every request."""
    name = f"h2c-{uuid.uuid4()}"
    offer = ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk"]
    data = request(infer("echo"), BODY, headers=[*offer, f"X-Request-Id: {name}"], close=False)
    with socket.create_connection(("127.0.0.1", served.proxied), timeout=DEADLINE_S) as connection:
        connection.sendall(data[:40])
        connection.sendall(data[40:])
        answer = b""
        while not answer.endswith(BODY):
            answer += connection.recv(4096)
    assert served.recorded(name).request.body == BODY


def test_after_kill_9_under_load_every_answered_request_is_in_the_spool(
    uvicorn: int, proxy_process: Callable[..., Process], spool_dir: Path
) -> None:
    for round_ in range(4):
        port = free_port()
        process = proxy_process(port, uvicorn)
        load = Load(port, enough=300 + 100 * round_)
        assert load.under_way.wait(DEADLINE_S)
        process.kill()
        load.join()
        spooled = [each.request_id for each in records([spool_dir])]
        assert len(spooled) == len(set(spooled))
        assert set(load.answered) <= set(spooled)


class Load:
    """Clients that ask until the server is gone.

    Attributes:
        under_way: set when `enough` requests were answered.
        answered: ids of the requests whose whole answer arrived.
    """

    def __init__(self, port: int, *, enough: int) -> None:
        self.answered: list[str] = []
        self.under_way = threading.Event()
        self._port = port
        self._enough = enough
        self._workers = [threading.Thread(target=self._ask) for _ in range(4)]
        for worker in self._workers:
            worker.start()

    def join(self) -> None:
        for worker in self._workers:
            worker.join()

    def _ask(self) -> None:
        with (
            contextlib.closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=DEADLINE_S)) as connection,
            contextlib.suppress(OSError, http.client.HTTPException),
        ):
            while True:
                name = uuid.uuid4().hex
                connection.request("POST", infer("echo"), BODY, {"x-request-id": name})
                if connection.getresponse().read() != BODY:
                    return
                self.answered.append(name)
                if len(self.answered) > self._enough:
                    self.under_way.set()


def test_sigterm_lets_the_request_under_way_end(
    uvicorn: int, proxy_process: Callable[..., Process], spool_dir: Path
) -> None:
    port, gate = free_port(), uuid.uuid4().hex
    process = proxy_process(port, uvicorn)
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as busy:
        busy.sendall(request(infer("wait", f"?gate={gate}"), BODY, close=False))
        idle = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)
        idle.sendall(request("/echo", b"ok", close=False))
        answer = b""
        while not answer.endswith(b"ok"):
            answer += idle.recv(4096)
        os.kill(process.pid, signal.SIGTERM)
        assert idle.recv(4096) == b""  # an idle connection is closed at once
        idle.close()
        until(lambda: not listening(port), "no new connections")
        exchange(uvicorn, [request(f"/gate?gate={gate}", None, method="GET")])
        assert read_all(busy).endswith(BODY)
    until(lambda: not _alive(process.pid), "the proxy's end")
    assert [each.request.body for each in records([spool_dir])] == [BODY]


def test_a_port_in_use_is_said_with_the_way_out(spool_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = subprocess.run(
            govern("mirror", "proxy", "--listen", address, "--spool-dir", str(spool_dir)),
            capture_output=True,
            text=True,
            timeout=240,
        )
    assert done.returncode == 1
    assert f"cannot listen on {address}" in done.stderr
    assert "another process listens on that port" in done.stderr
    assert "--listen" in done.stderr


def _read_head(connection: socket.socket) -> tuple[bytes, bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(4096)
    return data.partition(b"\r\n\r\n")


def _private_kib(pid: int) -> int:
    """The memory of a process, without the spool's shared pages."""
    status = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return int(fields["RssAnon"].split()[0])


def _alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"
