"""gRPC's status codes: their names, and what HTTP says in their place.

HTTP equivalents: https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto. What a call without a
status of its own ended with: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md (errors of HTTP/2) and
doc/http-grpc-status-mapping.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple


class Status(NamedTuple):
    """How a call ended."""

    name: str
    http: int


_STATUSES: Final = (
    Status("OK", 200),
    Status("CANCELLED", 499),
    Status("UNKNOWN", 500),
    Status("INVALID_ARGUMENT", 400),
    Status("DEADLINE_EXCEEDED", 504),
    Status("NOT_FOUND", 404),
    Status("ALREADY_EXISTS", 409),
    Status("PERMISSION_DENIED", 403),
    Status("RESOURCE_EXHAUSTED", 429),
    Status("FAILED_PRECONDITION", 400),
    Status("ABORTED", 409),
    Status("OUT_OF_RANGE", 400),
    Status("UNIMPLEMENTED", 501),
    Status("INTERNAL", 500),
    Status("UNAVAILABLE", 503),
    Status("DATA_LOSS", 500),
    Status("UNAUTHENTICATED", 401),
)

CANCELLED: Final = _STATUSES[1]
UNKNOWN: Final = _STATUSES[2]
DEADLINE_EXCEEDED: Final = _STATUSES[4]
UNAVAILABLE: Final = _STATUSES[14]
UNAVAILABLE_CODE: Final = 14

#: By error code of a RST_STREAM frame; of the others INTERNAL.
_OF_RESET: Final[Mapping[int, Status]] = {
    0x7: UNAVAILABLE,  # REFUSED_STREAM
    0x8: CANCELLED,  # CANCEL
    0xB: _STATUSES[8],  # ENHANCE_YOUR_CALM
    0xC: _STATUSES[7],  # INADEQUATE_SECURITY
}
#: By HTTP status of a response without a grpc-status; of the others UNKNOWN.
_OF_HTTP: Final[Mapping[bytes, Status]] = {
    b"400": _STATUSES[13],
    b"401": _STATUSES[16],
    b"403": _STATUSES[7],
    b"404": _STATUSES[12],
    b"429": UNAVAILABLE,
    b"502": UNAVAILABLE,
    b"503": UNAVAILABLE,
    b"504": UNAVAILABLE,
}


def of_trailers(grpc_status: bytes | None, http_status: bytes) -> Status:
    """The status of a response that ended.

    Args:
        grpc_status: the field grpc-status of its trailers, if there is one.
        http_status: the field :status of its headers.
    """
    if grpc_status is None:
        return _OF_HTTP.get(http_status, UNKNOWN)
    code = int(grpc_status) if grpc_status.isdigit() else -1
    return _STATUSES[code] if 0 <= code < len(_STATUSES) else UNKNOWN


def of_reset(error_code: int) -> Status:
    """The status of a call whose stream was reset."""
    return _OF_RESET.get(error_code, _STATUSES[13])
