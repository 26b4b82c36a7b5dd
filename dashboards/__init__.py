"""Grafana dashboards as code, and the Prometheus rules."""

from dashboards.queries import alerts, queries

__all__ = ["alerts", "queries"]
