"""A model that is called over V2's gRPC.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/open_inference_grpc.proto
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import grpc

from govern.codecs import v2_grpc
from govern.codecs.tensor import Tensor
from govern.errors import BadInput, DecodeError, Unavailable
from govern.pipeline.spec import ModelSpec
from govern.runtime.flow.errors import Unreachable
from govern.runtime.flow.message import Call

METHOD: Final = "/inference.GRPCInferenceService/ModelInfer"
#: The longest answer: 16 images of 1024 x 1024 pixels in FP32 with three channels. gRPC's own limit, 4 MiB, is less
#: than one of them.
MAX_ANSWER_BYTES: Final = 192 * 1024 * 1024


def channel(url: str) -> grpc.aio.Channel:
    """Connections to `grpc://host:port`, or `grpcs://` by the authorities that gRPC trusts. Made on the event loop."""
    scheme, _, address = url.rstrip("/").partition("://")
    options = [("grpc.max_receive_message_length", MAX_ANSWER_BYTES)]
    if scheme == "grpcs":
        return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(), options=options)
    return grpc.aio.insecure_channel(address, options=options)


class GrpcModel:
    """Keeps its connection between calls: that of the channel, which its owner closes."""

    def __init__(self, step: str, spec: ModelSpec, channel: Callable[[], grpc.aio.Channel]) -> None:
        """
        Args:
            channel: gives the channel, on the event loop: at the first call.
        """
        assert spec.url is not None, "a model that is not called is no step of a flow"
        self._name, self._version = spec.name or step, spec.version or ""
        self._url = spec.url
        self._timeout_s = spec.timeout_ms / 1000
        self._channel = channel
        self._call: grpc.aio.UnaryUnaryMultiCallable | None = None  # of bytes

    async def __call__(self, call: Call, /) -> list[Tensor]:
        """
        Raises:
            BadInput: the model refuses what it was sent.
            Unreachable: there is no connection to it, or it says that it is away.
            Unavailable: it does not answer in time, or answers what is no V2 response.
        """
        body = v2_grpc.encode_request(call.tensors, model=self._name, version=self._version, request_id=call.request_id)
        if self._call is None:
            self._call = self._channel().unary_unary(METHOD)
        try:
            answer = await self._call(body, timeout=self._timeout_s)
        except grpc.aio.AioRpcError as error:
            raise self._refused(error) from error
        try:
            (response,) = v2_grpc.decode_responses(answer, "application/protobuf")
        except DecodeError as error:
            raise self._away(f"its answer cannot be read: {error}", "call a server of V2's gRPC at this url") from error
        return list(response.outputs)

    def _refused(self, error: grpc.aio.AioRpcError) -> BadInput | Unavailable:
        why = f"{error.code().name}: {error.details()}"
        match error.code():
            case grpc.StatusCode.INVALID_ARGUMENT:
                fix = "send what the model takes, or give its inputs their names in tensorMap"
                return BadInput(f"model {self._name!r} at {self._url} refused the request", why=why, fix=fix)
            case grpc.StatusCode.DEADLINE_EXCEEDED:
                why = f"no answer within {self._timeout_s:g} s"
                return self._away(why, "see what the model waits for, or raise the step's timeoutMs")
            case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.RESOURCE_EXHAUSTED:
                fix = "start the model server, or correct the step's url"
                return Unreachable(f"model {self._name!r} at {self._url}", why=why, fix=fix)
        return self._away(why, "see the model server's log; correct the model's name, its version or the url")

    def _away(self, why: str, fix: str) -> Unavailable:
        return Unavailable(f"model {self._name!r} at {self._url}", why=why, fix=fix)
