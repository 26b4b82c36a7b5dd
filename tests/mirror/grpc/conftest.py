"""A real gRPC server, a `govern mirror grpc` in front of it and the spool between."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from govern.codecs.open_inference_pb2 import ModelInferRequest, ModelInferResponse, ModelStreamInferResponse
from govern.mirror import folder
from govern.record import Inference
from tests.mirror.conftest import DEADLINE_S, govern, records, until
from tests.services.process import Process, free_port, listening

INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM_INFER = "/inference.GRPCInferenceService/ModelStreamInfer"
ANY = "/any.Service/"
#: gRPC's own limit is 4 MB; the proxy has none.
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class ModelServer(grpc.GenericRpcHandler):
    """Methods of every arity. What a call's metadata asks for is done: x-fail (a code's name), x-echo-..."""

    def __init__(self) -> None:
        self.released = threading.Event()
        #: Calls of `Watch` that were cancelled.
        self.n_ended = 0
        self.n_read = 0
        #: Ids of the requests that are held.
        self.held: set[str] = set()
        self.n_flooded = 0
        self.remaining_s: list[float] = []

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        methods = {
            INFER: grpc.unary_unary_rpc_method_handler(self._infer),
            STREAM_INFER: grpc.stream_stream_rpc_method_handler(self._stream_infer),
            ANY + "Unary": grpc.unary_unary_rpc_method_handler(self._unary),
            ANY + "Digest": grpc.unary_unary_rpc_method_handler(self._digest),
            ANY + "Collect": grpc.stream_unary_rpc_method_handler(self._collect),
            ANY + "Repeat": grpc.unary_stream_rpc_method_handler(self._repeat),
            ANY + "Chat": grpc.stream_stream_rpc_method_handler(self._chat),
            ANY + "Watch": grpc.stream_unary_rpc_method_handler(self._watch),
            ANY + "Hold": grpc.stream_stream_rpc_method_handler(self._hold),
            ANY + "Flood": grpc.unary_stream_rpc_method_handler(self._flood),
            ANY + "Deadline": grpc.unary_unary_rpc_method_handler(self._deadline),
        }
        return methods.get(details.method)

    def _metadata(self, context: grpc.ServicerContext) -> None:
        """Send back what begins with x-, at the head and at the end; fail if asked to."""
        asked = [(key, value) for key, value in context.invocation_metadata() if key.startswith("x-")]
        context.send_initial_metadata([(f"head-{key}", value) for key, value in asked])
        trailing = [(f"tail-{key}", value) for key, value in asked]
        named = dict(asked)
        if "x-fail" in named:
            details = [("grpc-status-details-bin", named["x-details-bin"])] if "x-details-bin" in named else []
            context.set_trailing_metadata(trailing + details)
            context.abort(grpc.StatusCode[named["x-fail"]], named.get("x-message", "as asked: 100 % äöü"))
        context.set_trailing_metadata(trailing)

    def _infer(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        if dict(context.invocation_metadata()).get("x-hold"):
            self.held.add(ModelInferRequest.FromString(request).id)
            self.n_read += 1
            self.released.wait(DEADLINE_S)
        self._metadata(context)
        return infer_response(ModelInferRequest.FromString(request)).SerializeToString()

    def _stream_infer(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        self._metadata(context)
        for request in requests:
            answer = infer_response(ModelInferRequest.FromString(request))
            yield ModelStreamInferResponse(infer_response=answer).SerializeToString()

    def _unary(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self._metadata(context)
        return request[::-1]

    def _digest(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        return hashlib.sha256(request).digest()

    def _collect(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        self._metadata(context)
        return b"|".join(requests)

    def _repeat(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        self._metadata(context)
        for length in range(len(request) + 1):
            yield request[:length]

    def _chat(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        self._metadata(context)
        for request in requests:
            yield request[::-1]

    def _watch(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        """Count the calls that end without an answer."""
        gone = threading.Event()
        context.add_callback(gone.set)
        context.send_initial_metadata([])
        if gone.wait(DEADLINE_S):
            self.n_ended += 1
        return b""

    def _hold(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """Read nothing until released, then count."""
        self.released.wait(DEADLINE_S)
        yield str(sum(1 for _ in requests)).encode()

    def _flood(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        """As many pieces of 64 KB as are asked for, as fast as they are taken."""
        for self.n_flooded in range(1, int(request) + 1):
            yield bytes(64 * 1024)

    def _deadline(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.remaining_s.append(context.time_remaining())
        gone = threading.Event()
        context.add_callback(gone.set)
        if request == b"wait":
            gone.wait(DEADLINE_S)
        return b""


def infer_request(model: str = "income", id: str = "", values: int = 3) -> ModelInferRequest:
    request = ModelInferRequest(model_name=model, model_version="2", id=id)
    tensor = request.inputs.add(name="x", datatype="FP64", shape=[1, values])
    tensor.contents.fp64_contents.extend(range(values))
    return request


def infer_response(request: ModelInferRequest) -> ModelInferResponse:
    """The sum of each input."""
    response = ModelInferResponse(model_name=request.model_name, model_version="2", id=request.id)
    for tensor in request.inputs:
        output = response.outputs.add(name="y", datatype="FP64", shape=[1, 1])
        output.contents.fp64_contents.append(sum(tensor.contents.fp64_contents))
    return response


def framed(*messages: bytes) -> bytes:
    """Messages as gRPC has them on the wire."""
    return b"".join(b"\0" + len(message).to_bytes(4, "big") + message for message in messages)


@contextlib.contextmanager
def model_server(port: int = 0, credentials: grpc.ServerCredentials | None = None) -> Iterator[tuple[ModelServer, int]]:
    """A gRPC server with `ModelServer`, health and reflection, and its port."""
    handler = ModelServer()
    with ThreadPoolExecutor(64) as pool:
        server = grpc.server(pool, handlers=[handler], options=[*UNLIMITED, ("grpc.so_reuseport", 0)])
        health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
        names = [health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME]
        reflection.enable_server_reflection(names, server)
        address = f"127.0.0.1:{port}"
        port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
        server.start()
        try:
            yield handler, port
        finally:
            handler.released.set()
            server.stop(None).wait(DEADLINE_S)


@dataclass(frozen=True)
class Relayed:
    """A model server, a proxy process in front of it, and their spool."""

    model: ModelServer
    direct: int
    proxied: int
    proxy: Process
    spool_dir: Path
    channels: list[grpc.Channel] = field(default_factory=list)

    def channel(
        self, port: int | None = None, *, arguments: Sequence[tuple[str, int]] = (), **options: object
    ) -> grpc.Channel:
        """A connection of its own through the proxy, or to another port."""
        arguments = [*UNLIMITED, ("grpc.use_local_subchannel_pool", 1), *arguments]
        opened = grpc.insecure_channel(f"127.0.0.1:{port or self.proxied}", options=arguments, **options)
        self.channels.append(opened)
        return opened

    def recorded(self, request_id: str) -> Inference:
        """The inference with a request id, once it is there; fails when there is more than one."""
        found: list[Inference] = []

        def seen() -> bool:
            found[:] = [each for each in records([self.spool_dir]) if each.request_id == request_id]
            return bool(found)

        until(seen, f"a record of {request_id}")
        (inference,) = found
        return inference


@pytest.fixture
def start_grpc(spool_dir: Path, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """`start_grpc(port, upstream_port, *options)`: a `govern mirror grpc` of its own process."""
    with contextlib.ExitStack() as stack:

        def start(port: int, upstream: int, *options: str) -> Process:
            process = Process(command(port, upstream, spool_dir, *options), log=tmp_path / f"grpc-{port}.log")
            process.start(lambda _: listening(port))
            stack.callback(process.stop)
            return process

        yield start


def command(port: int, upstream: int, spool_dir: Path, *options: str) -> list[str]:
    return govern(
        *("mirror", "grpc", "--listen", f"127.0.0.1:{port}", "--upstream", f"http://127.0.0.1:{upstream}"),
        *("--spool-dir", str(spool_dir), "--service", "income", *options),
    )


@pytest.fixture(scope="module")
def served_grpc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relayed]:
    """One model server and one proxy process for the whole module."""
    base = Path(tempfile.mkdtemp(prefix="govern-test-", dir=folder.default_spool_dir().parent))
    proxied = free_port()
    with model_server() as (model, direct):
        process = Process(
            command(proxied, direct, base / "spool", "--namespace", "bank"),
            log=tmp_path_factory.mktemp("grpc") / "log",
        )
        process.start(lambda _: listening(proxied))
        yield Relayed(model, direct, proxied, process, base / "spool")
        process.stop()
    shutil.rmtree(base)


@pytest.fixture
def relayed(served_grpc: Relayed) -> Iterator[Relayed]:
    """The module's server and proxy, with channels that the test's end closes."""
    served_grpc.model.released.clear()
    yield served_grpc
    served_grpc.model.released.set()
    for channel in served_grpc.channels:
        channel.close()
    served_grpc.channels.clear()
