"""Capture inside a server of `grpc.aio`: its handlers see messages, and here the bytes that they are made of.

A handler is wrapped where it is registered, so the server's interceptors stay around it. The bytes of a request are
those that its deserializer is given, those of a response what its serializer makes: nothing is encoded twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any, Final, NamedTuple, cast

import grpc

from govern.mirror.grpc.call import DEADLINE_SHARE
from govern.mirror.grpc.names import SCAN_BYTES, said_by
from govern.mirror.grpc.status import CANCELLED, DEADLINE_EXCEEDED, UNKNOWN, Status, of_trailers
from govern.mirror.guest import Guest
from govern.mirror.recorder import Exchange
from govern.mirror.rules import NOTHING_SAID

_CONTENT_TYPE: Final = {b"content-type": b"application/grpc"}


class CapturedHandlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Handlers of a service, of which some are captured.

    Args:
        inner: the service's own; their behaviours are coroutines.
        methods: full names (`/package.Service/Method`) of those to capture, unary or streams on both sides.
    """

    def __init__(self, inner: grpc.GenericRpcHandler, methods: Collection[str], guest: Guest) -> None:
        self._inner = inner
        self._methods = methods
        self._guest = guest

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        handler = self._inner.service(handler_call_details)
        method = handler_call_details.method
        if handler is None or method not in self._methods:
            return handler
        if handler.request_streaming and handler.response_streaming:
            return _stream(handler, method, self._guest)
        if handler.request_streaming or handler.response_streaming:
            return handler
        return _unary(handler, method, self._guest)


class _Asked(NamedTuple):
    message: Any
    data: bytes


class _Answer(NamedTuple):
    message: Any
    call: _Call


class _Call:
    """One call as it passes, told to the recorder; no method raises."""

    __slots__ = ("_context", "_exchange", "_given_s", "_guest", "_method")

    def __init__(self, guest: Guest, method: str, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        self._guest = guest
        self._method = method
        self._context = context
        self._exchange: Exchange | None = None
        self._given_s: float = context.time_remaining() or 0.0
        #: What nothing else tells: it was given up between two of our moments.
        context.add_done_callback(lambda _: self._end(CANCELLED, "the call was given up"))

    def asked(self, data: bytes) -> None:
        if self._exchange is None:
            self._begin(data)
        if self._exchange is not None:
            self._exchange.request_body(_framed(data))

    def answered(self, data: bytes) -> None:
        if self._exchange is not None:
            self._exchange.response_body(_framed(data))

    def ended(self) -> None:
        """All is said but the trailers."""
        self._end(_status(self._context))

    def failed(self, error: BaseException) -> None:
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            left_s = self._context.time_remaining()
            if left_s is not None and left_s <= (1 - DEADLINE_SHARE) * self._given_s:
                self._end(DEADLINE_EXCEEDED, "the call's deadline passed")
            else:
                self._end(CANCELLED, "the caller cancelled the call")
        else:
            found = _status(self._context)
            self._end(UNKNOWN if found.name == "OK" else found)

    def _end(self, status: Status, error: str = "") -> None:
        if self._exchange is None:
            self._begin(b"")
        if self._exchange is not None:
            self._exchange.response_head(status.http, _CONTENT_TYPE, grpc_status=status.name)
            self._exchange.finish(error)

    def _begin(self, data: bytes) -> None:
        recorder = self._guest.recorder()
        if recorder is None:
            return
        try:
            headers = {_bytes(key): _bytes(value) for key, value in self._context.invocation_metadata() or ()}
            said = said_by(data[:SCAN_BYTES]) if data else NOTHING_SAID
        except Exception as failure:  # noqa: BLE001 - a failure of capture must never reach the call
            recorder.lose(failure)
            return
        self._exchange = recorder.begin(b"POST", self._method.encode(), headers | _CONTENT_TYPE, said=said)


def _unary(handler: Any, method: str, guest: Guest) -> grpc.RpcMethodHandler:
    async def behave(asked: _Asked, context: grpc.aio.ServicerContext[Any, Any]) -> _Answer:
        call = _Call(guest, method, context)
        call.asked(asked.data)
        try:
            return _Answer(await handler.unary_unary(asked.message, context), call)
        except BaseException as error:
            call.failed(error)
            raise

    def write(answer: _Answer) -> bytes:
        data = _written(handler.response_serializer, answer)
        answer.call.ended()  # before the last byte leaves
        return data

    return cast(
        grpc.RpcMethodHandler,
        grpc.unary_unary_rpc_method_handler(
            behave, request_deserializer=_reader(handler.request_deserializer), response_serializer=write
        ),
    )


def _stream(handler: Any, method: str, guest: Guest) -> grpc.RpcMethodHandler:
    async def behave(
        requests: AsyncIterator[_Asked], context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[_Answer]:
        call = _Call(guest, method, context)

        async def told() -> AsyncIterator[Any]:
            async for asked in requests:
                call.asked(asked.data)
                yield asked.message

        try:
            async for message in handler.stream_stream(told(), context):
                yield _Answer(message, call)
        except BaseException as error:
            call.failed(error)
            raise
        call.ended()

    def write(answer: _Answer) -> bytes:
        return _written(handler.response_serializer, answer)

    return cast(
        grpc.RpcMethodHandler,
        grpc.stream_stream_rpc_method_handler(
            behave, request_deserializer=_reader(handler.request_deserializer), response_serializer=write
        ),
    )


def _reader(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], _Asked]:
    return lambda data: _Asked(deserialize(data), data)


def _written(serialize: Callable[[Any], bytes], answer: _Answer) -> bytes:
    try:
        data = serialize(answer.message)
    except BaseException as error:
        answer.call.failed(error)
        raise
    answer.call.answered(data)
    return data


def _framed(data: bytes) -> bytes:
    """A message behind its prefix, as on the wire and not compressed."""
    return b"\0" + len(data).to_bytes(4, "big") + data


def _status(context: grpc.aio.ServicerContext[Any, Any]) -> Status:
    code: Any = context.code()
    if isinstance(code, grpc.StatusCode):
        code = code.value[0]
    return of_trailers(b"%d" % (code or 0), b"")


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text
