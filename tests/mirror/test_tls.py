"""TLS on both sides of the proxy, with certificates made for the test."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.client
import json
import os
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from cryptography.hazmat.primitives import serialization

from govern.errors import ConfigError
from govern.mirror.config import MirrorConfig, load
from govern.mirror.tls import towards_clients
from tests.mirror.authority import Authority, Pair
from tests.mirror.conftest import DEADLINE_S, HERE, Running, govern, records, request
from tests.services.process import Process, free_port, listening

INFER = "/v2/models/income/infer"
ECHO = "/v2/models/echo/infer"
BODY = b'{"inputs": []}'
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Start = Callable[..., Awaitable[Running]]


class Seen(NamedTuple):
    """What a server saw of the proxy's handshake."""

    alpn: str | None
    sni: str | None
    common_name: str


@asynccontextmanager
async def tls_server(pair: Pair, *, client_ca: Path | None = None) -> AsyncIterator[tuple[int, list[Seen]]]:
    """A server that answers every request with `OK`: its port, and what it saw of those who connected."""
    seen: list[Seen] = []
    asked: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair)
    context.set_alpn_protocols(["h2", "http/1.1"])
    context.sni_callback = lambda _object, name, _context: asked.append(name)
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(client_ca)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tls = writer.get_extra_info("ssl_object")
        subject = (tls.getpeercert() or {}).get("subject", ())
        common = "".join(value for part in subject for name, value in part if name == "commonName")
        seen.append(Seen(tls.selected_alpn_protocol(), asked[-1], common))
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                assert b"Content-Length: 14" in head
                await reader.readexactly(len(BODY))
                writer.write(OK)
        except (ConnectionError, asyncio.IncompleteReadError):
            writer.close()

    listening_ = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
    try:
        yield listening_.sockets[0].getsockname()[1], seen
    finally:
        listening_.close()


async def ask(port: int, context: ssl.SSLContext | None = None) -> bytes:
    """One request; what the server answers, and closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    writer.write(request(INFER, BODY))
    async with asyncio.timeout(DEADLINE_S):
        answer = await reader.read()
    writer.close()
    return answer


def client(authority: Authority, pair: Pair | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.file))
    context.set_alpn_protocols(["h2", "http/1.1"])
    if pair is not None:
        context.load_cert_chain(*pair)
    return context


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ca")


class Secured(NamedTuple):
    """A uvicorn and a proxy process in front of it, both of which speak TLS."""

    direct: int
    proxied: int
    context: ssl.SSLContext


@pytest.fixture
def secured(tmp_path: Path, spool_dir: Path, authority: Authority) -> Iterator[Secured]:
    pair = authority.issue("127.0.0.1")
    direct, proxied = free_port(), free_port()
    file = tmp_path / "mirror.yaml"
    settings = {
        "listen": f"127.0.0.1:{proxied}",
        "upstream": f"https://127.0.0.1:{direct}",
        "spool_dir": str(spool_dir),
        "tls": {
            "cert": str(pair.cert),
            "key": str(pair.key),
            "client_ca": str(authority.file),
            "upstream_ca": str(authority.file),
        },
    }
    file.write_text(yaml.safe_dump(settings))
    uvicorn = Process(
        [
            *(sys.executable, "-m", "uvicorn", "upstream_app:app", "--app-dir", str(HERE), "--port", str(direct)),
            *("--no-date-header", "--log-level", "warning", "--timeout-graceful-shutdown", "1"),
            *("--ssl-certfile", str(pair.cert), "--ssl-keyfile", str(pair.key)),
        ],
        log=tmp_path / "uvicorn.log",
    )
    proxy = Process(govern("mirror", "proxy", "--config", str(file)), log=tmp_path / "proxy.log")
    try:
        uvicorn.start(lambda _: listening(direct))
        proxy.start(lambda _: listening(proxied))
        yield Secured(direct, proxied, client(authority, authority.issue("caller")))
    finally:
        proxy.stop()
        uvicorn.stop()


def over_tls(secured: Secured, port: int, data: bytes) -> bytes:
    with (
        socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as plain,
        secured.context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        connection.sendall(data)
        received = b""
        while piece := connection.recv(1 << 16):
            received += piece
        return received


def test_through_tls_on_both_sides_the_bytes_are_the_servers(secured: Secured, spool_dir: Path) -> None:
    for path, options in (
        (ECHO, {}),
        (ECHO, {"chunks": [BODY[:4], BODY[4:]]}),
        ("/v2/models/chunked/infer", {}),
        ("/v2/models/refuse/infer", {}),
        ("/v2/models/nothing/infer", {}),
    ):
        data = request(path, BODY, **options)
        assert over_tls(secured, secured.proxied, data) == over_tls(secured, secured.direct, data)
    found = records([spool_dir])
    assert [each.status_code for each in found] == [200, 200, 200, 500, 204]
    assert {each.request.body for each in found} == {BODY}


def test_a_long_body_passes_whole_both_ways(secured: Secured, spool_dir: Path) -> None:
    body = os.urandom(1 << 16) * 80
    connection = http.client.HTTPSConnection("127.0.0.1", secured.proxied, context=secured.context, timeout=DEADLINE_S)
    connection.request("POST", ECHO, body)
    assert connection.getresponse().read() == body
    connection.close()
    (found,) = records([spool_dir])
    digest = hashlib.sha256(body).hexdigest()
    assert (found.request.sha256, found.response.sha256) == (digest, digest)


async def test_both_handshakes_settle_on_http_1_1_and_the_upstreams_name_is_asked_for(
    start_proxy: Start, authority: Authority
) -> None:
    own = authority.issue("127.0.0.1")
    async with tls_server(authority.issue("model.example")) as (port, seen):
        proxy = await start_proxy(
            port,
            upstream=f"https://127.0.0.1:{port}",
            tls={
                "cert": own.cert,
                "key": own.key,
                "upstream_ca": authority.file,
                "upstream_name": "model.example",
            },
        )
        _, writer = await asyncio.open_connection("127.0.0.1", proxy.port, ssl=client(authority))
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        writer.close()
        assert (await ask(proxy.port, client(authority))).endswith(b"\r\n\r\nok")
    assert seen == [Seen("http/1.1", "model.example", "")]


@pytest.mark.parametrize("wrong", ["name", "authority"])
async def test_a_server_that_cannot_prove_who_it_is_gives_502_and_is_not_asked(
    start_proxy: Start, authority: Authority, tmp_path: Path, spool_dir: Path, wrong: str
) -> None:
    trusted = authority if wrong == "name" else Authority(tmp_path, "another")
    pair = authority.issue("elsewhere.example" if wrong == "name" else "127.0.0.1")
    async with tls_server(pair) as (port, seen):
        proxy = await start_proxy(port, upstream=f"https://127.0.0.1:{port}", tls={"upstream_ca": trusted.file})
        answer = await ask(proxy.port)
        assert answer.startswith(b"HTTP/1.1 502 ")
        problem = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert "certificate verify failed" in problem["detail"]
        assert problem["fix"] == "check the model server's certificate and the section tls"
        assert seen == []
        (found,) = records([spool_dir])
        assert (found.status_code, found.request.body) == (502, BODY)
        unchecked = await start_proxy(port, upstream=f"https://127.0.0.1:{port}", tls={"upstream_verify": False})
        assert (await ask(unchecked.port)).endswith(b"\r\n\r\nok")


async def test_clients_and_proxy_show_certificates_where_they_are_asked_to(
    start_proxy: Start, authority: Authority, tmp_path: Path
) -> None:
    own, theirs, proxys = (authority.issue(name, file=name + "-") for name in ("127.0.0.1", "caller", "proxy"))
    server = authority.issue("127.0.0.1")
    stranger = Authority(tmp_path, "stranger").issue("caller", file="stranger")
    async with tls_server(server, client_ca=authority.file) as (port, seen):
        proxy = await start_proxy(
            port,
            upstream=f"https://127.0.0.1:{port}",
            tls={
                "cert": own.cert,
                "key": own.key,
                "client_ca": authority.file,
                "upstream_ca": authority.file,
                "upstream_cert": proxys.cert,
                "upstream_key": proxys.key,
            },
        )
        assert (await ask(proxy.port, client(authority, theirs))).endswith(b"\r\n\r\nok")
        for refused in (None, stranger):
            # TLS 1.3: the client learns of it with its first read, as an alert or, if that is lost, as a closed end.
            with contextlib.suppress(ssl.SSLError, ConnectionError):
                assert await ask(proxy.port, client(authority, refused)) == b""
    assert [each.common_name for each in seen] == ["proxy"]
    assert proxy.recorder.spool.counts.seen == 1


async def test_a_new_certificate_is_served_without_a_restart_and_half_a_pair_is_not(
    start_proxy: Start, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    pair = authority.issue("127.0.0.1", file="rotated")

    async def served() -> bytes:
        _, writer = await asyncio.open_connection("127.0.0.1", proxy.port, ssl=client(authority))
        found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        return found

    async def until(condition: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not await condition():
                await asyncio.sleep(0.01)

    async def said() -> bool:
        return "the old certificate stays in use" in caplog.text

    proxy = await start_proxy(free_port(), tls={"cert": pair.cert, "key": pair.key, "reload_s": 0.02})
    first = await served()
    whole = pair.key.read_bytes()
    pair.key.write_bytes(authority.issue("127.0.0.1", file="other").key.read_bytes())
    await until(said)
    assert await served() == first
    pair.key.write_bytes(whole)
    authority.issue("127.0.0.1", file="rotated")

    async def changed() -> bool:
        return await served() != first

    await until(changed)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"cert": "a.crt"}, "tls.key"),
        ({"upstream_key": "a.key"}, "tls.upstream_cert"),
        ({"client_ca": "ca.pem"}, "tls.client_ca"),
        ({"upstream_ca": "ca.pem"}, "upstream"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path: Path, section: dict[str, str], said: str) -> None:
    file = tmp_path / "mirror.yaml"
    file.write_text(yaml.safe_dump({"tls": section}))
    with pytest.raises(ConfigError) as caught:
        load(file, environ={})
    assert said in caught.value.what


def test_a_file_that_is_absent_or_locked_is_named(
    authority: Authority, tmp_path: Path, make_config: Callable[..., MirrorConfig]
) -> None:
    pair = authority.issue("127.0.0.1")
    absent = make_config(tls={"cert": pair.cert, "key": tmp_path / "absent.key"})
    with pytest.raises(ConfigError) as caught:
        towards_clients(absent.tls)
    assert caught.value.why == f"{tmp_path / 'absent.key'} cannot be found"
    key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
    locked = serialization.BestAvailableEncryption(b"secret")
    pair.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked))
    with pytest.raises(ConfigError) as caught:
        towards_clients(make_config(tls={"cert": pair.cert, "key": pair.key}).tls)
    assert "encrypted" in caught.value.why
