"""Traces: a provider that cannot hurt the process it runs in, and W3C Trace Context as strings.

The provider is handed to whatever emits; the global one of OpenTelemetry is never set, because govern also runs
inside other people's processes, where it is theirs. Records carry a `traceparent` string (W3C Trace Context,
Recommendation of 23 November 2021); the functions here turn it into contexts, links and exemplars, and back.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Final

from opentelemetry.context import Context
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    TraceFlags,
    format_span_id,
    format_trace_id,
    set_span_in_context,
)

from govern.telemetry.spans import MAX_LINKS

#: Spans waiting for the collector; about 1 kB each, so at most a few MB. The oldest are dropped beyond it.
_QUEUE_SPANS: Final = 4096
#: Spans per request: a few hundred kB on the wire before compression.
_BATCH_SPANS: Final = 512
#: A span is seen in the backend about this long after it ends.
_FLUSH_EVERY_MS: Final = 1000
#: One batch is tried this long, retries and all, before it is dropped.
_EXPORT_TIMEOUT_S: Final = 5.0
#: A process that ends waits this long for its last spans: well inside Kubernetes' grace period of 30 s.
_SHUTDOWN_S: Final = 3.0

#: The SDK's loggers speak for every batch, every retry and every span that a full queue drops.
_CHATTY_LOGGERS: Final = (
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.sdk._shared_internal",
)

_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")

_log = logging.getLogger(__name__)


def tracer_provider(
    service: str, *, endpoint: str | None, attributes: Mapping[str, str] | None = None, shutdown_s: float = _SHUTDOWN_S
) -> TracerProvider:
    """A provider whose tracers may be used on any path, whatever the collector does.

    Spans go to a bounded queue and leave on a thread of their own. While the collector is away they are dropped, and
    one line in the log says so when that begins and one when it ends. `provider.shutdown()` delivers what is queued
    and returns within `shutdown_s` seconds; call it when the process ends.

    Args:
        service: the resource's `service.name`, for example "govern-worker".
        endpoint: base URL of an OTLP/HTTP receiver such as "http://collector:4318" (`/v1/traces` is appended, as
            the specification says for OTEL_EXPORTER_OTLP_ENDPOINT), or None: spans get ids and go nowhere.
        attributes: further resource attributes, for example `{"k8s.pod.name": ...}`.
    """
    provider = TracerProvider(
        sampler=ParentBased(ALWAYS_ON),
        resource=Resource.create({**(attributes or {}), "service.name": service}),
        shutdown_on_exit=False,
        meter_provider=NoOpMeterProvider(),
    )
    if endpoint is not None:
        for name in _CHATTY_LOGGERS:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        provider.add_span_processor(_Processor(_Exporter(endpoint), shutdown_s))
    return provider


class _Exporter(SpanExporter):
    """OTLP over HTTP that reports the collector's going and coming once each, and can be told to give up."""

    def __init__(self, endpoint: str) -> None:
        # Every process of govern imports this module; most have no collector.
        from opentelemetry.exporter.otlp.proto.http import Compression
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        self._endpoint = endpoint
        self._otlp = OTLPSpanExporter(
            endpoint.rstrip("/") + "/v1/traces", timeout=_EXPORT_TIMEOUT_S, compression=Compression.Gzip
        )
        self._lost = 0
        self._gave_up = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if self._gave_up.is_set():
            return SpanExportResult.FAILURE
        result = self._otlp.export(spans)
        if result is SpanExportResult.SUCCESS:
            if self._lost:
                _log.warning("collector %s answers again; spans lost meanwhile: %d", self._endpoint, self._lost)
            self._lost = 0
        else:
            if not self._lost:
                _log.warning("collector %s takes no spans; they are dropped until it does", self._endpoint)
            self._lost += len(spans)
        return result

    def give_up(self) -> None:
        """End the retries of the batch under way and refuse every later one."""
        self._gave_up.set()
        self._otlp.shutdown()  # type: ignore[no-untyped-call]  # the SDK left it unannotated

    def shutdown(self) -> None:
        if not self._gave_up.is_set():
            self.give_up()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return True


class _Processor(BatchSpanProcessor):
    """A batch processor whose shutdown has a deadline: the SDK's own waits 30 s for a collector that is away."""

    def __init__(self, exporter: _Exporter, shutdown_s: float) -> None:
        super().__init__(
            exporter,
            max_queue_size=_QUEUE_SPANS,
            schedule_delay_millis=_FLUSH_EVERY_MS,
            max_export_batch_size=_BATCH_SPANS,
            meter_provider=NoOpMeterProvider(),
        )
        self._bounded = exporter
        self._shutdown_s = shutdown_s

    def shutdown(self) -> None:
        flush = threading.Thread(target=super().shutdown, name="govern-spans-shutdown", daemon=True)
        flush.start()
        flush.join(self._shutdown_s)
        if flush.is_alive():
            self._bounded.give_up()


def context_of(traceparent: str) -> Context | None:
    """The context whose current span is the one that `traceparent` names, or None if it is not valid.

    Strict, as W3C Trace Context section 3.2 says: lower-case hex, no zero ids, version ff refused, version 00 with
    nothing after its flags; of a later version only the part that version 00 knows.
    """
    span_context = _span_context(traceparent)
    return None if span_context is None else set_span_in_context(NonRecordingSpan(span_context), Context())


def link_of(traceparent: str) -> Link | None:
    """A link to the span that `traceparent` names, or None if it is not valid."""
    span_context = _span_context(traceparent)
    return None if span_context is None else Link(span_context)


def links_of(traceparents: Iterable[str], *, newest: int = MAX_LINKS) -> tuple[Link, ...]:
    """Links to the last `newest` distinct spans of `traceparents` (oldest first); invalid ones are left out."""
    distinct = dict.fromkeys(reversed(list(traceparents)))
    links = (link for link in map(link_of, distinct) if link is not None)
    return tuple(reversed(list(islice(links, newest))))


def traceparent_of(span: Span) -> str:
    """The W3C `traceparent` of a span (version 00), or "" if the span has no valid context."""
    context = span.get_span_context()
    if not context.is_valid:
        return ""
    return f"00-{format_trace_id(context.trace_id)}-{format_span_id(context.span_id)}-{context.trace_flags:02x}"


def exemplar(traceparent: str) -> dict[str, str] | None:
    """Exemplar labels for `Counter.inc` and `Histogram.observe`, or None if `traceparent` is not valid.

    63 characters with the names, of the 128 that OpenMetrics 1.0 allows.
    """
    context = _span_context(traceparent)
    if context is None:
        return None
    return {"trace_id": format_trace_id(context.trace_id), "span_id": format_span_id(context.span_id)}


def _span_context(traceparent: str) -> SpanContext | None:
    match = _TRACEPARENT.fullmatch(traceparent)
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    if version == "ff" or (version == "00" and rest is not None):
        return None
    context = SpanContext(
        trace_id=int(trace_id, 16), span_id=int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16))
    )
    return context if context.is_valid else None
