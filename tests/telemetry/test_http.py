from __future__ import annotations

import httpx
import pytest
from prometheus_client import CollectorRegistry

from govern.errors import Unavailable
from govern.telemetry.http import serve_metrics
from govern.telemetry.metrics import Metrics, labels
from govern.telemetry.tracing import exemplar
from tests.services.process import free_port

DEADLINE_S = 60.0
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


def test_metrics_are_served_with_every_label(metrics: Metrics) -> None:
    metrics.alarms.labels(*labels(namespace="ns", model="income", step="drift")).inc()
    with serve_metrics(metrics.registry) as server:
        text = httpx.get(f"{server.url}/metrics", timeout=DEADLINE_S).text
    assert (
        'govern_alarms_total{endpoint="",model="income",namespace="ns",pipeline="",revision="",service="",step="drift"}'
        " 1.0"
    ) in text


def test_openmetrics_carries_exemplars(metrics: Metrics) -> None:
    histogram = metrics.inference_duration.labels(*labels(model="income"))
    histogram.observe(0.2, exemplar=exemplar(TRACEPARENT))
    with serve_metrics(metrics.registry) as server:
        accept = {"accept": "application/openmetrics-text; version=1.0.0"}
        response = httpx.get(f"{server.url}/metrics", headers=accept, timeout=DEADLINE_S)
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    (line,) = [line for line in response.text.splitlines() if " # {" in line]
    assert 'le="0.25"' in line
    assert '# {span_id="b7ad6b7169203331",trace_id="0af7651916cd43dd8448eb211c80319c"} 0.2' in line


def test_health_answers_the_reason(metrics: Metrics) -> None:
    reasons: list[str | None] = [None, "consumer has no partition"]
    with serve_metrics(metrics.registry, unwell=lambda: reasons.pop(0)) as server:
        paths = ("healthz", "healthz", "admin")
        well, unwell, elsewhere = (httpx.get(f"{server.url}/{path}", timeout=DEADLINE_S) for path in paths)
    assert (well.status_code, well.text) == (200, "ok\n")
    assert (unwell.status_code, unwell.text) == (503, "consumer has no partition\n")
    assert elsewhere.status_code == 404


def test_port_in_use_is_said_with_its_number(metrics: Metrics) -> None:
    with (
        serve_metrics(metrics.registry) as server,
        pytest.raises(Unavailable) as raised,
        serve_metrics(metrics.registry, port=server.port),
    ):
        pass
    assert str(server.port) in raised.value.what
    assert "another process" in raised.value.why
    assert "--metrics-port" in raised.value.fix


def test_foreign_address_is_refused_with_a_reason(metrics: Metrics) -> None:
    with pytest.raises(Unavailable, match=r"192\.0\.2\.1"), serve_metrics(metrics.registry, "192.0.2.1"):
        pass


def test_port_is_free_again_after_the_block(metrics: Metrics) -> None:
    port = free_port()
    with serve_metrics(metrics.registry, port=port):
        pass
    with serve_metrics(metrics.registry, port=port) as second:
        assert httpx.get(f"{second.url}/healthz", timeout=DEADLINE_S).text == "ok\n"
