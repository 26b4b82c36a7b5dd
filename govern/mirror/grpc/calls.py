"""The gRPC calls on one connection, seen in the bytes that pass.

A failure to understand them never reaches the traffic: the connection is then relayed unread.
"""

from __future__ import annotations

import logging
from typing import Final

from govern.mirror.grpc.call import Call, Fields
from govern.mirror.grpc.hpack import HeaderReader
from govern.mirror.grpc.http2 import END_STREAM, PREFACE, Frame, FrameReader, Kind, NotHttp2
from govern.mirror.grpc.status import UNKNOWN, Status
from govern.mirror.recorder import Recorder

_log: Final = logging.getLogger(__name__)


class Calls:
    """Told what passes, in order and before it is passed on, it records each inference before its trailers leave."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._preface = PREFACE
        self._requests = FrameReader()
        self._request_fields = HeaderReader()
        self.responses = FrameReader()
        self._response_fields = HeaderReader()
        #: Whether the connection is relayed unread.
        self.blind = False
        #: By stream; None stands for a call that is no inference.
        self.open: dict[int, Call | None] = {}
        #: The highest stream that the client has opened.
        self.last_stream = 0

    def from_client(self, data: bytes) -> list[Frame]:
        """Bytes of the client; the frames that they complete."""
        if self.blind:
            return []
        try:
            if self._preface:
                data = self._without_preface(data)
            seen = []
            for frame in self._requests.feed(data):
                self._request(frame)
                seen.append(frame)
        except Exception as failure:  # noqa: BLE001 - a failure of capture must never reach the traffic
            self._go_blind(failure)
            return []
        return seen

    def from_server(self, data: bytes) -> None:
        """Bytes of the server."""
        if self.blind:
            return
        try:
            for frame in self.responses.feed(data):
                self._response(frame)
        except Exception as failure:  # noqa: BLE001 - as above
            self._go_blind(failure)

    def lost(self, status: Status, reason: str) -> None:
        """Nothing more will pass."""
        calls, self.open = self.open, {}
        for call in calls.values():
            if call is not None:
                call.end(status, reason)

    def _without_preface(self, data: bytes) -> bytes:
        head = data[: len(self._preface)]
        if not self._preface.startswith(head):
            raise NotHttp2("the client does not speak HTTP/2")
        self._preface = self._preface[len(head) :]
        return data[len(head) :]

    def _request(self, frame: Frame) -> None:
        if frame.kind == Kind.HEADERS:
            fields = self._request_fields.read(frame.payload)
            if frame.stream > self.last_stream:  # else these are trailers, which gRPC has none of here
                self.last_stream = frame.stream
                self.open[frame.stream] = self._call(dict(fields))
        elif frame.kind == Kind.RST_STREAM:
            call = self.open.get(frame.stream)
            if call is not None:
                call.reset_by_caller()
            self.open.pop(frame.stream, None)
            return
        elif frame.kind != Kind.DATA:
            return
        call = self.open.get(frame.stream)
        if call is not None:
            if frame.kind == Kind.DATA:
                call.request(frame.payload)
            if frame.flags & END_STREAM:
                call.whole = True

    def _response(self, frame: Frame) -> None:
        call = self.open.get(frame.stream)
        if frame.kind == Kind.HEADERS:
            fields = dict(self._response_fields.read(frame.payload))
            if call is not None and not fields.get(b":status", b"").startswith(b"1"):
                call.response_headers(fields)
        elif frame.kind == Kind.DATA:
            if call is not None:
                call.response(frame.payload)
        elif frame.kind == Kind.RST_STREAM:
            if call is not None:
                call.reset_by_server(int.from_bytes(frame.payload, "big"))
            self.open.pop(frame.stream, None)
            return
        elif frame.kind == Kind.PUSH_PROMISE:
            raise NotHttp2("gRPC knows no pushes")
        else:
            return
        if frame.flags & END_STREAM:
            if call is not None:
                call.ended()
            self.open.pop(frame.stream, None)

    def _call(self, fields: Fields) -> Call | None:
        path = fields.get(b":path", b"")
        if fields.get(b":method") != b"POST" or self._recorder.rules.route(b"POST", path) is None:
            return None
        return Call(self._recorder, path, fields)

    def _go_blind(self, failure: Exception) -> None:
        self.blind = True
        if self._preface:  # a probe of the port, or a caller with HTTP/1.1: no call was seen
            _log.debug("a connection is relayed unread: %s", failure)
            return
        known = isinstance(failure, ValueError)
        _log.error("a connection is relayed unread from here on: %s", failure, exc_info=None if known else failure)
        self.lost(UNKNOWN, f"the connection could not be read any further: {failure}")
