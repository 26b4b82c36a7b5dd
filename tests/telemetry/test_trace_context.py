from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.trace import INVALID_SPAN, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from govern.telemetry.tracing import context_of, exemplar, link_of, links_of, traceparent_of, tracer_provider

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"

nearly = st.one_of(
    st.from_regex(r"\A[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[ -~]*)?\Z"),
    st.from_regex(r"\A00-[0-9a-fA-F]{32}-[0]{16}-0[0-3]\Z"),
    st.text(max_size=60),
)


@given(nearly)
def test_agrees_with_the_propagator_of_opentelemetry(traceparent: str) -> None:
    theirs = get_current_span(TraceContextTextMapPropagator().extract({"traceparent": traceparent})).get_span_context()
    context = context_of(traceparent)
    # Theirs also takes blanks around the header; ours reads a record's field, where HTTP has already removed them.
    if theirs.is_valid and traceparent == traceparent.strip(" \t\n") and len(traceparent) <= 512:
        assert context is not None
        assert get_current_span(context).get_span_context() == theirs
    else:
        assert context is None


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-1",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
    ],
)
def test_invalid_is_none_everywhere(traceparent: str) -> None:
    assert context_of(traceparent) is None
    assert link_of(traceparent) is None
    assert exemplar(traceparent) is None


def test_child_continues_the_callers_trace() -> None:
    tracer = tracer_provider("test", endpoint=None).get_tracer("test")
    span = tracer.start_span("child", context=context_of(f"00-{TRACE}-{SPAN}-01"))
    traceparent = traceparent_of(span)
    assert traceparent.startswith(f"00-{TRACE}-")
    assert SPAN not in traceparent
    assert traceparent.endswith("-01")


def test_unsampled_caller_stays_unsampled() -> None:
    tracer = tracer_provider("test", endpoint=None).get_tracer("test")
    span = tracer.start_span("child", context=context_of(f"00-{TRACE}-{SPAN}-00"))
    assert not span.is_recording()
    assert traceparent_of(span).endswith("-00")


def test_span_without_context_has_no_traceparent() -> None:
    assert traceparent_of(INVALID_SPAN) == ""


def test_links_are_the_newest_distinct_ones_in_order() -> None:
    parents = [f"00-{TRACE}-{number:016x}-01" for number in range(1, 41)]
    links = links_of([*parents, "not one", parents[-1]])
    assert [link.context.span_id for link in links] == list(range(9, 41))


def test_no_global_provider_is_set() -> None:
    provider = tracer_provider("test", endpoint="http://127.0.0.1:9")
    provider.shutdown()
    assert trace.get_tracer_provider() is not provider
    assert type(trace.get_tracer_provider()).__name__ == "ProxyTracerProvider"
