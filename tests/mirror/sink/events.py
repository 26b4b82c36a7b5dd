"""Events as the loggers send them, and ways to send them."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

SAMPLES = Path(__file__).parent / "samples"
DEADLINE_S = 60.0

V2_REQUEST = b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP64","data":[1,2,3,4]}]}'
V2_RESPONSE = b'{"model_name":"m","outputs":[{"name":"p","shape":[1,2],"datatype":"FP64","data":[0.1,0.9]}]}'
SELDON_REQUEST = b'{"data":{"names":["a","b"],"ndarray":[[1.5,2]]}}'
SELDON_RESPONSE = b'{"data":{"names":["p"],"ndarray":[[0.9]]},"meta":{}}'


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def problem(self) -> dict[str, object]:
        assert self.headers["content-type"] == "application/problem+json"
        found: dict[str, object] = json.loads(self.body)
        assert found["status"] == self.status
        return found


def post(headers: Mapping[str, str], body: bytes, *, path: str = "/") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: sink", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def kserve_headers(side: str, ident: str, **attributes: str) -> dict[str, str]:
    named = {
        "specversion": "1.0",
        "id": ident,
        "source": "http://localhost:9081/",
        "type": f"org.kubeflow.serving.inference.{side}",
        "time": "2026-11-24T00:18:39.563031467Z" if side == "request" else "2026-11-24T00:18:39.663031467Z",
        "inferenceservicename": "income",
        "namespace": "prod",
        "component": "predictor",
        "endpoint": "default",
        "metadata": "{}",
    }
    return {f"Ce-{name}": value for name, value in (named | attributes).items()} | {"Content-Type": "application/json"}


def kserve(side: str, ident: str, body: bytes | None = None, **attributes: str) -> bytes:
    if body is None:
        body = V2_REQUEST if side == "request" else V2_RESPONSE
    return post(kserve_headers(side, ident, **attributes), body)


def seldon_headers(side: str, request_id: str, **attributes: str) -> dict[str, str]:
    """As Seldon Core v1's executor sends them: an id of its own for each half."""
    named = {
        "specversion": "1.0",
        "id": f"{request_id}-{side}",
        "source": "http://localhost:8000/",
        "type": "io.seldon.serving.feedback" if side == "feedback" else f"io.seldon.serving.inference.{side}",
        "requestid": request_id,
        "modelid": "classifier",
        "inferenceservicename": "income",
        "namespace": "seldon",
        "endpoint": "default",
    }
    return {f"CE-{name}": value for name, value in (named | attributes).items()} | {"Content-Type": "application/json"}


def seldon(side: str, request_id: str, body: bytes | None = None, **attributes: str) -> bytes:
    if body is None:
        body = SELDON_REQUEST if side == "request" else SELDON_RESPONSE
    return post(seldon_headers(side, request_id, **attributes), body)


async def send(port: int, data: bytes) -> Answer:
    """Send the bytes of a request on a connection of its own."""
    async with asyncio.timeout(DEADLINE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(data)
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
            if headers.get("transfer-encoding") == "chunked":
                body = await reader.readuntil(b"\r\n0\r\n\r\n")
            else:
                body = await reader.readexactly(int(headers["content-length"]))
        finally:
            writer.close()
        await writer.wait_closed()
    return Answer(int(head[0].split()[1]), headers, body)


def acknowledged(port: int, data: bytes) -> bool:
    """Send the bytes of a request; whether the sink said 2xx before it died, if it died."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as connection:
            connection.sendall(data)
            return connection.recv(1 << 16).startswith(b"HTTP/1.1 202")
    except OSError:
        return False
