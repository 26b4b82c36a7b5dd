"""Spans through the real exporter to a real OpenTelemetry Collector, and what happens while it is away."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind

from govern.telemetry import spans
from govern.telemetry.tracing import context_of, links_of, traceparent_of, tracer_provider
from tests.services.otlp import OtlpReceiver
from tests.services.process import free_port

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

#: What starting and ending 10^4 spans may take at most; it takes 0.3 s on an idle core.
EMIT_DEADLINE_S = 10.0


def _emit(provider: TracerProvider, number: int) -> float:
    tracer = provider.get_tracer("govern.test")
    start = time.monotonic()
    for _ in range(number):
        tracer.start_span(spans.JUDGE).end()
    return time.monotonic() - start


def test_one_trace_arrives_with_its_links_and_attributes(otlp_receiver: OtlpReceiver) -> None:
    mirror = tracer_provider("govern-mirror", endpoint=otlp_receiver.endpoint, attributes={"k8s.pod.name": "pod-1"})
    worker = tracer_provider("govern-worker", endpoint=otlp_receiver.endpoint)
    captured = []
    for _ in range(40):
        span = mirror.get_tracer("govern.mirror").start_span(
            spans.CAPTURE, context=context_of(CALLER), kind=SpanKind.SERVER, attributes={spans.HTTP_STATUS_CODE: 200}
        )
        captured.append(traceparent_of(span))
        span.end()
    with worker.get_tracer("govern.runtime").start_as_current_span(
        spans.JUDGE,
        context=context_of(captured[-1]),
        kind=SpanKind.CONSUMER,
        links=links_of(captured),
        attributes={spans.PIPELINE: "income", spans.VERDICT_ALARM: True, spans.WINDOW_INSTANCES: 40},
    ):
        pass
    mirror.shutdown()
    worker.shutdown()

    received = otlp_receiver.wait_for(lambda spans_: len(spans_) >= 41)
    assert len(received) == 41
    assert {span.trace_id for span in received} == {"0af7651916cd43dd8448eb211c80319c"}
    captures = [span for span in received if span.name == spans.CAPTURE]
    assert {span.parent_id for span in captures} == {"b7ad6b7169203331"}
    assert all(span.attributes == {spans.HTTP_STATUS_CODE: 200} for span in captures)
    assert captures[0].resource["service.name"] == "govern-mirror"
    assert captures[0].resource["k8s.pod.name"] == "pod-1"
    (judge,) = [span for span in received if span.name == spans.JUDGE]
    assert judge.parent_id == captured[-1].split("-")[2]
    assert judge.links == tuple((p.split("-")[1], p.split("-")[2]) for p in captured[-spans.MAX_LINKS :])
    assert judge.attributes == {spans.PIPELINE: "income", spans.VERDICT_ALARM: True, spans.WINDOW_INSTANCES: 40}
    assert judge.resource["service.name"] == "govern-worker"


@pytest.fixture(params=["refused", "silent"])
def collector_away(request: pytest.FixtureRequest) -> Iterator[str]:
    """A collector's address where nobody listens, or where a peer accepts and never answers."""
    if request.param == "refused":
        yield f"http://127.0.0.1:{free_port()}"
        return
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        yield f"http://127.0.0.1:{silent.getsockname()[1]}"


def test_collector_away_neither_blocks_nor_raises(collector_away: str, caplog: pytest.LogCaptureFixture) -> None:
    provider = tracer_provider("govern-worker", endpoint=collector_away, shutdown_s=1.0)
    with caplog.at_level(logging.INFO):
        assert _emit(provider, 10_000) < EMIT_DEADLINE_S
        start = time.monotonic()
        provider.shutdown()
        assert time.monotonic() - start < 30.0  # told to take 1 s at most; without that it waits for good
        _threads_end("OtelBatchSpan", deadline_s=15.0)
    said = [record for record in caplog.records if record.name.startswith(("govern", "opentelemetry", "urllib3"))]
    assert [record.getMessage() for record in said] == [
        f"collector {collector_away} takes no spans; they are dropped until it does"
    ]
    assert said[0].exc_info is None


def _threads_end(prefix: str, *, deadline_s: float) -> None:
    deadline = time.monotonic() + deadline_s
    while any(thread.name.startswith(prefix) for thread in threading.enumerate()):
        assert time.monotonic() < deadline, "the exporter's thread does not end"
        time.sleep(0.05)


def test_collector_that_comes_back_gets_spans_again(
    otlp_receiver: OtlpReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    provider = tracer_provider("govern-worker", endpoint=otlp_receiver.endpoint)
    tracer = provider.get_tracer("govern.test")
    with caplog.at_level(logging.INFO, logger="govern"):
        otlp_receiver.stop()
        tracer.start_span("lost").end()
        provider.force_flush()
        otlp_receiver.start()
        tracer.start_span("kept").end()
        provider.force_flush()
    provider.shutdown()
    otlp_receiver.wait_for(lambda received: [span.name for span in received] == ["kept"])
    away, back = [record.getMessage() for record in caplog.records if record.name.startswith("govern")]
    assert "takes no spans" in away
    assert "answers again; spans lost meanwhile: 1" in back
