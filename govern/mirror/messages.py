"""The bus message of a captured inference, and the span of its capture."""

from __future__ import annotations

import msgspec
from opentelemetry import trace

from govern.bus.protocol import Outgoing
from govern.codecs.cloudevents import to_message
from govern.record import Feedback, Inference
from govern.telemetry import spans
from govern.telemetry.tracing import context_of, traceparent_of


class Messages:
    """Turns records into messages.

    Args:
        source: `ce_source` of the messages.
        tracer: emits the span of each capture, a child of the caller's; None = the caller's own context travels.
    """

    def __init__(self, source: str, tracer: trace.Tracer | None) -> None:
        self._source = source
        self._tracer = tracer

    def of_feedback(self, record: Feedback) -> Outgoing:
        return to_message(record, source=self._source)

    def of(self, record: Inference) -> tuple[Outgoing, trace.Span | None]:
        """The message, and its span if there is one: started, to be ended once the message is on the bus."""
        message = to_message(record, source=self._source)
        if self._tracer is None:
            return message, None
        span = self._tracer.start_span(
            spans.CAPTURE,
            context=context_of(record.traceparent),
            kind=trace.SpanKind.SERVER,
            start_time=record.t_request,
            attributes={
                spans.NAMESPACE: record.namespace,
                spans.SERVICE: record.service,
                spans.MODEL: record.model,
                spans.REVISION: record.revision,
                spans.ENDPOINT: record.endpoint,
                spans.INFERENCE_ID: record.id,
                spans.REQUEST_ID: record.request_id,
                spans.HTTP_STATUS_CODE: record.status_code,
            },
        )
        if record.error or record.status_code >= 500:
            span.set_status(trace.Status(trace.StatusCode.ERROR, record.error or None))
        parent = traceparent_of(span).encode()
        if not parent:
            return message, span
        headers = tuple((name, parent if name == "traceparent" else value) for name, value in message.headers)
        return msgspec.structs.replace(message, headers=headers), span
