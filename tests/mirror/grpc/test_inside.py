"""Capture inside a real server of grpc.aio, asked by a real client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from govern.codecs.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from govern.mirror.config import MirrorConfig
from govern.mirror.grpc.inside import CapturedHandlers
from govern.mirror.guest import Guest
from govern.record import Inference
from tests.mirror.conftest import DEADLINE_S, records

SERVICE = "inference.GRPCInferenceService"
UNARY, STREAM = f"/{SERVICE}/ModelInfer", f"/{SERVICE}/ModelStreamInfer"
METADATA = (("x-request-id", "of-the-caller"), ("authorization", "Bearer secret"), ("some-bin", b"\xff"))


class Servicer:
    """Does what the request's id says."""

    def __init__(self) -> None:
        self.waiting = asyncio.Event()

    async def unary(self, request: Any, context: Any) -> Any:
        if request.id == "abort":
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such model")
        if request.id == "raise":
            raise ValueError("a fault of the model")
        if request.id == "unwritable":
            return object()
        if request.id == "wait":
            self.waiting.set()
            await asyncio.sleep(DEADLINE_S)
        return ModelInferResponse(model_name=request.model_name, id=request.id)

    async def stream(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            if request.id == "wait":
                self.waiting.set()
                await asyncio.sleep(DEADLINE_S)
            yield await self.unary(request, context)


@pytest.fixture
def servicer() -> Servicer:
    return Servicer()


@pytest.fixture
async def channel(servicer: Servicer, make_config: Callable[..., MirrorConfig]) -> AsyncIterator[Callable[[bool], Any]]:
    """Of a server whose handlers are captured."""
    kinds = {
        "request_deserializer": ModelInferRequest.FromString,
        "response_serializer": ModelInferResponse.SerializeToString,
    }
    handlers = {
        "ModelInfer": grpc.unary_unary_rpc_method_handler(servicer.unary, **kinds),
        "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(servicer.stream, **kinds),
        "ModelReady": grpc.unary_unary_rpc_method_handler(servicer.unary, **kinds),
    }
    guest = Guest(make_config(), source="middleware")
    server = grpc.aio.server()
    own = grpc.method_handlers_generic_handler(SERVICE, handlers)
    server.add_generic_rpc_handlers((CapturedHandlers(own, {UNARY, STREAM}, guest),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as opened:
        yield opened
    await server.stop(grace=None)
    guest.close()


def unary(channel: Any, path: str = UNARY) -> Any:
    return channel.unary_unary(
        path,
        request_serializer=ModelInferRequest.SerializeToString,
        response_deserializer=ModelInferResponse.FromString,
    )


def stream(channel: Any) -> Any:
    return channel.stream_stream(
        STREAM,
        request_serializer=ModelInferRequest.SerializeToString,
        response_deserializer=ModelInferResponse.FromString,
    )


def asked(identity: str) -> Any:
    return ModelInferRequest(model_name="income", model_version="3", id=identity)


def framed(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return b"\0" + len(data).to_bytes(4, "big") + data


async def recorded(spool_dir: Path, count: int) -> list[Inference]:
    async with asyncio.timeout(DEADLINE_S):
        while len(found := records([spool_dir])) < count:
            await asyncio.sleep(0.01)
    return found


async def test_a_call_is_recorded_byte_by_byte_before_it_is_answered(channel: Any, spool_dir: Path) -> None:
    answer = await unary(channel)(asked("one"), metadata=METADATA)
    (found,) = records([spool_dir])
    assert (found.request.body, found.response.body) == (framed(asked("one")), framed(answer))
    assert (found.request_id, found.model, found.revision, found.path) == ("of-the-caller", "income", "3", UNARY)
    assert (found.grpc_status, found.status_code, found.error, found.protocol) == ("OK", 200, "", "v2-grpc")
    assert found.request.content_type == found.response.content_type == "application/grpc"
    assert b"secret" not in b"".join(file.read_bytes() for file in spool_dir.rglob("*") if file.is_file())


async def test_other_methods_are_not(channel: Any, spool_dir: Path) -> None:
    await unary(channel, f"/{SERVICE}/ModelReady")(asked("one"))
    assert not spool_dir.exists()


@pytest.mark.parametrize(
    ("identity", "status", "http"),
    [("abort", "NOT_FOUND", 404), ("raise", "UNKNOWN", 500), ("unwritable", "UNKNOWN", 500)],
)
async def test_a_refusal_has_its_status(channel: Any, spool_dir: Path, identity: str, status: str, http: int) -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        await unary(channel)(asked(identity))
    (found,) = await recorded(spool_dir, 1)
    assert (found.grpc_status, found.status_code, found.response.body) == (status, http, b"")
    assert found.request.body == framed(asked(identity))


@pytest.mark.parametrize("streams", [False, True])
async def test_a_call_that_is_given_up_says_why(
    channel: Any, servicer: Servicer, spool_dir: Path, streams: bool
) -> None:
    def begin(**options: float) -> Any:
        return (
            stream(channel)(iter([asked("wait")]), **options) if streams else unary(channel)(asked("wait"), **options)
        )

    call = begin()
    end = asyncio.ensure_future(call.read() if streams else call)
    await servicer.waiting.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await end
    await recorded(spool_dir, 1)
    servicer.waiting.clear()
    late = begin(timeout=3.0)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await (late.read() if streams else late)
    assert refused.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    cancelled, late_one = await recorded(spool_dir, 2)
    assert (cancelled.grpc_status, cancelled.error) == ("CANCELLED", "the caller cancelled the call")
    assert (late_one.grpc_status, late_one.error) == ("DEADLINE_EXCEEDED", "the call's deadline passed")


async def test_a_stream_is_one_record(channel: Any, spool_dir: Path) -> None:
    names = [f"n{number}" for number in range(5)]
    call = stream(channel)(iter([asked(name) for name in names]))
    answers = [answer async for answer in call]
    assert [answer.id for answer in answers] == names
    (found,) = await recorded(spool_dir, 1)
    assert found.request.body == b"".join(framed(asked(name)) for name in names)
    assert found.response.body == b"".join(framed(answer) for answer in answers)
    assert (found.request_id, found.grpc_status) == ("n0", "OK")


async def test_a_stream_without_a_request_is_recorded(channel: Any, spool_dir: Path) -> None:
    assert [answer async for answer in stream(channel)(iter([]))] == []
    (found,) = await recorded(spool_dir, 1)
    assert (found.grpc_status, found.request.body, found.response.body) == ("OK", b"", b"")
