"""Answers to calls in the place of a model server that cannot be reached."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote

from govern.mirror.grpc.calls import Calls
from govern.mirror.grpc.http2 import (
    ACK,
    END_HEADERS,
    END_STREAM,
    NO_ERROR,
    Frame,
    Kind,
    frame,
    goaway,
    header_block,
)
from govern.mirror.grpc.status import UNAVAILABLE, UNAVAILABLE_CODE

#: How long a connection is answered so. Then it is closed, and the caller's next one asks the model server again;
#: meanwhile a caller that tries again and again makes no new connections.
_REFUSING_S: Final = 1.0
#: What a grpc-message holds as it is (PROTOCOL-HTTP2.md, "Percent-Encoded"); the rest is percent-encoded.
_PLAIN: Final = "".join(chr(code) for code in range(0x20, 0x7F) if code != 0x25)


class Refusal:
    """Says UNAVAILABLE to every call of a connection.

    Args:
        reason: why, for the caller and the record.
    """

    def __init__(self, transport: asyncio.Transport, calls: Calls, reason: str) -> None:
        self._transport = transport
        self._calls = calls
        self._reason = reason
        self._trailers = header_block(
            [
                (b":status", b"200"),
                (b"content-type", b"application/grpc"),
                (b"grpc-status", b"%d" % UNAVAILABLE_CODE),
                (b"grpc-message", quote(reason, safe=_PLAIN).encode()),
            ]
        )
        transport.write(frame(Kind.SETTINGS))
        asyncio.get_running_loop().call_later(_REFUSING_S, self.end)

    def answer(self, frames: Sequence[Frame]) -> None:
        """Answer what the client sent, and end the calls that it opened."""
        answers = []
        for one in frames:
            if one.kind == Kind.SETTINGS and not one.flags & ACK:
                answers.append(frame(Kind.SETTINGS, ACK))
            elif one.kind == Kind.PING and not one.flags & ACK:
                answers.append(frame(Kind.PING, ACK, payload=one.payload))
            elif one.kind == Kind.DATA and one.payload:
                answers.append(frame(Kind.WINDOW_UPDATE, payload=len(one.payload).to_bytes(4, "big")))
        for stream in self._calls.open:
            answers.append(frame(Kind.HEADERS, END_HEADERS | END_STREAM, stream, self._trailers))
            answers.append(frame(Kind.RST_STREAM, stream=stream, payload=NO_ERROR.to_bytes(4, "big")))
        self._calls.lost(UNAVAILABLE, self._reason)
        self._transport.write(b"".join(answers))

    def end(self) -> None:
        """Close the connection; calls that the client is just sending it may send again elsewhere."""
        if not self._transport.is_closing():
            self._transport.write(goaway(self._calls.last_stream))
            self._transport.close()
