"""Every panel and every rule against a real Prometheus that scrapes real instruments."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

import dashboards
from govern.mirror.exported import SnapshotRegistry
from govern.telemetry.http import serve_metrics
from govern.telemetry.metrics import Metrics
from tests.dashboards.emission import emit
from tests.services.prometheus import Prometheus

pytestmark = pytest.mark.prometheus

CONFIG = """
# An interval is also the time limit of a scrape, and after one that is late there is nothing until the next.
global: {{scrape_interval: 2s, evaluation_interval: 250ms}}
scrape_configs:
  - job_name: govern
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
rule_files: [rules.yaml]
"""

RULES = Path(dashboards.__file__).with_name("generated") / "rules.yaml"
DEADLINE_S = 60.0


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for what the next good scrape brings."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"not in {DEADLINE_S} s: {what}"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def scraped() -> Iterator[Prometheus]:
    """A Prometheus that has seen every counter grow."""
    registry = SnapshotRegistry()
    metrics = Metrics(registry)
    emit(metrics)
    with (
        serve_metrics(registry) as server,
        Prometheus(CONFIG.format(port=server.port), files={"rules.yaml": RULES.read_text()}) as prometheus,
    ):
        prometheus.wait_for("govern_audit_reads_total")
        with registry.updating:  # no scrape sees half of it
            emit(metrics)
        prometheus.wait_for("increase(govern_audit_reads_total[1m]) > 0")
        yield prometheus


def test_every_panel_shows_something(scraped: Prometheus) -> None:
    queries = dashboards.queries(rate_interval="10m")  # however long the tests before this one took
    assert len({title for title, _ in queries}) > 25
    until(lambda: [title for title, promql in queries if not _finite(scraped.query(promql))] == [], "every panel")


def test_every_rule_finds_the_trouble_it_is_for(scraped: Prometheus) -> None:
    until(lambda: [name for name, promql in dashboards.alerts() if not scraped.query(promql)] == [], "every rule")


def test_prometheus_evaluates_the_rules_without_error(scraped: Prometheus) -> None:
    until(lambda: "unknown" not in [rule["health"] for rule in _rules(scraped)], "every rule's first evaluation")
    assert [rule["health"] for rule in _rules(scraped)] == ["ok"] * len(dashboards.alerts())
    # Those that wait for nothing; when the others fire is tested with promtool, on its clock.
    expected = {"GovernCaptureLosingRecords", "GovernDeadLettersGrowing"}
    until(lambda: expected <= {rule["name"] for rule in _rules(scraped) if rule["state"] == "firing"}, "two alarms")


def test_numbers_of_the_first_row_are_right(scraped: Prometheus) -> None:
    queries = dict(dashboards.queries())
    expected = {"Drifting now": [1.0], "Capture loss": [4.0], "Audit log size": [170.0]}
    until(lambda: {title: _finite(scraped.query(queries[title])) for title in expected} == expected, "the figures")


def test_exemplars_reach_prometheus(scraped: Prometheus) -> None:
    now = time.time()
    found = scraped.get(
        "/api/v1/query_exemplars",
        query="govern_inference_duration_seconds_bucket",
        start=str(now - 3600),  # they were emitted when the module's first test began
        end=str(now + 60),
    )
    assert found[0]["exemplars"][0]["labels"]["trace_id"] == "0af7651916cd43dd8448eb211c80319c"


def test_an_idle_installation_shows_zeros_and_raises_no_alarm() -> None:
    with (
        serve_metrics(Metrics(CollectorRegistry()).registry) as server,
        Prometheus(CONFIG.format(port=server.port), files={"rules.yaml": RULES.read_text()}) as started,
    ):
        started.wait_for("up == 1")
        queries = dict(dashboards.queries())
        for title in ("Drifting now", "Alarms", "Flagged instances", "Dead letters", "Audit log size", "Capture loss"):
            assert _value(started.query(queries[title])) == 0, title
        assert [name for name, promql in dashboards.alerts() if started.query(promql)] == []


def _rules(prometheus: Prometheus) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = prometheus.get("/api/v1/rules")["groups"]
    return [rule for group in groups for rule in group["rules"]]


def _finite(vector: list[dict[str, Any]]) -> list[float]:
    return [value for sample in vector if math.isfinite(value := float(sample["value"][1]))]


def _value(vector: list[dict[str, Any]]) -> float:
    (sample,) = vector
    return float(sample["value"][1])
