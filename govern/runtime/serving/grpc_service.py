"""Open Inference Protocol V2 over gRPC: the service's methods.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_grpc.md
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, NoReturn, Protocol

import grpc
from google.protobuf.message_factory import GetMessageClass
from starlette.concurrency import run_in_threadpool

from govern import __version__
from govern.codecs import open_inference_pb2 as pb
from govern.codecs import v2_grpc
from govern.errors import GovernError, NotFound
from govern.runtime.serving.calls import Calls
from govern.runtime.serving.grpc_names import MLSERVER_REPOSITORY, SERVICE
from govern.runtime.serving.infer import find, infer
from govern.runtime.serving.model import ModelMetadata
from govern.runtime.serving.repository import EXTENSION, Repository
from govern.telemetry.logging import get_logger

Method = Callable[[Any], Awaitable[Any]]

_REPOSITORY: Final = ("RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload")
#: What an error's HTTP status is called here.
_STATUS: Final = {
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}

_log = get_logger(__name__)


class Context(Protocol):
    """What grpc says of the call."""

    async def abort(self, code: grpc.StatusCode, details: str) -> NoReturn: ...


class Service:
    """The methods of the protocol; each is named as its rpc, takes its request and gives its response."""

    def __init__(self, repository: Repository, calls: Calls) -> None:
        self._repository = repository
        self._calls = calls

    async def ServerLive(self, _: pb.ServerLiveRequest) -> pb.ServerLiveResponse:  # noqa: N802
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, _: pb.ServerReadyRequest) -> pb.ServerReadyResponse:  # noqa: N802
        return pb.ServerReadyResponse(ready=True)

    async def ServerMetadata(self, _: pb.ServerMetadataRequest) -> pb.ServerMetadataResponse:  # noqa: N802
        return pb.ServerMetadataResponse(name="govern", version=__version__, extensions=[EXTENSION])

    async def ModelReady(self, asked: pb.ModelReadyRequest) -> pb.ModelReadyResponse:  # noqa: N802
        try:
            find(self._repository, asked.name, asked.version)
        except NotFound:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=True)

    async def ModelMetadata(self, asked: pb.ModelMetadataRequest) -> pb.ModelMetadataResponse:  # noqa: N802
        return _described(find(self._repository, asked.name, asked.version).metadata)

    async def ModelInfer(self, asked: pb.ModelInferRequest) -> bytes:  # noqa: N802
        model = find(self._repository, asked.model_name, asked.model_version)
        outputs = await infer(model, v2_grpc.request_of(asked), self._calls)
        return v2_grpc.encode_response(
            asked.model_name,
            outputs,
            model_version=asked.model_version or model.metadata.versions[-1],
            request_id=asked.id,
            # A client that does not write raw contents may not read them: MLServer's protocol once had none.
            raw=bool(asked.raw_input_contents),
        )

    async def RepositoryIndex(self, asked: pb.RepositoryIndexRequest) -> pb.RepositoryIndexResponse:  # noqa: N802
        answer = pb.RepositoryIndexResponse()
        for one in self._repository.index(only_ready=asked.ready):
            answer.models.add(name=one.name, version=one.version, state=one.state, reason=one.reason)
        return answer

    async def RepositoryModelLoad(  # noqa: N802
        self, asked: pb.RepositoryModelLoadRequest
    ) -> pb.RepositoryModelLoadResponse:
        await run_in_threadpool(self._repository.load, asked.model_name)
        return pb.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(  # noqa: N802
        self, asked: pb.RepositoryModelUnloadRequest
    ) -> pb.RepositoryModelUnloadResponse:
        self._repository.unload(asked.model_name)
        return pb.RepositoryModelUnloadResponse()


def handlers(service: Service) -> list[grpc.GenericRpcHandler]:
    """What a server is given to call the service's methods."""
    methods = {method.name: method for method in pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods}
    served = {
        name: grpc.unary_unary_rpc_method_handler(
            _answering(name, getattr(service, name)),
            request_deserializer=GetMessageClass(method.input_type).FromString,
            response_serializer=_serialised,
        )
        for name, method in methods.items()
    }
    return [
        grpc.method_handlers_generic_handler(SERVICE, served),
        grpc.method_handlers_generic_handler(MLSERVER_REPOSITORY, {name: served[name] for name in _REPOSITORY}),
    ]


def _answering(name: str, method: Method) -> Callable[[Any, Context], Awaitable[Any]]:
    async def answer(request: Any, context: Context) -> Any:
        try:
            return await method(request)
        except GovernError as error:
            await context.abort(_STATUS.get(error.http_status, grpc.StatusCode.INTERNAL), str(error))
        except Exception as error:  # noqa: BLE001 - any model, a user's own included
            _log.error("call failed", method=name, exc_info=error)
            await context.abort(grpc.StatusCode.INTERNAL, f"the model failed: {type(error).__name__}: {error}")

    return answer


def _serialised(answer: Any) -> bytes:
    return answer if isinstance(answer, bytes) else bytes(answer.SerializeToString())


def _described(metadata: ModelMetadata) -> pb.ModelMetadataResponse:
    answer = pb.ModelMetadataResponse(name=metadata.name, versions=metadata.versions, platform=metadata.platform)
    for tensor in metadata.inputs:
        answer.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
    for tensor in metadata.outputs:
        answer.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
    return answer
