"""From an exchange of bytes to an `Inference` in the spool.

Everything here may run on the path of somebody's request: no call waits, and no failure leaves this module. A
failure costs the record, which is counted as dropped, and a line in the log.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from govern.ids import Ids
from govern.mirror.agent import AgentInfo, agent_name
from govern.mirror.body import Body, Headers, Hold, text
from govern.mirror.cipher import FrameCipher, needed_key
from govern.mirror.config import MirrorConfig
from govern.mirror.rules import NOTHING_SAID, Route, Rules, Said
from govern.mirror.sampling import Fate
from govern.mirror.spool import SpoolWriter
from govern.record import SCHEMA_VERSION, Capture, Inference

_log: Final = logging.getLogger(__name__)

#: W3C Trace Context, section 3.2; version ff is forbidden, all-zero ids are invalid.
_TRACEPARENT: Final = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
#: Bounds on what a caller can put into a record beside the bodies (see also `body`); together far below
#: RECORD_OVERHEAD_BYTES.
_ID_BYTES_MAX: Final = 1024
#: A log line for the first failure and every thousandth: a failure per request must not flood the log.
_LOG_EVERY: Final = 1000


class Exchange:
    """One inference as it passes. The carrier of the traffic tells what it sees, in order, and then `finish`.

    No method raises, and `finish` counts the inference exactly once, whatever happened before, as long as the spool is
    open.
    """

    __slots__ = (
        "_broken",
        "_finished",
        "_grpc_status",
        "_headers",
        "_open",
        "_recorder",
        "_request",
        "_response",
        "_response_headers",
        "_route",
        "_rules",
        "_sampled",
        "_status",
        "_t_request",
        "id",
        "request_id",
    )

    def __init__(self, recorder: Recorder, route: Route, headers: Headers, *, said_id: bytes, t_request: int) -> None:
        rules = recorder.rules
        self._recorder = recorder
        self._rules = rules
        self._t_request = t_request
        self._finished = False
        self._broken = False
        self._status = 0
        self._grpc_status = ""
        self.id = recorder.ids.uuid7(t_request)
        self.request_id = text(said_id, _ID_BYTES_MAX) or self.id
        for name in rules.id_headers:
            value = headers.get(name)
            if value:
                self.request_id = text(value, _ID_BYTES_MAX)
                break
        fate = route.shares.fate(self.request_id)
        self._sampled = fate is not Fate.LEFT_OUT
        #: Kept only if it fails.
        self._open = fate is Fate.OPEN
        if self._sampled:
            limit, hold = recorder.config.body_bytes, recorder.hold if self._open else None
            self._route = route
            self._headers = headers
            self._response_headers: Headers = {}
            self._request = Body(limit, hold, digest_later=True)
            self._response = Body(limit, hold, digest_later=True)

    def request_body(self, data: bytes) -> None:
        if self._sampled:
            try:
                self._request.feed(data)
            except Exception:  # noqa: BLE001 - a failure of capture must never reach the traffic
                self._broken = True

    def response_head(self, status: int, headers: Headers, *, grpc_status: str = "") -> None:
        """The final response's status and headers (lower-case names).

        Args:
            grpc_status: of a gRPC call the name of its code, of which `status` is the HTTP equivalent.
        """
        self._status = status
        self._grpc_status = grpc_status
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
        try:
            if not self._sampled:
                recorder.spool.count_sampled_out()
                return
            failed = bool(error) or self._status >= self._rules.error_status
            if self._open:
                self._request.release()
                self._response.release()
                if not failed:
                    recorder.spool.count_sampled_out()
                    return
            if self._broken:
                raise RuntimeError("a body could not be observed")
            recorder.spool.append(recorder.encode(self._record(error, failed=failed)))
        except Exception as failure:  # noqa: BLE001 - as above
            recorder.lose(failure)

    def _record(self, error: str, *, failed: bool) -> Inference:
        recorder, config, route, headers = self._recorder, self._recorder.config, self._route, self._headers
        kept = self._rules.kept_headers
        told = headers.get(b"traceparent")
        parent = told[:55].decode() if told and _TRACEPARENT.fullmatch(told) else recorder.ids.traceparent()
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
            traceparent=parent,
            namespace=config.namespace,
            service=config.service,
            model=route.model,
            revision=route.version,
            endpoint=config.endpoint,
            protocol=route.protocol,
            t_request=self._t_request,
            t_response=recorder.clock(),
            status_code=self._status,
            request=self._request.payload(headers, kept),
            response=self._response.payload(answer, kept),
            error=error,
            sampling=route.sampling_failed if failed else route.sampling,
            truncated=truncated,
            synthetic=is_synthetic(headers),
            capture=Capture(
                agent=recorder.spool.info.agent,
                pod=config.pod,
                seq=recorder.spool.next_seq,
                dropped_before=recorder.spool.dropped,
                source=recorder.source,
            ),
            path=route.path,
            grpc_status=self._grpc_status,
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
        self.rules = Rules(config)
        self.hold = Hold(config.sampling.held_bytes)
        self.ids = Ids()
        self.encode = msgspec.msgpack.Encoder().encode
        self._failures = 0

    def begin(
        self, method: bytes, target: bytes, headers: Headers, *, said: Said = NOTHING_SAID, t_request: int = 0
    ) -> Exchange | None:
        """Begin an exchange; None when the request is no inference.

        Args:
            target: the request target as it was on the wire (path and query).
            headers: names in lower case; of a repeated header any one.
            said: what the request's message says.
            t_request: when the request began, if that was not just now.
        """
        try:
            route = self.rules.route(method, target.partition(b"?")[0])
            if route is None:
                return None
            if said is not NOTHING_SAID:
                route = self.rules.completed(route, said)
            return Exchange(self, route, headers, said_id=said.id, t_request=t_request or self.clock())
        except Exception as failure:  # noqa: BLE001 - a failure of capture must never reach the traffic
            self.lose(failure)
            return None

    def apply(self, config: MirrorConfig) -> None:
        """Follow another configuration's rules from the next exchange on; those under way keep theirs.

        From any thread: it puts one whole object into the place of another.
        """
        self.rules = Rules(config)

    def refused(self, standing: bool) -> None:
        """Show whether the configuration file, as it is now, is refused."""
        self.spool.show_refused(standing)

    def lose(self, failure: Exception) -> None:
        """Count an inference that could not be captured."""
        if self._failures % _LOG_EVERY == 0:
            _log.error("an inference could not be captured (%d so far)", self._failures + 1, exc_info=failure)
        self._failures += 1
        try:
            self.spool.count_dropped()
        except ValueError:  # the spool is closed: there is no counter to keep
            _log.error("an inference ended after the spool was closed")
        except Exception:  # noqa: BLE001 - as in `begin`
            _log.exception("an inference could not be counted as dropped")

    def close(self) -> None:
        self.spool.close()


def open_recorder(config: MirrorConfig, *, source: str = "proxy") -> Recorder:
    """A recorder with its own agent in the configured spool. Open it after any fork.

    Args:
        source: how the inferences come, as `Capture.source` names it.

    Raises:
        Unavailable: the spool's folder is not usable, or must be encrypted and there is no memory for its key.
    """
    return Recorder(config, open_spool(config), source=source)


def open_spool(
    config: MirrorConfig, *, stream: str = "inferences", on_segment: Callable[[Path], None] | None = None
) -> SpoolWriter:
    """A new agent in the configured spool.

    Args:
        stream: what it captures.
        on_segment: as of `SpoolWriter`.

    Raises:
        Unavailable: as `open_recorder` does.
    """
    info = AgentInfo(
        agent=agent_name(config.pod),
        pod=config.pod,
        namespace=config.namespace,
        service=config.service,
        model=config.model,
        revision=config.revision,
        endpoint=config.endpoint,
        stream=stream,
    )
    key = needed_key(config)
    return SpoolWriter(
        config.spool_dir,
        info,
        segment_bytes=config.segment_bytes,
        spool_bytes=config.spool_bytes,
        cipher=None if key is None else FrameCipher(key, info.agent),
        on_segment=on_segment,
    )


def is_synthetic(headers: Headers) -> bool:
    """Traffic made by explainers or probes, never shown to a detector."""
    return headers.get(b"govern-synthetic") == b"1" or headers.get(b"seldon-skip-logging", b"").lower() == b"true"
