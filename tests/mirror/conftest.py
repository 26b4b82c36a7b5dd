"""A model server, a proxy in front of it and the spool between, as real processes and sockets."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from govern.mirror import folder
from govern.mirror.captured import decode
from govern.mirror.config import MirrorConfig
from govern.mirror.inspect import InspectedSegment, inspect_segments
from govern.mirror.proxy import Proxy
from govern.mirror.recorder import Recorder, open_recorder
from govern.mirror.segment import Frame, SegmentReader
from govern.record import Inference
from tests.services.process import Process, free_port, listening

HERE = Path(__file__).parent
DEADLINE_S = 60.0
#: Small, so that tests roll over many: one record of this body limit fits.
SEGMENT_BYTES = 64 * 1024
BODY_BYTES = 16 * 1024


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition, with a deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"not in {DEADLINE_S} s: {what}"
        time.sleep(0.01)


def renew(file: Path, text: str) -> None:
    """Put another file into a file's place, in one step, as a ConfigMap is renewed: half a file has rules, too."""
    beside = file.with_name(f"next-{file.name}")
    beside.write_text(text)
    beside.rename(file)


def records(folders: Sequence[Path]) -> list[Inference]:
    """Every inference that lies in the spool, agent by agent, in order."""
    found = []
    for segment in inspect_segments(folders):
        found += [record(frame) for frame in segment.frames() if isinstance(frame, Frame)]
        found += [record(frame) for frame in _left_by_a_kill(segment)]
    return found


def segment_files(spool: Path) -> list[Path]:
    """A folder's segments by name, so the first is the oldest; without the drafts of those that are being made."""
    return sorted(segment.path for segment in folder.segments(spool))


def record(frame: Frame) -> Inference:
    found = decode(frame.payload)
    assert isinstance(found, Inference)
    return found


def _left_by_a_kill(segment: InspectedSegment) -> list[Frame]:
    with SegmentReader(segment.path) as reader:
        return reader.beyond(segment.header.end)


def govern(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "govern.cli.main", *arguments]


@pytest.fixture
def spool_dir() -> Iterator[Path]:
    """A folder for a spool, on tmpfs as in production."""
    base = Path(tempfile.mkdtemp(prefix="govern-test-", dir=folder.default_spool_dir().parent))
    yield base / "spool"
    shutil.rmtree(base)


@pytest.fixture
def make_config(spool_dir: Path) -> Callable[..., MirrorConfig]:
    """A configuration with small segments."""

    def make(**values: object) -> MirrorConfig:
        defaults: dict[str, object] = {
            "listen": "127.0.0.1:0",
            "service": "income",
            "pod": "pod-1",
            "spool_dir": spool_dir,
            "segment_bytes": SEGMENT_BYTES,
            "body_bytes": BODY_BYTES,
            "spool_bytes": 256 * SEGMENT_BYTES,
            "drain_s": 5.0,
        }
        return MirrorConfig.model_validate(defaults | values)

    return make


@dataclass(frozen=True)
class Running:
    """A proxy that runs in this process, on a port of its own."""

    port: int
    recorder: Recorder
    stop: asyncio.Event
    ended: asyncio.Task[None]


@pytest.fixture
async def start_proxy(make_config: Callable[..., MirrorConfig]) -> AsyncIterator[Callable[..., object]]:
    """`await start_proxy(upstream_port, **config)`: a proxy in this event loop."""
    running: list[Running] = []

    async def start(upstream: int, /, **values: object) -> Running:
        config = make_config(**{"upstream": f"http://127.0.0.1:{upstream}"} | values)
        recorder = open_recorder(config)
        stop = asyncio.Event()
        port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(Proxy(config, recorder).serve(stop, started=port.set_result))
        await asyncio.wait([port, task], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            recorder.close()
            await task
        running.append(Running(await port, recorder, stop, task))
        return running[-1]

    yield start
    for one in running:
        one.stop.set()
        await one.ended
        one.recorder.close()


@dataclass(frozen=True)
class Served:
    """A uvicorn, a proxy process in front of it, and their spool."""

    direct: int
    proxied: int
    proxy: Process
    spool_dir: Path

    def recorded(self, request_id: str) -> Inference:
        """The inference with a request id; fails when there is none, or more than one."""
        (found,) = [each for each in records([self.spool_dir]) if each.request_id == request_id]
        return found


@pytest.fixture(scope="module")
def uvicorn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a real uvicorn that runs `upstream_app`."""
    port = free_port()
    process = Process(
        [
            *(sys.executable, "-m", "uvicorn", "upstream_app:app", "--app-dir", str(HERE)),
            *("--port", str(port), "--no-date-header", "--log-level", "warning", "--timeout-keep-alive", "60"),
            *("--timeout-graceful-shutdown", "1"),  # a stream that nobody released must not hold the tests up
        ],
        log=tmp_path_factory.mktemp("uvicorn") / "log",
    )
    process.start(lambda _: listening(port))
    yield port
    process.stop()


@pytest.fixture
def proxy_process(spool_dir: Path, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """`proxy_process(port, upstream_port, *options)`: a `govern mirror proxy` of its own process."""
    with contextlib.ExitStack() as stack:

        def start(port: int, upstream: int, *options: str) -> Process:
            process = Process(
                govern(
                    *("mirror", "proxy", "--listen", f"127.0.0.1:{port}"),
                    *("--upstream", f"http://127.0.0.1:{upstream}", "--spool-dir", str(spool_dir), *options),
                ),
                log=tmp_path / f"proxy-{port}.log",
            )
            process.start(lambda _: listening(port))
            stack.callback(process.stop)
            return process

        yield start


@pytest.fixture(scope="module")
def served(uvicorn: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One proxy process for the whole module."""
    base = Path(tempfile.mkdtemp(prefix="govern-test-", dir=folder.default_spool_dir().parent))
    port = free_port()
    process = Process(
        govern(
            *("mirror", "proxy", "--listen", f"127.0.0.1:{port}", "--upstream", f"http://127.0.0.1:{uvicorn}"),
            *("--spool-dir", str(base / "spool"), "--service", "income"),
        ),
        log=tmp_path_factory.mktemp("proxy") / "log",
    )
    process.start(lambda _: listening(port))
    yield Served(uvicorn, port, process, base / "spool")
    process.stop()
    shutil.rmtree(base)


def exchange(port: int, pieces: Sequence[bytes], *, end: bool = False) -> bytes:
    """Send the pieces, one write each; all that comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for piece in pieces:
                connection.sendall(piece)
        if end:
            connection.shutdown(socket.SHUT_WR)
        return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    received = []
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(1 << 16):
            received.append(data)
    return b"".join(received)


def request(
    path: str,
    body: bytes | None = b"{}",
    *,
    method: str = "POST",
    headers: Sequence[str] = (),
    chunks: Sequence[bytes] | None = None,
    close: bool = True,
    version: str = "1.1",
) -> bytes:
    """The bytes of a request."""
    lines = [f"{method} {path} HTTP/{version}", "Host: model", *headers]
    if close:
        lines.append("Connection: close")
    payload = b""
    if chunks is not None:
        lines.append("Transfer-Encoding: chunked")
        payload = b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in chunks if one) + b"0\r\n\r\n"
    elif body is not None:
        lines.append(f"Content-Length: {len(body)}")
        payload = body
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + payload
