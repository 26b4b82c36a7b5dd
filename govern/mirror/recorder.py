"""From an exchange of bytes to a frame in the spool.

Everything here may run on the path of somebody's request: no call waits, and no failure leaves this module. A
failure costs the record, which is counted as dropped, and a line in the log.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import msgspec

from govern.ids import uuid7
from govern.mirror.agent import AgentInfo, agent_name
from govern.mirror.body import Body, Headers, Hold
from govern.mirror.cipher import FrameCipher, needed_key
from govern.mirror.config import RECORD_OVERHEAD_BYTES, MirrorConfig
from govern.mirror.rules import NOTHING_SAID, Pair, Picked, Route, Rules, Said
from govern.mirror.sampling import Fate
from govern.mirror.seen import ID_BYTES_MAX, Seen, Side, inference, request_id
from govern.mirror.spool import SpoolWriter
from govern.record import Capture

_log: Final = logging.getLogger(__name__)

#: A log line for the first failure and every thousandth: a failure per request must not flood the log.
_LOG_EVERY: Final = 1000


class Exchange:
    """One inference as it passes. The carrier of the traffic tells what it sees, in order, and then `finish`.

    No method raises, and `finish` counts the inference exactly once, whatever happened before, as long as the spool is
    open. Little is done here, and little of that in Python: between two requests a processor forgets all of it.
    """

    __slots__ = (
        "_answer",
        "_broken",
        "_finished",
        "_grpc_status",
        "_headers",
        "_id",
        "_open",
        "_recorder",
        "_request",
        "_response",
        "_route",
        "_rules",
        "_said_id",
        "_sampled",
        "_status",
        "_t_request",
        "_whole_bytes",
    )

    def __init__(
        self, recorder: Recorder, rules: Rules, route: Route, headers: Picked, said_id: bytes, t_request: int
    ) -> None:
        self._recorder = recorder
        self._rules = rules
        self._route = route
        self._t_request = t_request
        self._finished = self._broken = self._open = False
        self._sampled = True
        self._status = 0
        self._grpc_status = ""
        self._said_id = said_id
        self._headers = headers
        self._answer: Picked = {}
        #: A body that came in one part, or observed in many.
        self._request: bytes | Body = b""
        self._response: bytes | Body = b""
        #: The longest body that may be kept as one part.
        self._whole_bytes = recorder.body_bytes
        self._id = ""
        if route.shares.rate < 1:
            self._id = uuid7(t_request)
            fate = route.shares.fate(request_id(headers, rules.id_headers, said=said_id, otherwise=self._id))
            self._sampled = fate is not Fate.LEFT_OUT
            if fate is Fate.OPEN:  # kept only if it fails
                self._open = True
                self._whole_bytes = -1

    def identified(self) -> str:
        """The id that its record will have, for whoever has to name it before it is over."""
        if not self._id:
            self._id = uuid7(self._t_request)
        return self._id

    def request_body(self, data: bytes) -> None:
        if data and self._sampled:
            try:
                if self._request == b"" and len(data) <= self._whole_bytes:
                    self._request = bytes(data)  # ASGI's applications also send views
                else:
                    self._request = self._fed(self._request, data)
            except Exception:  # noqa: BLE001 - a failure of capture must never reach the traffic
                self._broken = True

    def response_head(self, status: int, headers: Headers, *, grpc_status: str = "") -> None:
        """The final response's status and headers (lower-case names).

        Args:
            grpc_status: of a gRPC call the name of its code, of which `status` is the HTTP equivalent.
        """
        self._grpc_status = grpc_status
        self._answered(status, headers.items())

    def response_start(self, status: int, headers: Iterable[Pair]) -> None:
        """`response_head`, with headers as ASGI has them: of names in any case."""
        self._answered(status, ((bytes(name).lower(), value) for name, value in headers))

    def _answered(self, status: int, headers: Iterable[Pair]) -> None:
        self._status = status
        try:
            self._answer = self._rules.picked(headers)
        except Exception:  # noqa: BLE001 - as above
            self._broken = True

    def response_body(self, data: bytes) -> None:
        if data and self._sampled:
            try:
                if self._response == b"" and len(data) <= self._whole_bytes:
                    self._response = bytes(data)
                else:
                    self._response = self._fed(self._response, data)
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
            failed = error != "" or self._status >= self._rules.error_status
            if self._open:
                for body in (self._request, self._response):
                    if isinstance(body, Body):
                        body.release()
                if not failed:
                    recorder.spool.count_sampled_out()
                    return
            if self._broken:
                raise RuntimeError("a body could not be observed")
            recorder.keep(self._seen(error, failed=failed))
        except Exception as failure:  # noqa: BLE001 - as above
            recorder.lose(failure)

    def _fed(self, before: bytes | Body, data: bytes) -> Body:
        if isinstance(before, Body):
            body = before
        else:
            body = Body(self._recorder.body_bytes, self._recorder.hold if self._open else None, digest_later=True)
            body.feed(before)
        body.feed(data)
        return body

    def _seen(self, error: str, *, failed: bool) -> Seen:
        recorder = self._recorder
        spool = recorder.spool
        return Seen(
            self._route.common,
            self._id,
            self._said_id,
            self._t_request,
            recorder.clock(),
            self._status,
            self._grpc_status,
            error,
            failed,
            spool.next_seq,
            spool.dropped,
            _side(self._headers, self._request),
            _side(self._answer, self._response),
        )


def _side(headers: Picked, body: bytes | Body) -> Side:
    if isinstance(body, bytes):
        return Side(headers, body, len(body))
    return Side(headers, body.prefix(), body.size, body.digest())


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
        self.body_bytes = config.body_bytes
        self.hold = Hold(config.sampling.held_bytes)
        self._capture = Capture(agent=spool.info.agent, pod=config.pod, source=source)
        self.rules = Rules(config, self._capture)
        self._encode = msgspec.msgpack.Encoder().encode
        #: An exchange with more in its headers than a record has room for is longer, and made into a record at once.
        self._frame_bytes = 2 * config.body_bytes + RECORD_OVERHEAD_BYTES
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
            return self._begin(method, target, headers.items(), said, t_request)
        except Exception as failure:  # noqa: BLE001 - a failure of capture must never reach the traffic
            self.lose(failure)
            return None

    def begin_from(self, method: str, target: bytes, headers: Iterable[Pair]) -> Exchange | None:
        """`begin`, with method and headers as ASGI has them."""
        try:
            return self._begin(method.encode(), target, headers, NOTHING_SAID, 0)
        except Exception as failure:  # noqa: BLE001 - as above
            self.lose(failure)
            return None

    def _begin(
        self, method: bytes, target: bytes, headers: Iterable[Pair], said: Said, t_request: int
    ) -> Exchange | None:
        rules = self.rules
        route = rules.route(method, target.partition(b"?")[0])
        if route is None:
            return None
        if said is not NOTHING_SAID:
            route = rules.completed(route, said)
        return Exchange(self, rules, route, rules.picked(headers), said.id[:ID_BYTES_MAX], t_request or self.clock())

    def apply(self, config: MirrorConfig) -> None:
        """Follow another configuration's rules from the next exchange on; those under way keep theirs.

        From any thread: it puts one whole object into the place of another.
        """
        self.rules = Rules(config, self._capture)

    def keep(self, seen: Seen) -> None:
        """Put an exchange into the spool."""
        frame = self._encode(seen)
        if len(frame) > self._frame_bytes:
            frame = self._encode(inference(seen))
        self.spool.append(frame)

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
