"""What stands in for a server that judges, to show the faults that a real one cannot be made to show."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec
import pytest

from govern import record as records
from govern.record import Inference

_JUDGEMENT = {"pipeline": "watch", "kind": "outlier", "n_instances": 1, "flagged": [], "score": 0.25, "threshold": 0.5}


def _ok(*, alarm: bool) -> bytes:
    return msgspec.json.encode(_JUDGEMENT | {"alarm": alarm, "score": 0.75 if alarm else 0.25})


#: What a step of this name answers: status and body.
ANSWERS: dict[str, tuple[int, bytes]] = {
    "calm": (200, _ok(alarm=False)),
    "alarmed": (200, _ok(alarm=True)),
    "broken": (500, b"{}"),
    "garbled": (200, b'{"alarm": "perhaps"}'),
    "endless": (200, b" " * (2 << 20)),
}


@dataclass
class Judging:
    """The stand-in; a step called `hang` never answers, one called `reset` closes, `twist` answers no HTTP.

    Attributes:
        asked: by step, the records that it was asked about.
        connections: how many were made.
    """

    port: int = 0
    asked: dict[str, list[Inference]] = field(default_factory=dict)
    connections: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                body = await reader.readexactly(int(head.partition("content-length: ")[2].partition("\r")[0]))
                step = head.split()[1].removeprefix("/v1/pipelines/watch/steps/").removesuffix("/judge")
                self.asked.setdefault(step, []).append(records.decode(Inference, body))
                if step == "hang":
                    await reader.read()
                    break
                if step == "reset":
                    writer.transport.abort()
                    break
                status, answer = ANSWERS.get(step, (404, b"{}"))
                head_back = b"nonsense\r\n\r\n" if step == "twist" else b"HTTP/1.1 %d X\r\n" % status
                writer.write(head_back + b"content-length: %d\r\n\r\n" % len(answer) + answer)
                await writer.drain()
        writer.close()


@pytest.fixture
async def judging() -> AsyncIterator[Judging]:
    judging = Judging()
    server = await asyncio.start_server(judging.serve, "127.0.0.1", 0)
    judging.port = server.sockets[0].getsockname()[1]
    yield judging
    server.close()
    await server.wait_closed()
