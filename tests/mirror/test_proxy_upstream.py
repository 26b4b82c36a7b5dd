"""The proxy against servers that misbehave, change protocols or are not there: each byte of theirs written by hand."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from govern.errors import Unavailable
from govern.mirror.config import MirrorConfig
from tests.mirror.conftest import DEADLINE_S, Running, records, request
from tests.services.process import free_port

INFER = "/v2/models/income/infer"
BODY = b'{"inputs": []}'
Start = Callable[..., Awaitable[Running]]
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(serve: Serve) -> AsyncIterator[int]:
    """A TCP server whose every connection `serve` handles; its port."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()


async def read_request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")), 0
    )
    return head, await reader.readexactly(length)


async def ask(port: int, data: bytes) -> bytes:
    """Send; all that comes until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    async with asyncio.timeout(DEADLINE_S):
        answer = await reader.read()
    writer.close()
    return answer


async def test_without_an_upstream_the_answer_is_502_and_captured(start_proxy: Start, spool_dir: Path) -> None:
    proxy = await start_proxy(free_port())
    answer = await ask(proxy.port, request(INFER, BODY, headers=["X-Request-Id: r"], close=False))
    head, _, body = answer.partition(b"\r\n\r\n")
    problem = json.loads(body)
    assert head.startswith(b"HTTP/1.1 502 ")
    assert (problem["status"], problem["type"]) == (502, "unavailable")
    assert "does not answer" in problem["title"]
    (found,) = records([spool_dir])
    assert (found.request_id, found.status_code, found.request.body) == ("r", 502, BODY)
    assert "does not answer" in found.error
    assert found.response.body == body


async def test_the_record_of_a_failure_holds_the_request_that_came_after_it(
    start_proxy: Start, spool_dir: Path
) -> None:
    proxy = await start_proxy(free_port())
    head, _, body = request(INFER, BODY, headers=["X-Request-Id: late"]).partition(b"\r\n\r\n")
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(head + b"\r\n\r\n")
    # By the time that a whole request has been refused, so has the one whose head was sent before it.
    assert (await ask(proxy.port, request(INFER, BODY))).startswith(b"HTTP/1.1 502 ")
    writer.write(body)
    async with asyncio.timeout(DEADLINE_S):
        assert (await reader.read()).startswith(b"HTTP/1.1 502 ")
    writer.close()
    found = {one.request_id: one for one in records([spool_dir])}["late"]
    assert (found.request.body, found.request.sha256) == (BODY, hashlib.sha256(BODY).hexdigest())
    assert "does not answer" in found.error


async def test_a_client_that_waits_to_be_told_to_continue_learns_at_once_that_there_is_no_server(
    start_proxy: Start, spool_dir: Path
) -> None:
    proxy = await start_proxy(free_port())
    head, _, _ = request(INFER, BODY, headers=["Expect: 100-continue"]).partition(b"\r\n\r\n")
    assert (await ask(proxy.port, head + b"\r\n\r\n")).startswith(b"HTTP/1.1 502 ")


async def test_a_response_cut_short_is_cut_short_for_the_client_and_said_in_the_record(
    start_proxy: Start, spool_dir: Path
) -> None:
    part = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(part)

    async with server(serve) as port:
        proxy = await start_proxy(port)
        assert await ask(proxy.port, request(INFER, BODY, close=False)) == part
    (found,) = records([spool_dir])
    assert (found.status_code, found.response.body) == (200, b"only this")
    assert "cut short" in found.error


async def test_a_server_that_hangs_up_gives_502(start_proxy: Start, spool_dir: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)

    async with server(serve) as port:
        proxy = await start_proxy(port)
        assert (await ask(proxy.port, request(INFER, BODY))).startswith(b"HTTP/1.1 502 ")
    (found,) = records([spool_dir])
    assert found.status_code == 502
    assert "closed the connection" in found.error


async def test_an_answer_that_is_no_http_gives_502(start_proxy: Start, spool_dir: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"SSH-2.0-OpenSSH\r\n")
        await reader.read()

    async with server(serve) as port:
        proxy = await start_proxy(port)
        assert (await ask(proxy.port, request(INFER, BODY))).startswith(b"HTTP/1.1 502 ")
    assert "no HTTP" in records([spool_dir])[0].error


async def test_a_response_that_ends_with_the_connection(start_proxy: Start, spool_dir: Path) -> None:
    whole = b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil the end"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(whole)

    async with server(serve) as port:
        proxy = await start_proxy(port)
        assert await ask(proxy.port, request(INFER, BODY, close=False)) == whole
    (found,) = records([spool_dir])
    assert (found.response.body, found.error, found.status_code) == (b"until the end", "", 200)


async def test_interim_responses_pass_and_the_final_one_counts(start_proxy: Start, spool_dir: Path) -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    proceed = b"HTTP/1.1 100 Continue\r\n\r\n"
    final = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"Expect: 100-continue" in head
        writer.write(interim + proceed)
        await reader.readexactly(len(BODY))
        writer.write(final)

    async with server(serve) as port:
        proxy = await start_proxy(port)
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        data = request(INFER, BODY, headers=["Expect: 100-continue"])
        writer.write(data.removesuffix(BODY))
        async with asyncio.timeout(DEADLINE_S):
            assert await reader.readexactly(len(interim + proceed)) == interim + proceed
            writer.write(BODY)
            assert await reader.read() == final
        writer.close()
    (found,) = records([spool_dir])
    assert (found.status_code, found.response.body, found.request.body) == (201, b"ok", BODY)


async def test_an_upgraded_connection_is_a_tunnel(start_proxy: Start, spool_dir: Path) -> None:
    switch = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: shout\r\nConnection: Upgrade\r\n\r\n"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(switch + b"HELLO")
        while data := await reader.read(1000):
            writer.write(data.upper())
        writer.write(b"BYE")

    async with server(serve) as port:
        proxy = await start_proxy(port)
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        offer = ["Upgrade: shout", "Connection: Upgrade"]
        writer.write(request("/chat", None, method="GET", headers=offer, close=False) + b"at once ")
        async with asyncio.timeout(DEADLINE_S):
            assert await reader.readexactly(len(switch) + 13) == switch + b"HELLOAT ONCE "
            writer.write(b"and later")
            assert await reader.readexactly(9) == b"AND LATER"
            writer.write_eof()
            assert await reader.read() == b"BYE"
        writer.close()
    assert records([spool_dir]) == []


async def test_after_a_refused_upgrade_the_connection_goes_on_as_http_and_is_captured(
    start_proxy: Start, spool_dir: Path
) -> None:
    refusal = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nno"
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nyes"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(refusal)
        await read_request(reader)
        writer.write(answer)

    async with server(serve) as port:
        proxy = await start_proxy(port)
        offer = ["Upgrade: shout", "Connection: Upgrade"]
        both = request("/chat", None, method="GET", headers=offer, close=False) + request(INFER, BODY)
        assert await ask(proxy.port, both) == refusal + answer
    (found,) = records([spool_dir])
    assert (found.request.body, found.response.body) == (BODY, b"yes")


async def test_upstream_connections_are_shared_and_a_closing_one_is_replaced_unseen(
    start_proxy: Start, spool_dir: Path
) -> None:
    """The second request meets a connection that the server is closing: the client does not notice."""
    connections = 0
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await read_request(reader)
        writer.write(answer)
        if connections == 1:
            await read_request(reader)
            writer.write(answer)
            await read_request(reader)  # and hang up, as if the third request had crossed our closing
            return
        await read_request(reader)
        writer.write(answer)

    async with server(serve) as port:
        proxy = await start_proxy(port)
        for expected in (1, 1, 2, 2):
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            writer.write(request(INFER, BODY, close=False))
            async with asyncio.timeout(DEADLINE_S):
                assert await reader.readexactly(len(answer)) == answer
            assert connections == expected
            writer.close()
    found = records([spool_dir])
    assert [(each.status_code, each.error) for each in found] == [(200, "")] * 4


async def test_more_than_was_promised_ends_both_connections(start_proxy: Start, spool_dir: Path) -> None:
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(data)
        await reader.read()

    async with server(serve) as port:
        proxy = await start_proxy(port)
        assert await ask(proxy.port, request(INFER, BODY, close=False)) == data
    (found,) = records([spool_dir])
    assert found.response.body == b"ok"


async def test_a_client_that_leaves_cancels_its_request_at_the_server(start_proxy: Start, spool_dir: Path) -> None:
    reached, cancelled = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        reached.set()
        with contextlib.suppress(ConnectionError):
            await reader.read()  # until the proxy closes
        cancelled.set()

    async with server(serve) as port:
        proxy = await start_proxy(port)
        _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(request(INFER, BODY, close=False))
        async with asyncio.timeout(DEADLINE_S):
            await reached.wait()
            writer.close()
            await cancelled.wait()
            while not records([spool_dir]):
                await asyncio.sleep(0.01)
    (found,) = records([spool_dir])
    assert (found.request.body, found.status_code) == (BODY, 0)
    assert "client closed the connection" in found.error


async def test_a_client_that_only_stops_sending_gets_its_answer_from_a_server_that_gives_one(
    start_proxy: Start, spool_dir: Path
) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        assert await reader.read() == b""  # the end is passed on
        writer.write(answer)

    async with server(serve) as port:
        proxy = await start_proxy(port)
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(request(INFER, BODY, close=False))
        writer.write_eof()
        async with asyncio.timeout(DEADLINE_S):
            assert await reader.read() == answer
        writer.close()
    (found,) = records([spool_dir])
    assert (found.status_code, found.error) == (200, "")


async def test_a_server_that_does_not_read_stops_the_client(start_proxy: Start, spool_dir: Path) -> None:
    body = bytes(64_000_000)
    sent = 0
    go_on = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"/other" not in head:
            await go_on.wait()
            await reader.readexactly(len(body))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")

    async def send(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        head, _, _ = request(INFER, body).partition(b"\r\n\r\n")
        writer.write(head + b"\r\n\r\n")
        for at in range(0, len(body), 1 << 16):
            piece = body[at : at + (1 << 16)]
            writer.write(piece)
            await writer.drain()
            sent += len(piece)

    async with server(serve) as port:
        proxy = await start_proxy(port)
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        sending = asyncio.create_task(send(writer))
        before, at_rest = -1, 0
        while at_rest < 20 and not sending.done():  # twenty exchanges of another client's without a byte taken
            assert (await ask(proxy.port, request("/other", None, method="GET"))).endswith(b"ok")
            before, at_rest = sent, at_rest + 1 if sent == before else 0
        assert 0 < sent < len(body) // 2
        go_on.set()
        async with asyncio.timeout(DEADLINE_S):
            assert (await reader.read()).endswith(b"ok")
            await sending
        writer.close()
    (found,) = records([spool_dir])
    assert (found.request.size, found.request.sha256) == (len(body), hashlib.sha256(body).hexdigest())


async def test_each_exchange_counts_once_whatever_happens(start_proxy: Start) -> None:
    """`seen` is what passed, by the account of the server's side."""
    passed = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal passed
        await read_request(reader)
        passed += 1
        if passed % 3 == 0:
            return
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")

    async with server(serve) as port:
        proxy = await start_proxy(port, sampling_rate=0.5)
        for number in range(30):
            await ask(proxy.port, request(INFER, BODY, headers=[f"X-Request-Id: n{number}"]))
        counts = proxy.recorder.spool.counts
    assert counts.seen == passed == 30
    assert 0 < counts.sampled_out < 30
    assert counts.dropped == 0


async def test_a_taken_port_raises_unavailable(start_proxy: Start, make_config: Callable[..., MirrorConfig]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(Unavailable, match="cannot listen") as caught:
            await start_proxy(1, listen=f"127.0.0.1:{taken.getsockname()[1]}")
        assert "another process" in caught.value.why
