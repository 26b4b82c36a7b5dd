"""Errors of the API as RFC 9457 problem documents."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from govern.errors import BadInput, GovernError
from govern.telemetry.logging import get_logger

MEDIA_TYPE: Final = "application/problem+json"

_log = get_logger(__name__)


def problem(error: GovernError, request: Request) -> JSONResponse:
    """`type` names the kind of failure, `title` is what, `detail` is why, `fix` is what to do."""
    return JSONResponse(
        {
            "type": f"urn:govern:error:{error.code}",
            "title": error.what,
            "status": error.http_status,
            "detail": error.why,
            "fix": error.fix,
            "instance": request.url.path,
        },
        status_code=error.http_status,
        media_type=MEDIA_TYPE,
    )


def install(app: FastAPI) -> None:
    """Let every failure of the app be answered with a problem document."""

    @app.exception_handler(GovernError)
    async def known(request: Request, error: GovernError) -> JSONResponse:
        return problem(error, request)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return problem(BadInput(where, why=str(first["msg"]), fix="see /docs for what this path takes"), request)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        found = GovernError(str(error.detail), why=f"{request.method} {request.url.path}", fix="see /docs")
        found.code, found.http_status = "http", error.status_code
        return problem(found, request)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        _log.error("explanation API failed", path=request.url.path, exc_info=error)
        found = GovernError("internal error", why="the server's log says more", fix="report it to the operator")
        return problem(found, request)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI `responses` of problem documents."""
    return {
        status: {
            "description": _MEANING[status][0],
            "content": {
                MEDIA_TYPE: {
                    "example": {
                        "type": f"urn:govern:error:{_MEANING[status][1]}",
                        "title": _MEANING[status][0],
                        "status": status,
                        "detail": "what is the cause",
                        "fix": "what to do about it",
                        "instance": "/v1/explanations",
                    }
                }
            },
        }
        for status in statuses
    }


_MEANING: Final = {
    404: ("No such explainer, request or explanation", "not-found"),
    422: ("The request or its inputs are wrong", "bad-input"),
    503: ("The bus is away: nothing is shown that is not recorded first", "bus-error"),
}
