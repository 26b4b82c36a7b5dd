"""Open Inference Protocol V2 over REST.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md. The payload
goes from bytes to tensors and back by `govern.codecs.v2` alone; FastAPI routes and documents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

from govern import __version__
from govern.codecs import v2, v2_binary
from govern.codecs.packing import unpack
from govern.errors import BadInput, GovernError
from govern.runtime.serving.calls import Calls
from govern.runtime.serving.infer import find, infer
from govern.runtime.serving.model import Model

_BAD_REQUEST: Final = 400
_INTERNAL: Final = 500


def create_app(
    models: Mapping[str, Model],
    *,
    title: str = "govern V2 inference",
    calls: Calls | None = None,
    extensions: Sequence[str] = (),
) -> FastAPI:
    """The ASGI application that serves `models` under their names. Errors are answered as `{"error": text}`.

    Args:
        models: looked up anew for each request.
        calls: bounds what is under way, here and elsewhere in the process.
        extensions: of the protocol that the caller adds.
    """
    bounds = calls or Calls()
    app = FastAPIOffline(title=title, version=__version__)

    @app.get("/v2")
    async def server_metadata() -> Response:
        return _json({"name": "govern", "version": __version__, "extensions": [v2_binary.EXTENSION, *extensions]})

    @app.get("/v2/health/live")
    async def live() -> Response:
        return _json({"live": True})

    @app.get("/v2/health/ready")
    async def ready() -> Response:
        return _json({"ready": True})

    @app.get("/v2/models/{name}")
    @app.get("/v2/models/{name}/versions/{version}", name="model_version_metadata")
    async def metadata(name: str, version: str = "") -> Response:
        return _json(find(models, name, version).metadata)

    @app.get("/v2/models/{name}/ready")
    @app.get("/v2/models/{name}/versions/{version}/ready", name="model_version_ready")
    async def model_ready(name: str, version: str = "") -> Response:
        return _json({"name": find(models, name, version).metadata.name, "ready": True})

    @app.post("/v2/models/{name}/infer")
    @app.post("/v2/models/{name}/versions/{version}/infer", name="version_infer")
    async def call(name: str, request: Request, version: str = "") -> Response:
        model = find(models, name, version)
        asked = await _read(request, bounds)
        outputs = await infer(model, asked, bounds)
        version = version or model.metadata.versions[-1]
        binary = [tensor.name for tensor in outputs if asked.wants_binary(tensor.name)]
        if not binary:
            answer = v2.encode_response(name, outputs, model_version=version, request_id=asked.id)
            return Response(answer, media_type="application/json")
        answer, size = v2.encode_binary_response(
            name, outputs, binary=binary, model_version=version, request_id=asked.id
        )
        return Response(answer, media_type="application/octet-stream", headers={v2_binary.HEADER: str(size)})

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


async def _read(request: Request, calls: Calls) -> v2.Request:
    packed = await calls.body(request.stream(), request.headers.get("content-length"))
    body = unpack(packed, request.headers.get("content-encoding", ""), what="request body")
    return v2.decode_request(body, json_size=v2_binary.json_size(request.headers))


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status_code=status, media_type="application/json")
