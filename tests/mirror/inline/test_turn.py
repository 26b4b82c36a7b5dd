"""The proxy asks before it answers: every outcome under every policy, and what may pass while it does."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from govern.record import Inference
from tests.mirror.conftest import DEADLINE_S, Running, exchange, read_all, records, request
from tests.mirror.inline.conftest import Judging
from tests.services.process import free_port

Start = Callable[..., Awaitable[Running]]
BODY = b'{"inputs": [{"name": "age", "shape": [1], "datatype": "FP64", "data": [41.5]}]}'
ECHO = "/v2/models/echo/infer"
ALARM = b'alarm; score="0.75"; threshold="0.5"'
OK = b'ok; score="0.25"; threshold="0.5"'
#: For steps that do answer: never reached, however busy the machine is.
LONG_MS = 60_000


def inline(judging: Judging, *steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "url": judging.url,
        "pipeline": "watch",
        "steps": [{"deadline_ms": LONG_MS} | step for step in steps],
        **more,
    }


async def asked(port: int, *pieces: bytes) -> bytes:
    return await asyncio.to_thread(exchange, port, pieces)


def parts(answer: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
    """Status, headers and body of one response."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *fields = head.split(b"\r\n")
    return (
        int(status.split()[1]),
        {name: value for name, _, value in (field.partition(b": ") for field in fields)},
        body,
    )


def recorded(running: Running) -> Inference:
    (found,) = records([running.recorder.config.spool_dir])
    return found


@pytest.mark.parametrize("when", ["request", "response"])
@pytest.mark.parametrize(("step", "field"), [("calm", OK), ("alarmed", ALARM)])
async def test_what_a_step_says_is_a_header_of_the_response_and_of_its_record(
    start_proxy: Start, uvicorn: int, judging: Judging, when: str, step: str, field: bytes
) -> None:
    running = await start_proxy(uvicorn, inline=inline(judging, {"step": step, "when": when}))
    data = request(ECHO, BODY, headers=["Content-Type: application/json", "X-Request-Id: r-1"])
    answer, direct = await asked(running.port, data), await asked(uvicorn, data)
    line = b"\r\ngovern-%b: %b" % (step.encode(), field)
    assert answer == direct.replace(b"\r\n\r\n", line + b"\r\n\r\n", 1)
    record = recorded(running)
    assert record.response.headers == {f"govern-{step}": field.decode()}
    assert (record.status_code, record.error, record.response.body) == (200, "", BODY)
    (judged,) = judging.asked[step]
    assert judged.request == record.request
    assert (judged.id, judged.request_id, judged.traceparent) == (record.id, "r-1", record.traceparent)
    assert judged.missing == (("response",) if when == "request" else ())
    assert judged.response.body == (b"" if when == "request" else BODY)


@pytest.mark.parametrize("when", ["request", "response"])
async def test_an_alarm_that_blocks_is_what_the_caller_gets_and_what_is_recorded(
    start_proxy: Start, uvicorn: int, judging: Judging, when: str
) -> None:
    step = {"step": "alarmed", "when": when, "on_alarm": "block"}
    running = await start_proxy(uvicorn, inline=inline(judging, {"step": "calm"}, step, block_status=451))
    once = request(ECHO, BODY, headers=["X-Request-Id: r-1"], close=False)
    answer = await asked(running.port, once + request("/v2/health/echo", None, method="GET"))
    head, _, rest = answer.partition(b"\r\n\r\n")
    status, fields, body = parts(head + b"\r\n\r\n" + rest[: int(parts(answer)[1][b"content-length"])])
    assert status == 451
    assert (fields[b"govern-alarmed"], fields[b"govern-calm"]) == (ALARM, OK)
    problem = json.loads(body)
    assert (problem["type"], problem["step"], problem["request_id"]) == ("inline-alarm", "alarmed", "r-1")
    assert rest[len(body) :].startswith(b"HTTP/1.1 200 ")  # the connection serves on
    record = recorded(running)
    assert (record.status_code, record.response.body) == (451, body)
    assert record.error.startswith("the step alarmed blocks this call")
    assert record.response.headers == {"govern-alarmed": ALARM.decode(), "govern-calm": OK.decode()}
    assert record.request.body == BODY


FAULTS = {
    "broken": b"status-500",
    "garbled": b"garbled",
    "unknown": b"status-404",
    "endless": b"unavailable",
    "reset": b"unavailable",
    "twist": b"unavailable",
    "hang": b"timeout",
}


@pytest.mark.parametrize("step", FAULTS)
@pytest.mark.parametrize("when", ["request", "response"])
async def test_a_step_that_fails_is_open_or_closed(
    start_proxy: Start, uvicorn: int, judging: Judging, when: str, step: str
) -> None:
    deadline_ms = 30 if step == "hang" else LONG_MS
    fault = {"step": step, "when": when, "deadline_ms": deadline_ms}
    opened = await start_proxy(uvicorn, inline=inline(judging, fault))
    told = b"unjudged; reason=" + FAULTS[step]
    status, fields, body = parts(await asked(opened.port, request(ECHO, BODY)))
    assert (status, fields[b"govern-" + step.encode()], body) == (200, told, BODY)
    closed = await start_proxy(uvicorn, inline=inline(judging, fault | {"on_failure": "closed"}))
    status, fields, body = parts(await asked(closed.port, request(ECHO, BODY)))
    assert (status, fields[b"govern-" + step.encode()], fields[b"retry-after"]) == (503, told, b"1")
    assert json.loads(body)["type"] == "inline-unjudged"
    assert sorted(each.status_code for each in records([closed.recorder.config.spool_dir])) == [200, 503]


async def test_a_server_that_is_not_there_is_a_failure_and_the_steps_are_asked_at_once(
    start_proxy: Start, uvicorn: int, judging: Judging
) -> None:
    judging.port, there = free_port(), judging.port
    steps = ({"step": "calm"}, {"step": "alarmed"})
    absent = await start_proxy(uvicorn, inline=inline(judging, *steps))
    _, fields, _ = parts(await asked(absent.port, request(ECHO, BODY)))
    assert fields[b"govern-calm"] == fields[b"govern-alarmed"] == b"unjudged; reason=unavailable"
    judging.port = there
    present = await start_proxy(uvicorn, inline=inline(judging, *steps))
    for _ in range(3):
        _, fields, _ = parts(await asked(present.port, request(ECHO, BODY)))
        assert (fields[b"govern-calm"], fields[b"govern-alarmed"]) == (OK, ALARM)
    assert judging.connections < 6  # kept from call to call, unless all of them were older than what is kept


async def test_a_body_that_is_too_long_to_be_held_is_a_failure(
    start_proxy: Start, uvicorn: int, judging: Judging
) -> None:
    long = b"x" * 200_000
    told = b"unjudged; reason=too-long"
    for when, path in (("request", "/v2/models/digest/infer"), ("response", "/v2/models/large/infer?pieces=3")):
        step = {"step": "calm", "when": when}
        opened = await start_proxy(uvicorn, inline=inline(judging, step, body_bytes=100_000))
        data = request(path, long if when == "request" else BODY)
        status, fields, body = parts(await asked(opened.port, data))
        assert (status, fields[b"govern-calm"], body) == (200, told, parts(await asked(uvicorn, data))[2])
        closed = await start_proxy(uvicorn, inline=inline(judging, step | {"on_failure": "closed"}, body_bytes=100_000))
        status, fields, body = parts(await asked(closed.port, data))
        assert (status, fields[b"govern-calm"]) == (503, told)
        assert b"retry-after" not in fields
    assert not judging.asked


async def test_the_proxy_says_continue_when_it_holds_the_request(
    start_proxy: Start, uvicorn: int, judging: Judging
) -> None:
    running = await start_proxy(uvicorn, inline=inline(judging, {"step": "alarmed", "on_alarm": "block"}))
    head, _, body = request(ECHO, BODY, headers=["Expect: 100-continue"]).partition(b"\r\n\r\n")

    def converse() -> tuple[bytes, bytes]:
        with socket.create_connection(("127.0.0.1", running.port), timeout=DEADLINE_S) as connection:
            connection.sendall(head + b"\r\n\r\n")
            word = b""
            while b"\r\n\r\n" not in word:
                more = connection.recv(1024)
                assert more, word
                word += more
            connection.sendall(body)
            return word, read_all(connection)

    word, answer = await asyncio.to_thread(converse)
    assert word == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert parts(answer)[0] == 403


@pytest.mark.parametrize("when", ["request", "response"])
async def test_an_event_stream_is_never_held(start_proxy: Start, uvicorn: int, judging: Judging, when: str) -> None:
    running = await start_proxy(uvicorn, inline=inline(judging, {"step": "calm", "when": when}))
    gate = f"inline-{when}"

    def read() -> tuple[bytes, bytes]:
        with socket.create_connection(("127.0.0.1", running.port), timeout=DEADLINE_S) as connection:
            connection.sendall(request(f"/v2/models/tokens/infer?n=2&gate={gate}", BODY))
            exchange(uvicorn, [request(f"/gate?gate={gate}", None, method="GET")])
            first = b""
            while b"token-0" not in first:
                more = connection.recv(4096)
                assert more, first
                first += more
            exchange(uvicorn, [request(f"/gate?gate={gate}", None, method="GET")])
            return first, read_all(connection)

    first, rest = await asyncio.to_thread(read)
    assert b"token-1" not in first
    assert b"token-1" in rest
    assert parts(first)[1][b"govern-calm"] == (OK if when == "request" else b"skipped; reason=event-stream")


@pytest.mark.parametrize("kind", ["chunked", "nothing", "refuse", "unchanged"])
async def test_of_other_responses_only_the_headers_change(
    start_proxy: Start, uvicorn: int, judging: Judging, kind: str
) -> None:
    steps = ({"step": "calm"}, {"step": "alarmed", "when": "response"})
    running = await start_proxy(uvicorn, inline=inline(judging, *steps))
    data = [
        request(f"/v2/models/{kind}/infer", chunks=[BODY, BODY], close=False)
        + request(f"/v2/models/{kind}/infer", BODY, close=False)
        + request("/v2/models/nowhere", BODY)
    ]
    answer, direct = await asked(running.port, *data), await asked(uvicorn, *data)
    said = b"skipped; reason=status" if kind != "chunked" else ALARM
    assert answer.count(b"\r\ngovern-calm: " + OK) == answer.count(b"\r\ngovern-alarmed: " + said) == 2
    assert answer.replace(b"\r\ngovern-calm: " + OK, b"").replace(b"\r\ngovern-alarmed: " + said, b"") == direct


async def test_a_caller_that_leaves_while_it_is_judged_is_recorded_and_the_model_not_called(
    start_proxy: Start, uvicorn: int, judging: Judging
) -> None:
    running = await start_proxy(uvicorn, inline=inline(judging, {"step": "hang"}))
    _, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(request(ECHO, BODY))
    async with asyncio.timeout(DEADLINE_S):
        while "hang" not in judging.asked:
            await asyncio.sleep(0.01)
        linger = struct.pack("ii", 1, 0)  # a reset: an end alone may be a client that is done sending
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()
        while not (found := records([running.recorder.config.spool_dir])):
            await asyncio.sleep(0.01)
    assert [(each.status_code, each.error.split(" ")[:3]) for each in found] == [(0, ["the", "client", "closed"])]


async def test_steps_come_and_go_with_the_file(start_proxy: Start, uvicorn: int, judging: Judging) -> None:
    running = await start_proxy(uvicorn)
    plain = await asked(running.port, request(ECHO, BODY))
    assert b"govern-" not in plain
    config = running.recorder.config
    judged = type(config).model_validate(
        config.model_dump() | {"inline": inline(judging, {"step": "alarmed", "on_alarm": "block"})}
    )
    running.recorder.apply(judged)
    assert parts(await asked(running.port, request(ECHO, BODY)))[0] == 403
    running.recorder.apply(config)
    assert await asked(running.port, request(ECHO, BODY)) == plain
