"""One gRPC call as it passes, told to the recorder."""

from __future__ import annotations

import re
from typing import Final

from govern.mirror.grpc.names import SCAN_BYTES, said_by
from govern.mirror.grpc.status import CANCELLED, DEADLINE_EXCEEDED, Status, of_reset, of_trailers
from govern.mirror.recorder import Exchange, Recorder
from govern.mirror.rules import NOTHING_SAID

Fields = dict[bytes, bytes]

#: A flag "compressed" and the length, before each message.
_PREFIX_BYTES: Final = 5
#: A reset from here on is the deadline's: clients round a deadline up before they send it, by 1 % and by a millisecond,
#: and its headers may have been on their way for longer than its reset.
DEADLINE_SHARE: Final = 0.95
_NS: Final = {b"H": 3600 * 10**9, b"M": 60 * 10**9, b"S": 10**9, b"m": 10**6, b"u": 10**3, b"n": 1}
_TIMEOUT: Final = re.compile(rb"(\d{1,8})([HMSmun])")


class Call:
    """From its headers to its status. The bodies are recorded as on the wire, messages behind their prefixes.

    The exchange begins when the first message's head is there, because only that names the model.
    """

    __slots__ = ("_answer", "_began", "_exchange", "_head", "_headers", "_path", "_recorder", "_t_begin", "whole")

    def __init__(self, recorder: Recorder, path: bytes, headers: Fields) -> None:
        self._headers = _by_short_name(headers)
        self._recorder = recorder
        self._path = path
        self._t_begin = recorder.clock()
        self._began = False
        self._exchange: Exchange | None = None
        self._head = b""
        self._answer: Fields = {}
        #: Whether the caller has said all that it wants to say.
        self.whole = False

    def request(self, data: bytes) -> None:
        if self._began:
            if self._exchange is not None:
                self._exchange.request_body(data)
            return
        self._head += data
        length = int.from_bytes(self._head[1:_PREFIX_BYTES], "big")
        if len(self._head) >= _PREFIX_BYTES + min(length, SCAN_BYTES):
            self._begin()

    def response_headers(self, fields: Fields) -> None:
        """The headers, the trailers, or both in one."""
        self._answer |= fields

    def response(self, data: bytes) -> None:
        if not self._began:
            self._begin()
        if self._exchange is not None:
            self._exchange.response_body(data)

    def ended(self) -> None:
        """The server has said all, its trailers included."""
        status = of_trailers(self._answer.get(b"grpc-status"), self._answer.get(b":status", b""))
        self.end(status, "" if self.whole else "the response came before the request was complete")

    def reset_by_caller(self) -> None:
        if self._deadline_passed():
            self.end(DEADLINE_EXCEEDED, "the call's deadline passed")
        else:
            self.end(CANCELLED, "the caller cancelled the call")

    def reset_by_server(self, error_code: int) -> None:
        self.end(of_reset(error_code), f"the model server reset the call (HTTP/2 error {error_code})")

    def end(self, status: Status, error: str) -> None:
        if not self._began:
            self._begin()
        if self._exchange is not None:
            self._exchange.response_head(status.http, _by_short_name(self._answer), grpc_status=status.name)
            self._exchange.finish(error)

    def _begin(self) -> None:
        self._began = True
        head, self._head = self._head, b""
        packed = head[:1] == b"\x01"
        length = int.from_bytes(head[1:_PREFIX_BYTES], "big")
        message = head[_PREFIX_BYTES : _PREFIX_BYTES + min(length, SCAN_BYTES)]
        self._exchange = self._recorder.begin(
            b"POST",
            self._path,
            self._headers,
            said=NOTHING_SAID if packed else said_by(message),
            t_request=self._t_begin,
        )
        if self._exchange is not None and head:
            self._exchange.request_body(head)

    def _deadline_passed(self) -> bool:
        match = _TIMEOUT.fullmatch(self._headers.get(b"grpc-timeout", b""))
        if match is None:
            return False
        timeout_ns = int(match[1]) * _NS[match[2]]
        return self._recorder.clock() - self._t_begin >= DEADLINE_SHARE * timeout_ns


def _by_short_name(headers: Fields) -> Fields:
    """With a content type that is application/grpc also where it says +proto: the one that the records are known by."""
    kind = headers.get(b"content-type", b"")
    return headers | {b"content-type": kind.removesuffix(b"+proto")} if kind.endswith(b"+proto") else headers
