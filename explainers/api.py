"""The API: ask for an explanation, fetch it, see which explainers there are.

Workers compute; this process only publishes requests and follows the explanations topic. Both may be restarted at any
time, and there may be several of each. It does not authenticate: a gateway in front of it does, and states the caller.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Final

from fastapi import Depends, FastAPI, Header, Request, Response
from fastapi.responses import JSONResponse

from explainers.api_models import Ask, ExplainerView, ExplanationView, Pending
from explainers.catalogue import Catalogue
from explainers.desk import Caller, Desk
from explainers.index import ExplanationIndex
from explainers.sources import BusInferenceSource, InferenceSource
from govern.bus import Bus
from govern.record import Explanation
from govern.web import problems
from govern.web.application import application

ANONYMOUS: Final = "anonymous"
#: When to ask again, seconds: most explanations take less.
_RETRY_AFTER_S: Final = 1

_DESCRIPTION: Final = """
Explanations of single predictions: attributions (SHAP), rules (Anchors), and reasons in words.

Ask by the id of a captured request or by raw inputs. The answer is 200 with the explanation if it is ready within
`wait_s`, else 202 with its address. Every call is put on record (audit log, action `explain`).
"""


def create_app(*, bus: Bus, namespace: str, catalogue: Catalogue, inferences: InferenceSource | None = None) -> FastAPI:
    """The ASGI application.

    Args:
        bus: entered by the caller, and left only after the app's lifespan has ended.
        inferences: where request ids are looked up; the inferences topic when omitted.
    """
    index = ExplanationIndex(bus, namespace)
    source = inferences if inferences is not None else BusInferenceSource(bus)
    desk = Desk(bus=bus, namespace=namespace, catalogue=catalogue, index=index, inferences=source)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            follower = tasks.create_task(index.follow())
            yield
            follower.cancel()

    app = application("govern explanations", version="1", description=_DESCRIPTION, lifespan=lifespan)

    @app.post(
        "/v1/explanations",
        response_model=ExplanationView,
        responses={202: {"model": Pending, "description": "Being computed"}, **problems.documented(404, 422, 503)},
        summary="Explain a prediction",
    )
    async def post(ask: Ask, caller: Annotated[Caller, Depends(_caller)]) -> Response:
        id_, explanation = await desk.explain(ask, caller)
        return _answer(id_, explanation)

    @app.get(
        "/v1/explanations/{explanation_id}",
        response_model=ExplanationView,
        responses={202: {"model": Pending, "description": "Being computed"}, **problems.documented(404, 503)},
        summary="Fetch an explanation",
    )
    async def get(explanation_id: str, caller: Annotated[Caller, Depends(_caller)]) -> Response:
        return _answer(explanation_id, await desk.find(explanation_id, caller))

    @app.get("/v1/explainers", summary="Which explainers there are", responses=problems.documented(503))
    async def explainers(caller: Annotated[Caller, Depends(_caller)]) -> list[ExplainerView]:
        await desk.record(caller, "explainers")
        return [ExplainerView.of(card) for card in desk.catalogue.cards]

    return app


def _answer(id_: str, explanation: Explanation | None) -> Response:
    location = f"/v1/explanations/{id_}"
    if explanation is None:
        headers = {"Location": location, "Retry-After": str(_RETRY_AFTER_S)}
        return JSONResponse(Pending(id=id_).model_dump(), status_code=202, headers=headers)
    view = ExplanationView.of(explanation)
    return Response(view.model_dump_json(), media_type="application/json", headers={"Content-Location": location})


def _caller(
    request: Request,
    x_govern_actor: Annotated[str, Header(description="Who asks, for the record.")] = "",
    x_govern_purpose: Annotated[str, Header(description="What for, for the record.")] = "",
    traceparent: Annotated[str, Header(description="W3C Trace Context")] = "",
) -> Caller:
    actor = x_govern_actor or _subject(request.headers.get("authorization", "")) or ANONYMOUS
    return Caller(actor=actor, purpose=x_govern_purpose, traceparent=traceparent)


def _subject(authorization: str) -> str:
    """The `sub` of a bearer JWT (RFC 7519), read and not verified; "" when there is none."""
    scheme, _, token = authorization.partition(" ")
    parts = token.split(".")
    if scheme.lower() != "bearer" or len(parts) != 3:
        return ""
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError):
        return ""
    return str(claims.get("sub", "")) if isinstance(claims, dict) else ""
