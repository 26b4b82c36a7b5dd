"""From an exchange of bytes to an `Inference` in the spool.

Everything here may run on the path of somebody's request: no call waits, and no failure leaves this module. A
failure costs the record, which is counted as dropped, and a line in the log.
"""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

import msgspec

from govern.ids import uuid7
from govern.mirror.agent import AgentInfo, agent_name
from govern.mirror.config import MirrorConfig, Rule
from govern.mirror.spool import SpoolWriter
from govern.record import SCHEMA_VERSION, Capture, Inference, Payload, Sampling

_log: Final = logging.getLogger(__name__)

#: W3C Trace Context, section 3.2; version ff is forbidden, all-zero ids are invalid.
_TRACEPARENT: Final = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
#: Bounds on what a caller can put into a record beside the bodies; together far below RECORD_OVERHEAD_BYTES.
_ID_BYTES_MAX: Final = 1024
_PATH_BYTES_MAX: Final = 4096
_TYPE_BYTES_MAX: Final = 512
#: All that is kept of the headers of one side.
_HEADERS_BYTES_MAX: Final = 2048
#: Paths whose rule is remembered: a pod serves a few models.
_PATHS_REMEMBERED: Final = 1024
#: A log line for the first failure and every thousandth: a failure per request must not flood the log.
_LOG_EVERY: Final = 1000

Headers = Mapping[bytes, bytes]


class Route(NamedTuple):
    """What a request's path says."""

    protocol: str
    model: str
    version: str


class _Body:
    """Observes one body: its size, its digest, a prefix of it."""

    __slots__ = ("_digest", "_parts", "_room", "size")

    def __init__(self, limit: int) -> None:
        self.size = 0
        self._room = limit
        self._parts: list[bytes] = []
        self._digest = hashlib.sha256()

    def feed(self, data: bytes) -> None:
        size = len(data)
        self.size += size
        self._digest.update(data)
        if self._room > 0:
            self._parts.append(data if size <= self._room else data[: self._room])
            self._room -= size

    def payload(self, headers: Headers, kept: Sequence[bytes]) -> Payload:
        return Payload(
            content_type=_text(headers.get(b"content-type", b""), _TYPE_BYTES_MAX),
            content_encoding=_text(headers.get(b"content-encoding", b""), _TYPE_BYTES_MAX),
            body=b"".join(self._parts),
            size=self.size,
            sha256=self._digest.hexdigest(),
            headers=_kept(headers, kept),
        )

    @property
    def cut(self) -> bool:
        return self._room < 0


class Exchange:
    """One inference as it passes. The carrier of the traffic tells what it sees, in order, and then `finish`.

    No method raises, and `finish` counts the inference exactly once, whatever happened before.
    """

    __slots__ = (
        "_broken",
        "_finished",
        "_headers",
        "_recorder",
        "_request",
        "_response",
        "_response_headers",
        "_route",
        "_sampled",
        "_status",
        "_t_request",
        "_target",
        "id",
        "request_id",
    )

    def __init__(self, recorder: Recorder, route: Route, target: bytes, headers: Headers) -> None:
        config = recorder.config
        self._recorder = recorder
        self._t_request = recorder.clock()
        self._finished = False
        self._broken = False
        self._status = 0
        self.id = uuid7(self._t_request)
        self.request_id = self.id
        for name in recorder.id_headers:
            value = headers.get(name)
            if value:
                self.request_id = _text(value, _ID_BYTES_MAX)
                break
        self._sampled = config.sampling_rate >= 1.0 or sampled(self.request_id, config.sampling_rate)
        if self._sampled:
            self._route = route
            self._target = target
            self._headers = headers
            self._response_headers: Headers = {}
            self._request = _Body(config.body_bytes)
            self._response = _Body(config.body_bytes)

    def request_body(self, data: bytes) -> None:
        if self._sampled:
            try:
                self._request.feed(data)
            except Exception:  # noqa: BLE001 - a failure of capture must never reach the traffic
                self._broken = True

    def response_head(self, status: int, headers: Headers) -> None:
        """The final response's status and headers (lower-case names)."""
        self._status = status
        self._response_headers = headers

    def response_body(self, data: bytes) -> None:
        if self._sampled:
            try:
                self._response.feed(data)
            except Exception:  # noqa: BLE001 - as above
                self._broken = True

    def finish(self, error: str = "") -> None:
        """The exchange is over; call before the response's last byte leaves.

        Args:
            error: what went wrong on the way, if anything; a response of status 500 is no error of this kind.
        """
        if self._finished:
            return
        self._finished = True
        recorder = self._recorder
        if not self._sampled:
            recorder.spool.count_sampled_out()
            return
        try:
            if self._broken:
                raise RuntimeError("a body could not be observed")
            payload = recorder.encode(self._record(error))
        except Exception as failure:  # noqa: BLE001 - as above
            recorder.lose(failure)
            return
        try:
            recorder.spool.append(payload)
        except Exception as failure:  # noqa: BLE001 - as above
            recorder.lose(failure)

    def _record(self, error: str) -> Inference:
        recorder, config, headers = self._recorder, self._recorder.config, self._headers
        traceparent = headers.get(b"traceparent", b"")
        if not _TRACEPARENT.fullmatch(traceparent):
            traceparent = f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01".encode()
        truncated: tuple[str, ...] = ()
        if self._request.cut or self._response.cut:
            truncated = tuple(
                side for side, body in (("request", self._request), ("response", self._response)) if body.cut
            )
        answer = self._response_headers
        return Inference(
            schema_version=SCHEMA_VERSION,
            id=self.id,
            request_id=self.request_id,
            traceparent=traceparent[:55].decode(),
            namespace=config.namespace,
            service=config.service,
            model=config.model or self._route.model,
            revision=config.revision or self._route.version,
            endpoint=config.endpoint,
            protocol=self._route.protocol,
            t_request=self._t_request,
            t_response=recorder.clock(),
            status_code=self._status,
            request=self._request.payload(headers, recorder.kept_headers),
            response=self._response.payload(answer, recorder.kept_headers),
            error=error,
            sampling=recorder.sampling,
            truncated=truncated,
            synthetic=is_synthetic(headers),
            capture=Capture(
                agent=recorder.spool.info.agent,
                pod=config.pod,
                seq=recorder.spool.next_seq,
                dropped_before=recorder.spool.dropped,
                source=recorder.source,
            ),
            path=_text(self._target.partition(b"?")[0], _PATH_BYTES_MAX),
        )


class Recorder:
    """Makes exchanges and puts their records into the spool. One per process; one thread uses it.

    Args:
        source: how the inferences come, as `Capture.source` names it.
        clock: nanoseconds since the Unix epoch.
    """

    def __init__(
        self, config: MirrorConfig, spool: SpoolWriter, *, source: str, clock: Callable[[], int] = time.time_ns
    ) -> None:
        self.config = config
        self.spool = spool
        self.clock = clock
        self.source = source
        self.kept_headers = tuple(name.encode("latin-1") for name in config.headers)
        self.id_headers = tuple(name.encode("latin-1") for name in config.request_id_headers)
        self.sampling = Sampling(rate=config.sampling_rate, strategy="all" if config.sampling_rate >= 1 else "hash")
        self.encode = msgspec.msgpack.Encoder().encode
        self._rules = tuple((rule.method.encode(), re.compile(rule.path.encode()), rule) for rule in config.rules)
        self._route = lru_cache(_PATHS_REMEMBERED)(self._find_route)
        self._failures = 0

    def begin(self, method: bytes, target: bytes, headers: Headers) -> Exchange | None:
        """Begin an exchange; None when the request is no inference.

        Args:
            target: the request target as it was on the wire (path and query).
            headers: names in lower case; of a repeated header any one.
        """
        try:
            route = self._route(method, target.partition(b"?")[0])
            return None if route is None else Exchange(self, route, target, headers)
        except Exception as failure:  # noqa: BLE001 - a failure of capture must never reach the traffic
            self.lose(failure)
            return None

    def lose(self, failure: Exception) -> None:
        """Count an inference that could not be captured."""
        if self._failures % _LOG_EVERY == 0:
            _log.error("an inference could not be captured (%d so far)", self._failures + 1, exc_info=failure)
        self._failures += 1
        try:
            self.spool.count_dropped()
        except ValueError:  # the spool is closed: there is no counter to keep
            _log.error("an inference ended after the spool was closed")

    def close(self) -> None:
        self.spool.close()

    def _find_route(self, method: bytes, path: bytes) -> Route | None:
        for wanted, pattern, rule in self._rules:
            match = pattern.fullmatch(path) if method == wanted else None
            if match:
                groups = match.groupdict()
                return _route_of(rule, groups.get("model"), groups.get("version"))
        return None


def open_recorder(config: MirrorConfig, *, source: str = "proxy") -> Recorder:
    """A recorder with its own agent in the configured spool. Open it after any fork.

    Args:
        source: how the inferences come, as `Capture.source` names it.

    Raises:
        Unavailable: the spool's folder is not usable.
    """
    info = AgentInfo(
        agent=agent_name(config.pod),
        pod=config.pod,
        namespace=config.namespace,
        service=config.service,
        model=config.model,
        revision=config.revision,
        endpoint=config.endpoint,
    )
    spool = SpoolWriter(config.spool_dir, info, segment_bytes=config.segment_bytes, spool_bytes=config.spool_bytes)
    return Recorder(config, spool, source=source)


def sampled(request_id: str, rate: float) -> bool:
    """Whether a request is captured: the same answer in every replica, for a share of `rate` of all ids."""
    point = int.from_bytes(hashlib.sha256(request_id.encode()).digest()[:8], "big")
    return point < rate * 2**64


def is_synthetic(headers: Headers) -> bool:
    """Traffic made by explainers or probes, never shown to a detector."""
    return headers.get(b"govern-synthetic") == b"1" or headers.get(b"seldon-skip-logging", b"").lower() == b"true"


def _route_of(rule: Rule, model: bytes | None, version: bytes | None) -> Route:
    def name(group: bytes | None) -> str:
        return _text(unquote_to_bytes(group or b""), _TYPE_BYTES_MAX)

    return Route(rule.protocol, name(model), name(version))


def _kept(headers: Headers, names: Sequence[bytes]) -> dict[str, str]:
    """The headers that a record keeps; one that finds no room is left out, since a part of it would mislead."""
    kept: dict[str, str] = {}
    room = _HEADERS_BYTES_MAX
    for name in names:
        value = headers.get(name)
        if value is not None and len(name) + len(value) <= room:
            kept[name.decode("latin-1")] = _text(value, room)
            room -= len(name) + len(value)
    return kept


def _text(value: bytes, limit: int) -> str:
    """The value's first bytes as text that takes no more than `limit` bytes in UTF-8."""
    text = value[:limit].decode("utf-8", "replace")
    return text if text.isascii() else text.encode()[:limit].decode("utf-8", "ignore")
