"""Whatever is sent, the proxy answers as the server does, stays up, and accounts for each inference once."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import shutil
import socket
import struct
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from govern.mirror import folder
from govern.mirror.inspect import inspect_agents
from tests.mirror.conftest import DEADLINE_S, HERE, exchange, govern, read_all, records, until
from tests.services.process import Process, free_port, listening

INFER = "/v2/models/income/infer"
SHAPES = ["length", "chunked", "until close", "nothing", "failure", "hints"]
TOKEN = "abcdefghijklmnopqrstuvwxyz0123456789-_"


class Ask(NamedTuple):
    """One well-formed request."""

    method: str
    target: str
    shape: str
    fields: list[tuple[str, str]]
    chunks: list[bytes] | None
    body: bytes
    trailers: list[tuple[str, str]]

    @property
    def sent(self) -> bytes:
        """The body, out of its chunks."""
        return b"".join(self.chunks) if self.chunks is not None else self.body

    def wire(self, request_id: str, *, close: bool) -> bytes:
        lines = [f"{self.method} {self.target} HTTP/1.1", "Host: model", f"X-Request-Id: {request_id}"]
        lines += [f"X-Shape: {self.shape}", *(f"{name}: {value}" for name, value in self.fields)]
        lines += ["Connection: close"] * close
        if self.chunks is None:
            lines.append(f"Content-Length: {len(self.body)}")
            payload = self.body
        else:
            lines.append("Transfer-Encoding: chunked")
            payload = b"".join(b"%X\r\n%b\r\n" % (len(one), one) for one in self.chunks) + b"0\r\n"
            payload += b"".join(f"{name}: {value}\r\n".encode() for name, value in self.trailers) + b"\r\n"
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + payload


values = st.text(st.characters(codec="ascii", min_codepoint=33, max_codepoint=126), min_size=1, max_size=30)
fields = st.lists(st.tuples(st.text(TOKEN, min_size=1, max_size=20).map("X-F-{}".format), values), max_size=5)
asks = st.builds(
    Ask,
    method=st.sampled_from(["POST", "POST", "POST", "GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"]),
    target=st.sampled_from([INFER, INFER + "?a=%20b&c", "/elsewhere", "/v1/chat/completions"]),
    shape=st.sampled_from(SHAPES),
    fields=fields,
    chunks=st.none() | st.lists(st.binary(min_size=1, max_size=5000), max_size=4),
    body=st.binary(max_size=20_000),
    trailers=st.lists(st.tuples(st.text(TOKEN, min_size=1, max_size=10).map("X-T-{}".format), values), max_size=2),
)
cuts = st.lists(st.floats(0, 1), max_size=15)


class Fuzzed(NamedTuple):
    """A server of h11, a proxy in front of it, and their spool."""

    direct: int
    proxied: int
    proxy: Process
    spool_dir: Path


@pytest.fixture
def fuzzed(tmp_path: Path) -> Iterator[Fuzzed]:
    base = Path(tempfile.mkdtemp(prefix="govern-test-", dir=folder.default_spool_dir().parent))
    direct, proxied = free_port(), free_port()
    server = Process([sys.executable, str(HERE / "h11_server.py"), str(direct)], log=tmp_path / "server.log")
    where = ["--listen", f"127.0.0.1:{proxied}", "--upstream", f"http://127.0.0.1:{direct}"]
    proxy = Process(govern("mirror", "proxy", *where, "--spool-dir", str(base / "spool")), log=tmp_path / "proxy.log")
    try:
        server.start(lambda _: listening(direct))
        proxy.start(lambda _: listening(proxied))
        yield Fuzzed(direct, proxied, proxy, base / "spool")
        assert "Traceback" not in proxy.log() + server.log()
    finally:
        proxy.stop()
        server.stop()
        shutil.rmtree(base)


def cut(data: bytes, at: Sequence[float]) -> list[bytes]:
    places = sorted({0, len(data), *(int(place * len(data)) for place in at)})
    return [data[start:stop] for start, stop in itertools.pairwise(places)]


def accounted(fuzzed: Fuzzed) -> None:
    """The counters, the sequence numbers and the records say the same."""
    (agent,) = inspect_agents(fuzzed.spool_dir)
    numbers = [each.capture.seq for each in records([fuzzed.spool_dir])]
    assert agent.counts == (len(numbers), 0, 0)
    assert numbers == list(range(len(numbers)))


def test_well_formed_requests_get_the_servers_bytes_and_one_record_each(fuzzed: Fuzzed) -> None:
    expected: dict[str, str] = {}

    @settings(max_examples=80, deadline=None)
    @given(asked=st.lists(asks, min_size=1, max_size=5), at=cuts)
    def run(asked: list[Ask], at: list[float]) -> None:
        # A response that ends with its connection ends the pipeline as well.
        last = next((n for n, ask in enumerate(asked) if ask.shape == "until close"), len(asked) - 1)
        asked = asked[: last + 1]
        names = [uuid.uuid4().hex for _ in asked]
        data = b"".join(
            ask.wire(name, close=number == last) for number, (ask, name) in enumerate(zip(asked, names, strict=True))
        )
        assert exchange(fuzzed.proxied, cut(data, at)) == exchange(fuzzed.direct, [data])
        for ask, name in zip(asked, names, strict=True):
            if ask.method == "POST" and ask.target != "/elsewhere":
                expected[name] = hashlib.sha256(ask.sent).hexdigest()

    run()
    found = records([fuzzed.spool_dir])
    assert {each.request_id: each.request.sha256 for each in found} == expected
    assert len(found) == len(expected) > 20
    assert {each.error for each in found} == {""}
    accounted(fuzzed)


def test_resets_anywhere_leave_a_proxy_that_serves_and_counts(fuzzed: Fuzzed) -> None:
    whole: set[str] = set()
    begun: set[str] = set()

    @settings(max_examples=80, deadline=None)
    @given(ask=asks, at=cuts, end=st.floats(0, 1))
    def run(ask: Ask, at: list[float], end: float) -> None:
        name = uuid.uuid4().hex
        data = ask.wire(name, close=False)
        prefix = data[: int(end * len(data))]
        with socket.create_connection(("127.0.0.1", fuzzed.proxied), timeout=DEADLINE_S) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            for piece in cut(prefix, at):
                connection.sendall(piece)
        begun.add(name)
        other = uuid.uuid4().hex
        answer = exchange(fuzzed.proxied, [Ask("POST", INFER, "length", [], None, b"{}", []).wire(other, close=True)])
        assert answer.startswith(b"HTTP/1.1 200 ")
        whole.add(other)

    run()
    ended(fuzzed)
    found = [each.request_id for each in records([fuzzed.spool_dir])]
    assert len(found) == len(set(found))
    assert whole <= set(found) <= whole | begun
    accounted(fuzzed)


def ended(fuzzed: Fuzzed) -> None:
    """Wait until no client is left, and end the proxy: from then on its account is that of every exchange."""
    until(lambda: settled(fuzzed), "the end of every exchange")
    fuzzed.proxy.terminate()
    assert fuzzed.proxy.wait() == 0


def settled(fuzzed: Fuzzed) -> bool:
    """Whether no client's connection is open any more."""
    sockets = Path("/proc/net/tcp").read_text().splitlines()[1:]
    local = f":{fuzzed.proxied:04X}"
    return not any(line.split()[1].endswith(local) and line.split()[3] == "01" for line in sockets)


def test_malformed_requests_leave_a_proxy_that_serves_and_counts(fuzzed: Fuzzed) -> None:
    whole: set[str] = set()

    @settings(max_examples=120, deadline=None)
    @given(ask=asks, at=cuts, harm=st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=4)), min_size=1, max_size=4))
    def run(ask: Ask, at: list[float], harm: list[tuple[float, bytes]]) -> None:
        data = ask.wire(uuid.uuid4().hex, close=True)
        for place, bytes_ in harm:
            where = int(place * len(data))
            data = data[:where] + bytes_ + data[where + len(bytes_) :]
        with socket.create_connection(("127.0.0.1", fuzzed.proxied), timeout=DEADLINE_S) as connection:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                for piece in cut(data, at):
                    connection.sendall(piece)
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_WR)  # what waits for more must not wait for ever
            answer = read_all(connection)
        assert answer == b"" or answer.startswith(b"HTTP/1.")
        other = uuid.uuid4().hex
        answer = exchange(fuzzed.proxied, [Ask("POST", INFER, "length", [], None, b"{}", []).wire(other, close=True)])
        assert answer.startswith(b"HTTP/1.1 200 ")
        whole.add(other)

    run()
    ended(fuzzed)
    found = [each.request_id for each in records([fuzzed.spool_dir])]
    assert [found.count(each) for each in whole] == [1] * len(whole)
    accounted(fuzzed)
