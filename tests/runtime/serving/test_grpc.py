"""V2 over gRPC, on a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from govern.codecs import open_inference_pb2 as pb
from govern.codecs import v2_grpc
from govern.codecs.frames import to_tensors
from govern.codecs.tensor import DTYPES, Tensor, objects
from govern.errors import Unavailable
from govern.runtime.loader import LoadedPipeline
from govern.runtime.serving.calls import Calls
from govern.runtime.serving.grpc_server import serving
from govern.runtime.serving.model import ModelMetadata
from govern.runtime.serving.repository import Repository, Source
from tests.runtime.conftest import Fitted


class Echo:
    """Gives back what it is given; the id of the request decides what goes wrong."""

    metadata = ModelMetadata(name="echo", inputs=(), outputs=())

    async def infer(self, inputs: list[Tensor], /, *, request_id: str = "") -> list[Tensor]:
        if request_id == "away":
            raise Unavailable("weights", why="the store is away", fix="try again")
        if request_id == "defect":
            raise ZeroDivisionError("a defect")
        return inputs


@pytest.fixture
async def channel(repository: Repository) -> AsyncIterator[grpc.aio.Channel]:
    models = Repository([Source("echo", Echo), *repository.sources])
    async with (
        serving(models, Calls(max_bytes=1_000_000), "127.0.0.1", 0) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        yield channel


async def call(
    channel: grpc.aio.Channel, method: str, request: Any, service: str = "inference.GRPCInferenceService"
) -> Any:
    answer = getattr(pb, type(request).__name__.replace("Request", "Response"))
    rpc = channel.unary_unary(
        f"/{service}/{method}",
        request_serializer=lambda one: one.SerializeToString(),
        response_deserializer=answer.FromString,
    )
    return await rpc(request, timeout=60)


async def test_health_and_metadata(channel: grpc.aio.Channel, fitted: Fitted) -> None:
    assert (await call(channel, "ServerLive", pb.ServerLiveRequest())).live
    assert (await call(channel, "ServerReady", pb.ServerReadyRequest())).ready
    assert (await call(channel, "ServerMetadata", pb.ServerMetadataRequest())).extensions == ["model_repository"]
    assert (await call(channel, "ModelReady", pb.ModelReadyRequest(name="watch-drift"))).ready
    assert not (await call(channel, "ModelReady", pb.ModelReadyRequest(name="watch"))).ready
    assert not (await call(channel, "ModelReady", pb.ModelReadyRequest(name="echo", version="7"))).ready
    described = await call(channel, "ModelMetadata", pb.ModelMetadataRequest(name="watch-outlier"))
    assert [(one.name, one.datatype, list(one.shape)) for one in described.outputs] == [
        ("is_outlier", "BOOL", [-1]),
        ("instance_score", "FP64", [-1]),
        ("threshold", "FP64", [1]),
        ("instance_shares", "FP64", [-1, len(fitted.replay.schema.features)]),
    ]
    health = health_pb2_grpc.HealthStub(channel)
    for name in ("", "inference.GRPCInferenceService"):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_step_judges(channel: grpc.aio.Channel, fitted: Fitted, loaded: LoadedPipeline) -> None:
    people = fitted.replay.take(range(50))
    request = pb.ModelInferRequest.FromString(v2_grpc.encode_request(to_tensors(people), model="watch-outlier"))
    answer = v2_grpc.decode_responses(
        (await call(channel, "ModelInfer", request)).SerializeToString(), "application/protobuf"
    )[0]
    scores = loaded.detectors["outlier"].score(people)
    assert {one.name: one.data.tolist() for one in answer.outputs} == {
        "is_outlier": scores.flagged.tolist(),
        "instance_score": scores.scores.tolist(),
        "threshold": [scores.threshold],
        "instance_shares": scores.shares.tolist(),
    }


def every_datatype() -> list[Tensor]:
    numbers = [
        Tensor(name, name, np.array([[0, 1], [1, 0]]).astype(dtype))
        for name, dtype in DTYPES.items()
        if name != "BYTES"
    ]
    return [*numbers, Tensor("BYTES", "BYTES", objects(["a", b"\xff", "", "ä"]).reshape(2, 2))]


@pytest.mark.parametrize("raw", [True, False])
async def test_every_datatype_there_and_back_in_the_form_of_the_request(channel: grpc.aio.Channel, raw: bool) -> None:
    tensors = [one for one in every_datatype() if raw or one.datatype not in ("FP16", "BF16")]
    # A response and a request have their tensors in fields of one form, so one can be made of the other.
    sent = pb.ModelInferResponse.FromString(v2_grpc.encode_response("echo", tensors, raw=raw))
    request = pb.ModelInferRequest(model_name="echo", id="r-1", raw_input_contents=sent.raw_output_contents)
    for one in sent.outputs:
        request.inputs.add(name=one.name, datatype=one.datatype, shape=one.shape, contents=one.contents)
    answer = await call(channel, "ModelInfer", request)
    assert bool(answer.raw_output_contents) is raw
    assert (answer.model_name, answer.model_version, answer.id) == ("echo", "1", "r-1")
    (decoded,) = v2_grpc.decode_responses(answer.SerializeToString(), "application/protobuf")
    assert [(one.name, one.datatype, one.data.tolist()) for one in decoded.outputs] == [
        (one.name, one.datatype, one.data.tolist()) for one in tensors
    ]


@pytest.mark.parametrize(
    ("model", "id_", "size", "code", "message"),
    [
        ("echo", "", 0, grpc.StatusCode.INVALID_ARGUMENT, "V2 message has no input tensor"),
        ("ech", "", 1, grpc.StatusCode.NOT_FOUND, "model 'ech'"),
        ("watch-outlier", "", 1, grpc.StatusCode.INVALID_ARGUMENT, "'x' is no feature"),
        ("echo", "away", 1, grpc.StatusCode.UNAVAILABLE, "the store is away"),
        ("echo", "defect", 1, grpc.StatusCode.INTERNAL, "the model failed: ZeroDivisionError: a defect"),
        ("echo", "", 200_000, grpc.StatusCode.RESOURCE_EXHAUSTED, "larger than max"),
    ],
)
async def test_errors_are_the_protocols(
    channel: grpc.aio.Channel, model: str, id_: str, size: int, code: grpc.StatusCode, message: str
) -> None:
    tensors = [Tensor("x", "FP64", np.zeros(size))] if size else []
    request = pb.ModelInferRequest.FromString(v2_grpc.encode_request(tensors, model=model, request_id=id_))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(channel, "ModelInfer", request)
    assert caught.value.code() == code
    assert message in caught.value.details()


@pytest.mark.parametrize(
    "service", ["inference.GRPCInferenceService", "inference.model_repository.ModelRepositoryService"]
)
async def test_the_repository_under_tritons_and_mlservers_name(channel: grpc.aio.Channel, service: str) -> None:
    await call(channel, "RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name="echo"), service)
    index = await call(channel, "RepositoryIndex", pb.RepositoryIndexRequest(), service)
    assert {one.name: (one.state, one.reason) for one in index.models}["echo"] == ("UNAVAILABLE", "unloaded")
    ready = await call(channel, "RepositoryIndex", pb.RepositoryIndexRequest(ready=True), service)
    assert "echo" not in [one.name for one in ready.models]
    await call(channel, "RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="echo"), service)
    assert (await call(channel, "ModelReady", pb.ModelReadyRequest(name="echo"))).ready
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(channel, "RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="none"), service)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_reflection_describes_the_service_as_the_wire_names_it(channel: grpc.aio.Channel) -> None:
    async def asked() -> AsyncIterator[Any]:
        yield reflection_pb2.ServerReflectionRequest(file_containing_symbol="inference.GRPCInferenceService")

    answers = [one async for one in reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(asked())]
    pool = DescriptorPool()
    for data in answers[0].file_descriptor_response.file_descriptor_proto:
        pool.Add(FileDescriptorProto.FromString(data))
    infer = pool.FindServiceByName("inference.GRPCInferenceService").methods_by_name["ModelInfer"]
    assert infer.input_type.full_name == "inference.ModelInferRequest"
    assert infer.input_type.fields_by_name["inputs"].message_type.fields_by_name["contents"].message_type.full_name == (
        "inference.InferTensorContents"
    )


async def test_a_port_that_is_taken_is_refused(repository: Repository) -> None:
    async with serving(repository, Calls(), "127.0.0.1", 0) as port:
        with pytest.raises(Unavailable, match=f"port {port} on 127.0.0.1"):
            async with serving(repository, Calls(), "127.0.0.1", port):
                pass
