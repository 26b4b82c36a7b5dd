"""A small Open Inference Protocol V2 server (REST) for anything that maps tensors to tensors.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md. The payload
goes from bytes to tensors and back by `govern.codecs.v2` alone; FastAPI routes and documents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi_offline import FastAPIOffline
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from govern import __version__
from govern.codecs import v2, v2_binary
from govern.codecs.packing import unpack
from govern.codecs.tensor import Tensor
from govern.errors import BadInput, GovernError, NotFound

_BAD_REQUEST: Final = 400
_INTERNAL: Final = 500


class TensorMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor that a model takes or gives. In `shape` -1 is any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class ModelMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to `GET /v2/models/{name}`."""

    name: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]
    versions: tuple[str, ...] = ("1",)
    platform: str = "govern"


class V2Model(Protocol):
    """What the server serves."""

    @property
    def metadata(self) -> ModelMetadata: ...

    def infer(self, inputs: list[Tensor], /) -> list[Tensor]:
        """Outputs for the inputs, which have the names that the metadata gives. Called in a worker thread.

        Raises:
            BadInput: shapes or values that the model cannot take.
        """
        ...


def create_app(models: Mapping[str, V2Model], *, title: str = "govern V2 inference") -> FastAPI:
    """The ASGI application that serves `models` under their names. Errors are answered as `{"error": text}`."""
    app = FastAPIOffline(title=title, version=__version__)

    def found(name: str, version: str | None = None) -> V2Model:
        model = models.get(name)
        if model is None:
            raise NotFound(f"model {name!r}", why=f"served are {', '.join(models) or 'none'}", fix="correct the name")
        if version is not None and version not in model.metadata.versions:
            raise NotFound(
                f"version {version!r} of model {name!r}",
                why=f"served are {', '.join(model.metadata.versions)}",
                fix="correct the version, or leave it out",
            )
        return model

    @app.get("/v2")
    async def server_metadata() -> Response:
        return _json({"name": "govern", "version": __version__, "extensions": []})

    @app.get("/v2/health/live")
    async def live() -> Response:
        return _json({"live": True})

    @app.get("/v2/health/ready")
    async def ready() -> Response:
        return _json({"ready": True})

    @app.get("/v2/models/{name}")
    @app.get("/v2/models/{name}/versions/{version}", name="model_version_metadata")
    async def metadata(name: str, version: str | None = None) -> Response:
        return _json(found(name, version).metadata)

    @app.get("/v2/models/{name}/ready")
    @app.get("/v2/models/{name}/versions/{version}/ready", name="model_version_ready")
    async def model_ready(name: str, version: str | None = None) -> Response:
        return _json({"name": found(name, version).metadata.name, "ready": True})

    @app.post("/v2/models/{name}/infer")
    @app.post("/v2/models/{name}/versions/{version}/infer", name="version_infer")
    async def infer(name: str, request: Request, version: str | None = None) -> Response:
        model = found(name, version)
        asked = await _read(request)
        _check_names([tensor.name for tensor in asked.inputs], model.metadata)
        outputs = _select(await run_in_threadpool(model.infer, list(asked.inputs)), asked.outputs)
        answer = v2.encode_response(
            name, outputs, model_version=version or model.metadata.versions[-1], request_id=asked.id
        )
        return Response(answer, media_type="application/json")

    @app.exception_handler(GovernError)
    async def refused(_: Request, error: GovernError) -> Response:
        # The protocol's word for a payload that cannot be used is 400, where our own APIs say 422.
        return _json({"error": str(error)}, _BAD_REQUEST if isinstance(error, BadInput) else error.http_status)

    @app.exception_handler(HTTPException)
    async def no_route(_: Request, error: HTTPException) -> Response:
        return _json({"error": str(error.detail)}, error.status_code)

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> Response:
        # Starlette raises it again once this is sent, so that the server's log has the traceback.
        return _json({"error": f"the model failed: {type(error).__name__}: {error}"}, _INTERNAL)

    return app


async def _read(request: Request) -> v2.Request:
    body = unpack(await request.body(), request.headers.get("content-encoding", ""), what="request body")
    return v2.decode_request(body, json_size=v2_binary.json_size(request.headers))


def _check_names(given: Sequence[str], metadata: ModelMetadata) -> None:
    wanted = [tensor.name for tensor in metadata.inputs]
    for name in given:
        if name not in wanted:
            raise BadInput(
                f"input tensor {name!r} is unknown",
                why=f"model {metadata.name!r} takes {', '.join(wanted)}",
                fix="correct the name",
            )
    for name in wanted:
        if name not in given:
            raise BadInput(
                f"input tensor {name!r} is absent",
                why=f"the request has {', '.join(given)}",
                fix="send every input of the model",
            )


def _select(outputs: list[Tensor], names: Sequence[str]) -> list[Tensor]:
    if not names:
        return outputs
    by_name = {tensor.name: tensor for tensor in outputs}
    for name in names:
        if name not in by_name:
            raise BadInput(
                f"output tensor {name!r} is unknown",
                why=f"the model gives {', '.join(by_name)}",
                fix="correct the name",
            )
    return [by_name[name] for name in names]


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status_code=status, media_type="application/json")
