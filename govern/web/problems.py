"""Errors as RFC 9457 problem documents."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from govern.errors import BadInput, GovernError
from govern.telemetry.logging import get_logger

_log = get_logger("govern.web")

MEDIA_TYPE: Final = "application/problem+json"


def problem(error: GovernError, request: Request) -> JSONResponse:
    """`type` names the kind of failure, `title` is what, `detail` is why, `fix` is what to do."""
    headers = {"WWW-Authenticate": 'Bearer realm="govern"'} if error.http_status == 401 else {}
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
        headers=headers,
    )


def install(app: FastAPI) -> None:
    """Let every failure of the app be answered with a problem document."""

    async def govern_error(request: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, GovernError):
            raise error
        return problem(error, request)

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, RequestValidationError):
            raise error
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return problem(BadInput(where, why=str(first["msg"]), fix="see /docs for what this path takes"), request)

    async def http(request: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, HTTPException):
            raise error
        found = GovernError(str(error.detail), why=f"{request.method} {request.url.path}", fix="see /docs")
        found.code, found.http_status = "http", error.status_code
        return problem(found, request)

    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        _log.error("request failed", path=request.url.path, exc_info=error)
        found = GovernError("internal error", why="the server's log says more", fix="report it to the operator")
        return problem(found, request)

    app.add_exception_handler(GovernError, govern_error)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, unexpected)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI `responses` of problem documents."""
    return {
        status: {"description": _MEANING[status][0], "content": {MEDIA_TYPE: {"example": _example(status)}}}
        for status in statuses
    }


def _example(status: int) -> dict[str, object]:
    meaning, code = _MEANING[status]
    return {
        "type": f"urn:govern:error:{code}",
        "title": meaning,
        "status": status,
        "detail": "what is the cause",
        "fix": "what to do about it",
        "instance": "the path that was asked for",
    }


_MEANING: Final = {
    401: ("No valid bearer token", "unauthorized"),
    403: ("The caller's role does not allow this", "forbidden"),
    404: ("There is no such thing", "not-found"),
    422: ("The request or a parameter of it is wrong", "bad-input"),
    503: ("Bus or database is away: nothing is shown that is not recorded first", "unavailable"),
}
