"""An exchange as it was seen: what the request path puts into the spool.

The request path copies; the record is made of it by whoever takes it out of the spool, while nobody waits. What all
exchanges of a route have in common is encoded once.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

import msgspec

from govern.ids import derived_uuid7
from govern.mirror.body import Headers, payload_of, text
from govern.record import SCHEMA_VERSION, Capture, Inference, Payload, Sampling

#: W3C Trace Context, section 3.2; version ff is forbidden, all-zero ids are invalid.
_TRACEPARENT: Final = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
#: Bounds on what a caller can put into a record beside the bodies (see also `body`); together far below
#: RECORD_OVERHEAD_BYTES.
ID_BYTES_MAX: Final = 1024
#: Routes whose common part is remembered, of all agents of a pod.
_COMMONS_REMEMBERED: Final = 4096
#: Headers that are read whatever the configuration keeps.
_READ_HEADERS: Final = frozenset(
    (b"content-type", b"content-encoding", b"traceparent", b"govern-synthetic", b"seldon-skip-logging")
)


class Common(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What all exchanges of one route, under the same rules, have in common. Fields as the record's.

    Attributes:
        sampling_failed: what the records of failed requests say of their sampling.
        kept_headers, id_headers: as the configuration names them, lower-case.
        capture: without what counts records.
    """

    namespace: str
    service: str
    model: str
    revision: str
    endpoint: str
    protocol: str
    path: str
    sampling: Sampling
    sampling_failed: Sampling
    kept_headers: tuple[bytes, ...]
    id_headers: tuple[bytes, ...]
    capture: Capture


class Side(msgspec.Struct, frozen=True, array_like=True):
    """A request or a response.

    Attributes:
        headers: those that the record may need, names in lower case.
        body: a prefix of it, as configured.
        size: of the whole body.
        sha256: of the whole body; "" when `body` is all of it.
    """

    headers: dict[bytes, bytes]
    body: bytes
    size: int
    sha256: str = ""


class Seen(msgspec.Struct, frozen=True, array_like=True):
    """One exchange. On the wire an array of 13, by which `captured.decode` knows it.

    Attributes:
        common: a `Common`, encoded.
        id: "" = made of agent, seq and time.
        said_id: the request id that the request's message says, before any header's.
        failed: whether it is an error, as the rules of sampling see it.
    """

    common: msgspec.Raw
    id: str
    said_id: bytes
    t_request: int
    t_response: int
    status: int
    grpc_status: str
    error: str
    failed: bool
    seq: int
    dropped_before: int
    request: Side
    response: Side


def wanted_headers(names: Iterable[bytes]) -> frozenset[bytes]:
    """The headers to copy, where the configuration names `names`."""
    return _READ_HEADERS.union(names)


def request_id(headers: Headers, names: Iterable[bytes], *, said: bytes, otherwise: str) -> str:
    """How the caller knows the request.

    Args:
        names: of the headers that say so, the most binding first.
        said: what the request's message says, if anything.
    """
    for name in names:
        value = headers.get(name)
        if value:
            return text(value, ID_BYTES_MAX)
    return text(said, ID_BYTES_MAX) or otherwise


def inference(seen: Seen) -> Inference:
    """The record of an exchange.

    Raises:
        msgspec.DecodeError: its common part cannot be read.
    """
    common = _common(bytes(seen.common))
    request, response = seen.request, seen.response
    told = request.headers.get(b"traceparent")
    capture = common.capture
    identity = seen.id or derived_uuid7(seen.t_request, capture.agent, seen.seq)
    return Inference(
        schema_version=SCHEMA_VERSION,
        id=identity,
        request_id=request_id(request.headers, common.id_headers, said=seen.said_id, otherwise=identity),
        traceparent=told[:55].decode() if told and _TRACEPARENT.fullmatch(told) else _new_trace(identity),
        namespace=common.namespace,
        service=common.service,
        model=common.model,
        revision=common.revision,
        endpoint=common.endpoint,
        protocol=common.protocol,
        t_request=seen.t_request,
        t_response=seen.t_response,
        status_code=seen.status,
        request=_payload(request, common.kept_headers),
        response=_payload(response, common.kept_headers),
        error=seen.error,
        sampling=common.sampling_failed if seen.failed else common.sampling,
        truncated=tuple(
            name for name, side in (("request", request), ("response", response)) if len(side.body) < side.size
        ),
        synthetic=is_synthetic(request.headers),
        capture=Capture(
            agent=capture.agent,
            pod=capture.pod,
            seq=seen.seq,
            dropped_before=seen.dropped_before,
            source=capture.source,
        ),
        path=common.path,
        grpc_status=seen.grpc_status,
    )


def is_synthetic(headers: Headers) -> bool:
    """Traffic made by explainers or probes, never shown to a detector."""
    return headers.get(b"govern-synthetic") == b"1" or headers.get(b"seldon-skip-logging", b"").lower() == b"true"


def _payload(side: Side, kept: tuple[bytes, ...]) -> Payload:
    digest = side.sha256 or hashlib.sha256(side.body).hexdigest()
    return payload_of(side.headers, kept, body=side.body, size=side.size, sha256=digest)


def _new_trace(identity: str) -> str:
    """The header `traceparent` of a new trace; the same whenever the record is made."""
    digest = hashlib.sha256(identity.encode()).hexdigest()
    return f"00-{digest[:32]}-{digest[32:48]}-01"


@lru_cache(_COMMONS_REMEMBERED)
def _common(encoded: bytes) -> Common:
    return msgspec.msgpack.decode(encoded, type=Common)
